/* The process: its ids, capabilities, limits and files. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "rt.h"

/* Where the plain numbers are those of calls with 16-bit ids (32-bit x86 and arm): uid 65536 would be root. */
#ifdef SYS_setresuid32
#define CALL_SETRESUID SYS_setresuid32
#define CALL_SETRESGID SYS_setresgid32
#define CALL_SETGROUPS SYS_setgroups32
#else
#define CALL_SETRESUID SYS_setresuid
#define CALL_SETRESGID SYS_setresgid
#define CALL_SETGROUPS SYS_setgroups
#endif

/* A passwd file larger than this is not read: the image chooses its size. */
#define MAX_PASSWD (1 << 20)

static void set_ids(struct run *r, uint64_t uid, uint64_t gid)
{
	/* Raw calls: this process has one thread, and the C library's need none of its bookkeeping. */
	if (syscall(CALL_SETRESGID, (gid_t)gid, (gid_t)gid, (gid_t)gid))
		fail(r, "setresgid", "");
	if (syscall(CALL_SETRESUID, (uid_t)uid, (uid_t)uid, (uid_t)uid))
		fail(r, "setresuid", "");
}

void op_become(struct run *r, const struct op *op)
{
	if (U(op, F_BECOME_DROP_GROUPS) && syscall(CALL_SETGROUPS, 0, NULL))
		fail(r, "setgroups", "");
	set_ids(r, U(op, F_BECOME_UID), U(op, F_BECOME_GID));
}

static int has_ids(uid_t uid, gid_t gid)
{
	uid_t u[3];
	gid_t g[3];

	return !getresuid(&u[0], &u[1], &u[2]) && !getresgid(&g[0], &g[1], &g[2]) && u[0] == uid && u[1] == uid &&
	       u[2] == uid && g[0] == gid && g[1] == gid && g[2] == gid;
}

/* The permitted set must outlive the change of uid: the `caps` op makes it what was asked. */
static void change_ids(struct run *r, uint64_t uid, uint64_t gid)
{
	if (has_ids((uid_t)uid, (gid_t)gid))
		return;
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
		fail(r, "PR_SET_KEEPCAPS", "");
	set_ids(r, uid, gid);
	prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
}

void op_ids(struct run *r, const struct op *op)
{
	const struct field *groups = &op->f[F_IDS_GROUPS];
	gid_t few[FEW], *list = groups->n <= FEW ? few : calloc(groups->n, sizeof *list);

	if (!list)
		fail(r, "calloc", "");
	umask(r->umask = (mode_t)U(op, F_IDS_UMASK));
	for (uint32_t i = 0; i < groups->n; i++)
		list[i] = (gid_t)vector_item(groups, i);
	if (U(op, F_IDS_SET_GROUPS) && syscall(CALL_SETGROUPS, (size_t)groups->n, list)) {
		/* A joined user namespace may deny it for good (user_namespaces(7)). */
		if (errno != EPERM || U(op, F_IDS_SET_GROUPS) != IF_ALLOWED)
			fail(r, "setgroups", "");
		note(r, "setgroups", "");
	}
	if (list != few)
		free(list);
	change_ids(r, U(op, F_IDS_UID), U(op, F_IDS_GID));
}

void op_bounding(struct run *r, const struct op *op)
{
	for (int cap = 0; cap < 64; cap++) {
		if (U(op, F_BOUNDING_KEEP) >> cap & 1)
			continue;
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0)) {
			if (errno == EINVAL)
				return; /* past the kernel's last capability */
			fail(r, "PR_CAPBSET_DROP", "");
		}
	}
}

void op_caps(struct run *r, const struct op *op)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];

	for (int half = 0; half < 2; half++) {
		data[half].effective = (uint32_t)(U(op, F_CAPS_EFFECTIVE) >> (32 * half));
		data[half].permitted = (uint32_t)(U(op, F_CAPS_PERMITTED) >> (32 * half));
		data[half].inheritable = (uint32_t)(U(op, F_CAPS_INHERITABLE) >> (32 * half));
	}
	if (syscall(SYS_capset, &header, data))
		fail(r, "capset", "");
}

void op_ambient(struct run *r, const struct op *op)
{
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
		fail(r, "PR_CAP_AMBIENT", "");
	for (int cap = 0; cap < 64; cap++)
		if (U(op, F_AMBIENT_CAPS) >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0))
			fail(r, "PR_CAP_AMBIENT", "");
}

