/* Namespaces: joining them, and making the process that will be the container's. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "rt.h"

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif

/* clone3(2)'s argument (CLONE_ARGS_SIZE_VER2), under a name of our own. */
struct clone_arguments {
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal;
	uint64_t stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

void op_join(struct run *r, const struct op *op)
{
	if (setns(slot_fd(r, U(op, F_JOIN_SLOT)), (int)U(op, F_JOIN_FLAG)))
		fail(r, "setns", S(op, F_JOIN_KIND));
	r->apart = 0; /* how mounts propagate there is not ours to say */
}

/* The root of a joined mount namespace is the container's. */
void op_here(struct run *r, const struct op *op)
{
	int fd = openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		fail(r, "open", "/");
	set_slot(r, U(op, F_HERE_SLOT), fd);
}

/*
 * Where clone3(2) is not to be had: engines' filters hide it, since they cannot look at its flags, and expect
 * clone(2) instead. There is no CLONE_INTO_CGROUP then: this process moves the new one, which waits.
 */
static long older_clone(struct run *r, const struct clone_arguments *a, int *pidfd)
{
	unsigned long flags = (unsigned long)(a->flags & ~CLONE_INTO_CGROUP) | (unsigned long)a->exit_signal;
	char number[32];
	int fd;
#if defined(__s390x__)
	long pid = syscall(SYS_clone, 0, flags, pidfd, 0, 0);
#else
	long pid = syscall(SYS_clone, flags, 0, pidfd, 0, 0);
#endif

	if (pid > 0 && a->flags & CLONE_INTO_CGROUP) {
		snprintf(number, sizeof number, "%ld", pid);
		fd = openat((int)a->cgroup, "cgroup.procs", O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write_whole(fd, number))
			fail(r, "cgroup.procs", number);
	}
	return pid;
}

/* 0 in a child of this process, else its number, or -1; *pidfd is of the new one. */
long new_child(struct run *r, uint64_t flags, int *pidfd)
{
	struct clone_arguments a = {
	    .flags = flags | CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)pidfd, .exit_signal = SIGCHLD};
	long pid = syscall(SYS_clone3, &a, sizeof a);

	return pid < 0 && errno == ENOSYS ? older_clone(r, &a, pidfd) : pid;
}

/* The same of a child of this one's parent; or it fails. */
static long new_process(struct run *r, uint64_t flags, uint64_t cgroup, int *pidfd)
{
	struct clone_arguments a = {.flags = flags | CLONE_PARENT | CLONE_PIDFD,
				    .pidfd = (uint64_t)(uintptr_t)pidfd};
	long pid;

	if (cgroup != NO_SLOT) {
		a.flags |= CLONE_INTO_CGROUP;
		a.cgroup = (uint64_t)slot_fd(r, cgroup);
	}
	pid = syscall(SYS_clone3, &a, sizeof a);
	if (pid < 0 && errno == ENOSYS)
		pid = older_clone(r, &a, pidfd);
	if (pid < 0)
		fail(r, "clone3", "");
	if (pid)
		tell_keeper(r, (pid_t)pid);
	else if (r->keeper >= 0) {
		close(r->keeper);
		r->keeper = -1;
	}
	return pid;
}

/*
 * One clone makes all namespaces at once (unshare and two forks cost twice as much). CLONE_PARENT:
 * the new process is the runtime's child, so the runtime can wait for it, and this one, which was
 * only needed because Python must not be in the container's namespaces, ends here.
 */
void op_clone(struct run *r, const struct op *op)
{
	int pidfd = -1;
	long pid = new_process(r, U(op, F_CLONE_FLAGS), U(op, F_CLONE_CGROUP), &pidfd);

	if (pid) {
		send_message(r, MSG_PID, (int)pid, 0, "", "", pidfd);
		_exit(0);
	}
}

/* The maps of a `clone_mapped`; NULL, or which file could not be written. */
const char *put_maps(struct run *r, long pid, const struct op *op)
{
	static const char *const files[] = {"setgroups", "uid_map", "gid_map"};
	const char *const texts[] = {"deny", S(op, F_CLONE_MAPPED_UIDS), S(op, F_CLONE_MAPPED_GIDS)};
	char path[64];

	for (int i = U(op, F_CLONE_MAPPED_DENY) ? 0 : 1; i < 3; i++) {
		snprintf(path, sizeof path, "%ld/%s", pid, files[i]);
		if (write_proc(r->proc, path, texts[i]))
			return files[i];
	}
	return NULL;
}

