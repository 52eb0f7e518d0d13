/* The container's process and its cgroup, with the checks of container/processes.py and container/record.py. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "shortcut.h"

#define FIELDS 4096 /* more than one of the small files of /proc holds */
#define END_MS 1000
#define SPACE " \t\n\r\f\v"

/* processes.py, _read: the length, 0 for what is not there, -1 for all else. */
static ssize_t read_proc(const char *path, char *bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, bytes, FIELDS - 1);
	int gone = length < 0 && (errno == ENOENT || errno == ESRCH);

	if (fd >= 0)
		close(fd);
	if (gone)
		length = 0;
	if (length >= 0)
		bytes[length] = '\0';
	return length;
}

/* processes.py, boot_id. */
int read_boot_id(char *text, size_t size)
{
	char bytes[FIELDS];
	ssize_t length = read_proc("/proc/sys/kernel/random/boot_id", bytes);

	while (length > 0 && strchr(SPACE, bytes[length - 1]))
		length--;
	if (length < 0 || (size_t)length >= size)
		return 0;
	memcpy(text, bytes, (size_t)length);
	text[length] = '\0';
	return 1;
}

/* processes.py, start_time: 1 with the state letter too, 0 when there is no such process, -1 when that cannot be told. */
int read_start_time(pid_t pid, char *letter, char *text, size_t size)
{
	char path[64], bytes[FIELDS];

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	ssize_t length = read_proc(path, bytes);
	if (length <= 0)
		return (int)length;
	/* Behind the name, which can hold anything: the state, and 18 fields on the start time (proc_pid_stat(5)). */
	char *at = strrchr(bytes, ')');
	if (!at++)
		return -1;
	at += strspn(at, SPACE);
	*letter = *at;
	for (int i = 0; i < 19; i++) {
		at += strcspn(at, SPACE);
		at += strspn(at, SPACE);
	}
	const size_t digits = strcspn(at, SPACE);
	if (!digits || digits >= size)
		return -1;
	memcpy(text, at, digits);
	text[digits] = '\0';
	return 1;
}

/* processes.py, is_alive: 1, 0, or -1 when it cannot be told. */
static int is_alive(const struct record *record)
{
	char letter, started[32], boot[FIELDS];
	int found = read_start_time((pid_t)record->numbers[N_PID], &letter, started, sizeof started);

	if (found <= 0)
		return found;
	if (letter == 'Z' || letter == 'X' || strcmp(started, record->texts[T_STARTED].at))
		return 0;
	return read_boot_id(boot, sizeof boot) ? !strcmp(boot, record->texts[T_BOOT].at) : -1;
}

/*
 * processes.py, open_process: 1 with a pidfd of the recorded process, 0 when it has ended, -1 when that cannot be told.
 * The pidfd comes first: it holds on to whoever has the number at the moment that is compared.
 */
int hold_process(const struct record *record, int *pidfd)
{
	*pidfd = (int)syscall(SYS_pidfd_open, (pid_t)record->numbers[N_PID], 0);
	if (*pidfd < 0)
		return errno == ESRCH || errno == EINVAL ? 0 : -1;
	return is_alive(record);
}

/* Whether a descriptor is of a cgroup filesystem of either version. */
static int is_cgroup(int fd)
{
	struct statfs status;

	return !fstatfs(fd, &status) && (status.f_type == CGROUP2_SUPER_MAGIC || status.f_type == CGROUP_SUPER_MAGIC);
}

/*
 * Whether a cgroup of this name may be ours or above ours: Python then looks closely (record.py, _may_be_ours), as
 * all in the container's is killed and removed.
 */
static int may_hold_us(const char *own, const char *path)
{
	const char *name = strrchr(path, '/') + 1;
	size_t length = strlen(name);

	if (!length)
		return 1;
	for (const char *at = own; (at = strstr(at, name)); at++)
		if (at > own && at[-1] == '/' && (at[length] == '/' || at[length] == '\n' || !at[length]))
			return 1;
	return 0;
}

static int is_apart(const struct record *record)
{
	static char own[65536];
	const struct text *leaves = &record->texts[T_LEAVES];
	int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read_small(fd, own, sizeof own - 1);

	if (fd >= 0)
		close(fd);
	if (length < 0)
		return 0;
	own[length] = '\0';
	for (const char *path = leaves->at; path < leaves->at + leaves->length; path += strlen(path) + 1)
		if (may_hold_us(own, path))
			return 0;
	return 1;
}