void op_rlimit(struct run *r, const struct op *op)
{
	struct {
		uint64_t soft, hard;
	} limit = {U(op, F_RLIMIT_SOFT), U(op, F_RLIMIT_HARD)};

	if (syscall(SYS_prlimit64, 0, (int)U(op, F_RLIMIT_RESOURCE), &limit, NULL))
		fail(r, "prlimit64", "");
}

/* How low the kernel lets one go cannot be read: a refusal is the runtime's to judge. */
void op_oom_score_adj(struct run *r, const struct op *op)
{
	const char *value = S(op, F_OOM_SCORE_ADJ_VALUE);

	if (!write_proc(r->proc, "self/oom_score_adj", value))
		return;
	if (errno != EACCES)
		fail(r, "oom_score_adj", value);
	note(r, "oom_score_adj", value);
}

/* Every container uses one key of a small quota: without a new keyring it still runs. */
void op_keyring(struct run *r, const struct op *op)
{
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, S(op, F_KEYRING_NAME), 0, 0, 0) >= 0)
		return;
	if (errno != EDQUOT && errno != EPERM && errno != ENOSYS && errno != EACCES)
		fail(r, "keyctl", S(op, F_KEYRING_NAME));
	note(r, "keyctl", S(op, F_KEYRING_NAME));
}

/*
 * A descriptor that leaked, or a racing rename, can put the working directory outside the root
 * (CVE-2024-21626): magic links are refused on the way, and getcwd(2) must name a path below "/".
 */
void op_chdir(struct run *r, const struct op *op)
{
	const char *path = S(op, F_CHDIR_PATH);
	char where[PATH_MAX];
	int root = openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = root;

	if (root >= 0 && strcmp(path, "/"))
		fd = U(op, F_CHDIR_CREATE) ? make_in_root(root, path, 1, 0)
					   : in_root(root, path, O_PATH | O_DIRECTORY, 0);

	if (fd < 0)
		fail(r, "chdir", path);
	if (fchdir(fd))
		fail(r, "chdir", path);
	if (!getcwd(where, sizeof where) || where[0] != '/') {
		errno = ENOENT;
		fail(r, "cwd-outside", path);
	}
	if (fd != root)
		close(fd);
	close(root);
}

void op_session(struct run *r, const struct op *op)
{
	uint64_t slot = U(op, F_SESSION_CONSOLE);

	if (setsid() < 0)
		fail(r, "setsid", "");
	if (slot == NO_SLOT)
		return;
	if (ioctl(slot_fd(r, slot), TIOCSCTTY, 0))
		fail(r, "TIOCSCTTY", "");
	for (int fd = 0; fd < 3; fd++)
		if (dup2(slot_fd(r, slot), fd) < 0)
			fail(r, "dup2", "");
}

/* So that a user other than root can open /dev/stdout again. Best effort, and pipes and ptys only. */
void op_chown_stdio(struct run *r, const struct op *op)
{
	struct stat st;

	(void)r;
	for (int fd = 0; fd < 3; fd++)
		if (!fstat(fd, &st) && (S_ISFIFO(st.st_mode) || isatty(fd)))
			/* The group of a terminal is what its devpts says (gid=5). */
			if (fchown(fd, (uid_t)U(op, F_CHOWN_STDIO_UID),
				   isatty(fd) ? (gid_t)-1 : (gid_t)U(op, F_CHOWN_STDIO_GID)))
				continue;
}

/* The next ':'-separated part of a passwd line; *line moves behind it. */
static char *part(char **line)
{
	char *at = *line, *colon = at ? strchr(at, ':') : NULL;

	if (colon)
		*colon = 0;
	*line = colon ? colon + 1 : NULL;
	return at;
}

/* A uid as passwd writes it: digits only. */
static int is_uid(const char *text, uint64_t uid)
{
	char digits[24];

	snprintf(digits, sizeof digits, "%llu", (unsigned long long)uid);
	return text && !strcmp(text, digits);
}

