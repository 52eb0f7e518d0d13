/* rt-init: started, given the kept plan, and its process mapped (init/launch.py, idmap/write.py, idmap/helpers.py). */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kept.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10U
#endif
#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
#define SOCKET_FD 3 /* init/main.c */
#define WORDS 2048 /* of a helper's command: the kernel takes 340 lines of three numbers */

static int memory(const char *name, unsigned flags)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);

	if (fd < 0 && flags && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd;
}

/* launch.py, sealed_program: above the number that the connection is copied to. */
static int sealed_program(const struct kept *kept)
{
	struct stat status;
	int program = open(kept->texts[P_PROGRAM].at, O_RDONLY | O_NONBLOCK | O_CLOEXEC), sealed = -1;
	int fd = program >= 0 && is_kept_program(kept, program) ? memory("rt-init", MFD_EXEC) : -1;

	if (fd >= 0 && !fstat(program, &status)) {
		off_t left = status.st_size;
		ssize_t sent = 1;
		while (left > 0 && (sent = sendfile(fd, program, NULL, (size_t)left)) > 0)
			left -= sent;
		if (!left && !fcntl(fd, F_ADD_SEALS, SEALS))
			sealed = fcntl(fd, F_DUPFD_CLOEXEC, SOCKET_FD + 1);
	}
	if (fd >= 0)
		close(fd);
	if (program >= 0)
		close(program);
	return sealed;
}

/* Starts a program with signals as a program expects them; `actions` may be NULL. */
static int spawn(pid_t *pid, char **argv, const char *path, char **environment, posix_spawn_file_actions_t *actions)
{
	posix_spawnattr_t attributes;
	sigset_t none, ignored;

	if (posix_spawnattr_init(&attributes))
		return 0;
	sigemptyset(&none);
	sigemptyset(&ignored);
	sigaddset(&ignored, SIGPIPE);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &ignored);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	int failed = posix_spawn(pid, path, actions, &attributes, argv, environment);
	posix_spawnattr_destroy(&attributes);
	return !failed;
}

/* launch.py, begin: it does nothing before it has its plan, and ends when the connection is closed before. */
int start_init(const struct kept *kept, struct made *made)
{
	char path[40], *argv[] = {"rt-init", NULL}, *environment[] = {NULL};
	int program = sealed_program(kept), pair[2], theirs = -1, started = 0;
	posix_spawn_file_actions_t actions;

	if (program < 0)
		return 0;
	if (!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		made->connection = pair[0];
		theirs = fcntl(pair[1], F_DUPFD_CLOEXEC, SOCKET_FD + 1);
		close(pair[1]);
	}
	snprintf(path, sizeof path, "/proc/self/fd/%d", program);
	if (theirs >= 0 && !posix_spawn_file_actions_init(&actions)) {
		started = !posix_spawn_file_actions_adddup2(&actions, theirs, SOCKET_FD) &&
			  spawn(&made->starter, argv, path, environment, &actions);
		posix_spawn_file_actions_destroy(&actions);
	}
	if (theirs >= 0)
		close(theirs);
	close(program);
	if (!started)
		made->starter = 0;
	return started;
}

/* The plan as it is filled in: `wire` grows by `used` bytes up to its end, `taken` of the kept one are in it. */
struct filling {
	const struct text *plan;
	char *wire;
	size_t used, taken;
};

static void add(struct filling *to, const char *bytes, size_t length)
{
	memcpy(to->wire + to->used, bytes, length);
	to->used += length;
}

static void take_up_to(struct filling *to, uint64_t at)
{
	add(to, to->plan->at + to->taken, at - to->taken);
	to->taken = at;
}

static void add_length(char *at, size_t more)
{
	uint32_t length;

	memcpy(&length, at, sizeof length);
	length += (uint32_t)more;
	memcpy(at, &length, sizeof length);
}

/* Fills in the end of the text at that place. */
static void fill_text(struct filling *to, const struct place *place, const char *text)
{
	const size_t length = strlen(text), field = place->field - place->op;

	take_up_to(to, place->op);
	char *const start = to->wire + to->used;
	take_up_to(to, place->end);
	add(to, text, length);
	add_length(start + OP_LENGTH, length);
	add_length(start + field, length);
}

static size_t size_of_words(char *const *words, uint32_t *count)
{
	size_t size = 0;

	for (*count = 0; words[*count]; ++*count)
		size += sizeof(uint32_t) + strlen(words[*count]) + 1;
	return size;
}

/* Fills in the words of a command as the first list, which is empty, of the op at `op`. */
static void fill_words(struct filling *to, uint64_t op, char *const *words)
{
	uint32_t count;
	const size_t size = size_of_words(words, &count);

	take_up_to(to, op);
	char *const start = to->wire + to->used;
	take_up_to(to, op + FIRST_FIELD);
	for (uint32_t i = 0; i < count; i++) {
		const uint32_t length = (uint32_t)strlen(words[i]);
		add(to, (const char *)&length, sizeof length);
		add(to, words[i], length + 1);
	}
	add_length(start + OP_LENGTH, size);
	memcpy(start + OP_HEAD, &count, sizeof count);
}