/* cgroups: Manager.frozen: 1, 0, or -1. */
static int is_frozen(const struct record *record)
{
	char bytes[64];

	if (!record->texts[T_FREEZER].length)
		return 0;
	int fd = open(record->texts[T_FREEZER].at, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -1;
	ssize_t length = is_cgroup(fd) ? read_small(fd, bytes, sizeof bytes) : -1;
	close(fd);
	if (length < 0)
		return -1;
	while (length && strchr(SPACE, bytes[length - 1]))
		length--;
	return length == 1 && *bytes == '1';
}

/* lifecycle.py, connect and _listens: whether it waits for start; *waiting is then the connection to it, or -1. */
static enum status reach(const struct container *box, int *waiting)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat status;

	if (fstatat(box->directory, "start", &status, AT_SYMLINK_NOFOLLOW))
		return RUNNING;
	snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/start", box->directory);
	*waiting = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (*waiting < 0)
		return UNKNOWN;
	if (!connect(*waiting, (struct sockaddr *)&address, sizeof address))
		return CREATED;
	int why = errno;
	close(*waiting);
	*waiting = -1;
	if (why == EAGAIN)
		return CREATED; /* stopped, with many waiting */
	return why == ECONNREFUSED || why == ENOENT ? RUNNING : UNKNOWN;
}

/* lifecycle.py, status_of, of a container whose record exists; `alive` as hold_process told. */
enum status status_of(const struct container *box, int alive, int *waiting)
{
	*waiting = -1;
	if (alive <= 0)
		return alive ? UNKNOWN : STOPPED;
	if (box->record.numbers[N_FLAGS] & RECORD_CGROUP) {
		int frozen = is_apart(&box->record) ? is_frozen(&box->record) : -1;
		if (frozen)
			return frozen < 0 ? UNKNOWN : PAUSED;
	}
	return reach(box, waiting);
}

/* lifecycle.py, kill_all: SIGKILL, and the end of the process. Python waits on where this does not suffice. */
int end_process(int pidfd)
{
	struct pollfd end = {.fd = pidfd, .events = POLLIN};

	if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) && errno != ESRCH)
		return 0;
	return poll(&end, 1, END_MS) == 1;
}

/* How often a cgroup without any below it lists the process, which must be all that it lists; -1 else. */
static int count_in(const char *path, pid_t pid)
{
	char bytes[64], wanted[16];
	struct stat status;
	int directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (directory < 0)
		return errno == ENOENT ? 0 : -1;
	/* A directory has one link more for each below it. */
	int plain = is_cgroup(directory) && !fstat(directory, &status) && status.st_nlink == 2;
	int fd = plain ? openat(directory, "cgroup.procs", O_RDONLY | O_CLOEXEC) : -1;
	ssize_t length = fd < 0 ? -1 : read_small(fd, bytes, sizeof bytes);
	if (fd >= 0)
		close(fd);
	close(directory);
	if (length <= 0)
		return length ? -1 : 0;
	return length == snprintf(wanted, sizeof wanted, "%d\n", pid) && !memcmp(bytes, wanted, (size_t)length) ? 1 : -1;
}

/* members.py, where that is easy: whether the cgroups hold the first process alone, or if that has ended, nothing. */
int is_alone(const struct record *record, enum status status)
{
	const struct text *leaves = &record->texts[T_LEAVES];
	int listed = 0;

	if (!is_apart(record))
		return 0;
	for (const char *path = leaves->at; path < leaves->at + leaves->length; path += strlen(path) + 1) {
		int count = count_in(path, (pid_t)record->numbers[N_PID]);
		if (count < 0)
			return 0;
		listed += count;
	}
	return status == STOPPED ? !listed : listed > 0;
}

/* Removes one cgroup that is empty; 1 also when it was not there, 0 with all else, and errno then. */
int remove_cgroup(const char *path)
{
	char parent[PATH_MAX];
	size_t length = (size_t)(strrchr(path, '/') - path);

	if (length == 0 || length >= sizeof parent || !path[length + 1])
		return 0;
	memcpy(parent, path, length);
	parent[length] = '\0';
	int fd = open(parent, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT;
	int gone = is_cgroup(fd) && (!unlinkat(fd, path + length + 1, AT_REMOVEDIR) || errno == ENOENT);
	close(fd);
	return gone;
}

/* cgroups: Manager.delete, where nothing lives in them any more. */
int remove_cgroups(const struct record *record)
{
	const struct text *leaves = &record->texts[T_LEAVES], *parents = &record->texts[T_PARENTS];

	if (!(record->numbers[N_FLAGS] & RECORD_CGROUP))
		return 1;
	if (!is_apart(record))
		return 0;
	for (const char *path = leaves->at; path < leaves->at + leaves->length; path += strlen(path) + 1)
		if (!remove_cgroup(path))
			return 0;
	for (const char *path = parents->at; path < parents->at + parents->length; path += strlen(path) + 1)
		remove_cgroup(path); /* another container may live in it, which then stays */
	return 1;
}