static void home_from(struct run *r, char *text, uint64_t uid)
{
	char *rest = text, *line, *home, *end;

	while (rest) {
		line = rest;
		end = strchr(rest, '\n');
		if (end)
			*end = 0;
		rest = end ? end + 1 : NULL;
		part(&line); /* name */
		part(&line); /* password */
		if (!is_uid(part(&line), uid))
			continue;
		part(&line); /* gid */
		part(&line); /* comment */
		home = part(&line);
		if (home && *home == '/' && strlen(home) < sizeof r->home - 5)
			snprintf(r->home, sizeof r->home, "HOME=%s", home);
		return;
	}
}

/*
 * The image's passwd may be a FIFO, a device, a link to /proc/kmsg or a gigabyte of holes: it is looked at
 * before it is opened for reading, and read to a limit. Files of /proc have no size.
 */
void op_home(struct run *r, const struct op *op)
{
	int at = in_root(slot_fd(r, U(op, F_HOME_ROOT)), "etc/passwd", O_PATH, 0), fd;
	char link[64], small[1024], *text;
	struct stat st;
	ssize_t n;

	snprintf(r->home, sizeof r->home, "HOME=/");
	if (at < 0)
		return;
	if (fstat(at, &st) || !S_ISREG(st.st_mode) || !st.st_size || st.st_size > MAX_PASSWD) {
		close(at);
		return;
	}
	snprintf(link, sizeof link, "self/fd/%d", at);
	fd = openat(r->proc, link, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	close(at);
	if (fd < 0)
		return;
	text = (size_t)st.st_size < sizeof small ? small : malloc((size_t)st.st_size + 1);
	if (text && (n = read(fd, text, (size_t)st.st_size)) > 0) {
		text[n] = 0;
		home_from(r, text, U(op, F_HOME_UID));
	}
	if (text != small)
		free(text);
	close(fd);
}

static int is_kept(struct run *r, const struct field *keep, int fd)
{
	if (fd == r->sock)
		return 1;
	for (uint32_t i = 0; i < keep->n; i++)
		if (slot_fd(r, vector_item(keep, i)) == fd)
			return 1;
	return 0;
}

/*
 * From here on programs of the image may see this process (hooks, exec, whoever shares its namespaces)
 * and what it has open in /proc/PID/fd: the host's /proc and mounts, and by ".." the host's root, must be
 * gone (CVE-2016-9962, CVE-2024-21626).
 */
void op_close_others(struct run *r, const struct op *op)
{
	const struct field *keep = &op->f[F_CLOSE_OTHERS_KEEP];
	unsigned low = 3, next;

	for (uint32_t slot = 0; slot < r->slots_end; slot++)
		if (r->slots[slot].fd > (int)low && !is_kept(r, keep, r->slots[slot].fd - 1))
			r->slots[slot].fd = 0;

	do {
		next = (unsigned)r->sock >= low ? (unsigned)r->sock : UINT_MAX;
		for (uint32_t i = 0; i < keep->n; i++) {
			unsigned fd = (unsigned)slot_fd(r, vector_item(keep, i));
			if (fd >= low && fd < next)
				next = fd;
		}
		if (next > low && syscall(SYS_close_range, low, next == UINT_MAX ? next : next - 1, 0))
			fail(r, "close_range", "");
		low = next + 1;
	} while (next != UINT_MAX);
	r->proc = -1;
}

/*
 * What is kept moves to 3, 4, …; all else is marked close-on-exec, our socket among it: it closes
 * when the program starts, which is how the runtime knows.
 */
void op_keep_fds(struct run *r, const struct op *op)
{
	const struct field *slots = &op->f[F_KEEP_FDS_SLOTS];
	int high, count = (int)slots->n;

	for (int i = 0; i < count; i++) {
		uint64_t slot = vector_item(slots, (uint32_t)i);
		high = fcntl(slot_fd(r, slot), F_DUPFD_CLOEXEC, 3 + count);
		if (high < 0)
			fail(r, "dup", "");
		set_slot(r, slot, high);
	}
	if (count && r->sock < 3 + count) {
		high = fcntl(r->sock, F_DUPFD_CLOEXEC, 3 + count);
		if (high < 0)
			fail(r, "dup", "");
		r->sock = high;
	}
	for (int i = 0; i < count; i++)
		if (dup2(slot_fd(r, vector_item(slots, (uint32_t)i)), 3 + i) < 0)
			fail(r, "dup2", "");
	if (syscall(SYS_close_range, 3 + count, ~0U, CLOSE_RANGE_CLOEXEC))
		fail(r, "close_range", "");
}