/*
 * The same, and this process writes the maps, which are its own to give: its own ids alone, or what it
 * may map as one with CAP_SETUID and CAP_SETGID in this user namespace. The new one waits for that on a
 * pipe; when this one fails, it reads the pipe's end.
 */
void op_clone_mapped(struct run *r, const struct op *op)
{
	int pidfd = -1, ready[2];
	const char *failed;
	long pid;
	char go;

	if (pipe2(ready, O_CLOEXEC))
		fail(r, "pipe", "");
	pid = new_process(r, U(op, F_CLONE_MAPPED_FLAGS), U(op, F_CLONE_MAPPED_CGROUP), &pidfd);
	if (pid) {
		failed = put_maps(r, pid, op);
		if (failed)
			fail(r, "write", failed);
		if (write(ready[1], "", 1) != 1)
			fail(r, "write", "");
		send_message(r, MSG_PID, (int)pid, 0, "", "", pidfd);
		_exit(0);
	}
	close(ready[1]);
	if (read(ready[0], &go, 1) != 1)
		_exit(1);
	close(ready[0]);
}

/*
 * A user namespace of one uid and one gid, which may be any numbers: a map of the writer's own ids takes no
 * privilege, but that setgroups(2) be denied (user_namespaces(7)).
 */
void op_nest(struct run *r, const struct op *op)
{
	char uids[64], gids[64];

	snprintf(uids, sizeof uids, "%llu %llu 1", (unsigned long long)U(op, F_NEST_UID),
		 (unsigned long long)U(op, F_NEST_OUTER_UID));
	snprintf(gids, sizeof gids, "%llu %llu 1", (unsigned long long)U(op, F_NEST_GID),
		 (unsigned long long)U(op, F_NEST_OUTER_GID));
	if (unshare(CLONE_NEWUSER))
		fail(r, "unshare", "user");
	if (write_proc(r->proc, "self/setgroups", "deny"))
		fail(r, "write", "/proc/self/setgroups");
	if (write_proc(r->proc, "self/uid_map", uids))
		fail(r, "write", "/proc/self/uid_map");
	if (write_proc(r->proc, "self/gid_map", gids))
		fail(r, "write", "/proc/self/gid_map");
}

/*
 * cgroup v1: a thread that moves itself (0) is moved at once. When somebody moves a process by its number, the
 * kernel first stops all forks and ends of processes, and waits for a grace period of RCU: ten milliseconds.
 */
void op_enter_cgroups(struct run *r, const struct op *op)
{
	const struct field *slots = &op->f[F_ENTER_CGROUPS_SLOTS];

	for (uint32_t i = 0; i < slots->n; i++) {
		uint64_t slot = vector_item(slots, i);

		if (write(slot_fd(r, slot), "0", 1) != 1)
			fail(r, "write", "tasks");
		close(slot_fd(r, slot));
		set_slot(r, slot, -1);
	}
}

/* Such as time_for_children: what unshare(2) made for those to come. */
void op_enter_own(struct run *r, const struct op *op)
{
	char path[64];
	int fd;

	snprintf(path, sizeof path, "self/ns/%s", S(op, F_ENTER_OWN_NAME));
	fd = openat(r->proc, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail(r, "open", path);
	if (setns(fd, (int)U(op, F_ENTER_OWN_FLAG)))
		fail(r, "setns", path);
	close(fd);
}

void op_loopback(struct run *r, const struct op *op)
{
	struct ifreq req = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)op;
	if (fd < 0)
		fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		fail(r, "socket", "lo");
	req.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &req))
		fail(r, "SIOCSIFFLAGS", "lo");
	close(fd);
}

void op_sysctl(struct run *r, const struct op *op)
{
	char path[512];

	if ((size_t)snprintf(path, sizeof path, "sys/%s", S(op, F_SYSCTL_PATH)) >= sizeof path) {
		errno = ENAMETOOLONG;
		fail(r, "sysctl", S(op, F_SYSCTL_PATH));
	}
	if (write_proc(r->proc, path, S(op, F_SYSCTL_VALUE)))
		fail(r, "sysctl", S(op, F_SYSCTL_PATH));
}