/* The plan with the container's id, and a command's words, where they belong. */
static char *plan_for(const struct kept *kept, const struct call *call, size_t *size)
{
	const struct text *plan = &kept->texts[P_PLAN];
	const uint64_t find = kept->numbers[K_FIND_AT], exec = kept->numbers[K_EXEC_AT];
	const size_t ids = kept->texts[P_IDS].length / (2 * sizeof(uint32_t));
	struct place place;
	uint32_t count;

	*size = plan->length + ids * strlen(call->id);
	if (exec)
		*size += strlen(call->words[0]) + size_of_words(call->words, &count);
	struct filling to = {.plan = plan, .wire = *size <= UINT32_MAX ? malloc(*size) : NULL};
	if (!to.wire)
		return NULL;
	for (size_t i = 0; place_of_id(kept, i, &place); i++)
		fill_text(&to, &place, call->id);
	if (exec) {
		fill_text(&to, &(struct place){find, find + OP_HEAD, find + FIRST_FIELD}, call->words[0]);
		fill_words(&to, exec, call->words);
	}
	take_up_to(&to, plan->length);
	add_length(to.wire + 8, *size - plan->length); /* behind the magic: the length of all */
	return to.wire;
}

/* launch.py, send_plan: the plan's descriptor, and those of the slots. */
int send_plan(const struct kept *kept, const struct made *made, const struct call *call)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * (1 + MOST_FDS))];
		struct cmsghdr align;
	} control = {{0}};
	const size_t rights = sizeof(int) * (1 + (size_t)made->fd_count);
	uint64_t slots = (uint64_t)made->fd_count;
	struct iovec part = {&slots, sizeof slots};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	size_t size = 0;
	char *wire = plan_for(kept, call, &size);
	int fd = wire ? memory("plan", 0) : -1;
	int ready = fd >= 0 && write(fd, wire, size) == (ssize_t)size && !fcntl(fd, F_ADD_SEALS, SEALS);

	free(wire);
	if (ready) {
		struct cmsghdr *head = CMSG_FIRSTHDR(&message);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(rights);
		memcpy(CMSG_DATA(head), &fd, sizeof fd);
		memcpy(CMSG_DATA(head) + sizeof fd, made->fds, rights - sizeof fd);
		message.msg_controllen = CMSG_SPACE(rights);
		ready = sendmsg(made->connection, &message, MSG_NOSIGNAL) == sizeof slots;
	}
	if (fd >= 0)
		close(fd);
	return ready;
}

/* write.py, open_process: from a procfs that shows our own pid namespace. */
static int open_process(pid_t pid)
{
	char name[16], self[16];
	struct stat root, process;
	int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), fd = -1;

	if (proc < 0)
		return -1;
	ssize_t length = readlinkat(proc, "self", self, sizeof self - 1);
	self[length < 0 ? 0 : length] = '\0';
	snprintf(name, sizeof name, "%d", getpid());
	if (!fstat(proc, &root) && root.st_ino == 1 && !strcmp(self, name)) {
		snprintf(name, sizeof name, "%d", pid);
		fd = openat(proc, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	}
	if (fd >= 0 && (fstat(fd, &process) || process.st_dev != root.st_dev)) {
		close(fd);
		fd = -1;
	}
	close(proc);
	return fd;
}

/* helpers.py, start: what it has to say is not listened to, as Python is going to hear the same. */
static int start_helper(const struct text *words, pid_t process, pid_t *pid)
{
	static char *const environment[] = {"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C", NULL};
	char *argv[WORDS], number[16];
	posix_spawn_file_actions_t actions;
	int count = 0, done = 0;

	snprintf(number, sizeof number, "%d", process);
	for (const char *at = words->at, *end = at + words->length; at < end; at += strlen(at) + 1) {
		if (count >= WORDS - 2)
			return 0;
		argv[count++] = (char *)at;
		if (count == 1)
			argv[count++] = number;
	}
	argv[count] = NULL;
	if (posix_spawn_file_actions_init(&actions))
		return 0;
	if (!posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0) &&
	    !posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0) &&
	    !posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0))
		done = spawn(pid, argv, argv[0], (char **)environment, &actions);
	posix_spawn_file_actions_destroy(&actions);
	if (!done)
		*pid = 0;
	return done;
}

static int ends_well(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 0;
	return WIFEXITED(status) && !WEXITSTATUS(status);
}

/* write.py, write_maps: both helpers run at once, and beside what is written here. */
int write_maps(const struct kept *kept, pid_t pid)
{
	static const char *const files[] = {"uid_map", "gid_map"};
	const struct text *maps[] = {&kept->texts[P_UID_MAP], &kept->texts[P_GID_MAP]};
	const struct text *commands[] = {&kept->texts[P_UID_HELPER], &kept->texts[P_GID_HELPER]};
	pid_t helpers[2] = {0, 0};
	int process, mapped = 1;

	if (!(kept->numbers[K_FLAGS] & KEPT_MAPS))
		return 1;
	if ((process = open_process(pid)) < 0)
		return 0;
	if (kept->numbers[K_FLAGS] & KEPT_DENY_GROUPS)
		mapped = put(process, "setgroups", "deny", 4);
	for (int i = 0; mapped && i < 2; i++)
		if (commands[i]->length)
			mapped = start_helper(commands[i], pid, &helpers[i]);
	for (int i = 0; mapped && i < 2; i++)
		if (!commands[i]->length)
			mapped = put(process, files[i], maps[i]->at, maps[i]->length);
	for (int i = 0; i < 2; i++)
		if (helpers[i] > 0)
			mapped &= ends_well(helpers[i]);
	close(process);
	return mapped;
}
