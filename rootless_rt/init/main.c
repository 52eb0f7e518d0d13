/* rt-init: takes a plan from the runtime on descriptor 3 and performs its ops in order. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include "rt.h"

#define SOCKET_FD 3

static struct run state;

int fills_slot(const struct run *r, uint64_t slot)
{
	return slot < MAX_SLOTS && r->slots[slot].fd > 0;
}

int slot_fd(struct run *r, uint64_t slot)
{
	if (!fills_slot(r, slot)) {
		errno = EBADF;
		fail(r, "slot", "");
	}
	return r->slots[slot].fd - 1;
}

void set_slot(struct run *r, uint64_t slot, int fd)
{
	if (slot >= MAX_SLOTS) {
		errno = EBADF;
		fail(r, "slot", "");
	}
	r->slots[slot] = (struct slot){fd + 1, UNKNOWN};
	if (slot >= r->slots_end)
		r->slots_end = (uint32_t)slot + 1;
}

void unblock_signals(void)
{
	uint64_t none = 0;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
}

/*
 * Python, and some engines, leave signals ignored or blocked; the container starts with none so.
 * Raw calls: the C library keeps signals 32 and 33 for itself, and its posix_spawn(3) ignores them.
 */
void reset_signals(void)
{
	/* The kernel's struct sigaction, all zero: SIG_DFL. */
	static const unsigned long normal[8];

	for (int number = 1; number <= 64; number++)
		syscall(SYS_rt_sigaction, number, normal, NULL, sizeof(uint64_t));
	unblock_signals();
}

/* Engines' filters deny these two to who lacks CAP_SYS_ADMIN outside: a container can do without. */
static void set_name(struct run *r, const char *call, int result)
{
	if (!result)
		return;
	if (errno != EPERM && errno != ENOSYS)
		fail(r, call, "");
	note(r, call, "");
}

static void op_sync(struct run *r, const struct op *op)
{
	send_message(r, MSG_SYNC, (int)U(op, F_SYNC_MARKER), 0, "", "", -1);
	if (receive_go(r->sock, &r->pid))
		_exit(1); /* the runtime has gone: nothing is left half-made */
}

/* Gives the pages below this frame back: paths of earlier ops lie there, and it may wait for days. */
static void trim_stack(void)
{
	enum { PAGE = 4096, DEEPEST = 16 * PAGE, NEAR = PAGE };
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);

	/* What is below the stack's own mapping is refused, after the rest was given back. */
	madvise((void *)((here - NEAR) / PAGE * PAGE - DEEPEST), DEEPEST, MADV_DONTNEED);
}

/*
 * One that was made ahead has a copy of the host's mounts, and holds what the host has unmounted meanwhile. When
 * they change it is of no more use. It says so: whoever has told it to go on at that very moment must not take its
 * end for that of a program.
 */
void await_runtime(struct run *r)
{
	struct pollfd ready[2] = {{.fd = r->sock, .events = POLLIN}, {.fd = r->mounts, .events = POLLPRI}};

	if (r->mounts < 0)
		return;
	while (poll(ready, 2, -1) < 0 && errno == EINTR)
		;
	if (ready[0].revents)
		return;
	send_message(r, MSG_STALE, 0, 0, "", "", -1);
	_exit(1);
}

/*
 * The plan is performed up to here by `create`. From now on the container belongs to no living
 * runtime: `start` connects to the listener, and its "go on" makes its connection the place for
 * reports. A caller that connects and goes away changes nothing.
 */
static void op_wait_start(struct run *r, const struct op *op)
{
	uint64_t listener = U(op, F_WAIT_START_LISTENER);
	int32_t pid;
	int fd;

	send_message(r, MSG_SYNC, SYNC_CREATED, 0, "", "", -1);
	await_runtime(r);
	if (receive_go(r->sock, &pid))
		_exit(1);
	if (listener == NO_SLOT)
		return;
	close(r->sock);
	r->sock = -1;
	trim_stack();
	for (;;) {
		fd = accept4(slot_fd(r, listener), NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0 && errno != EINTR && errno != ECONNABORTED)
			_exit(1);
		if (fd >= 0 && !receive_go(fd, &pid))
			break;
		if (fd >= 0)
			close(fd);
	}
	r->sock = fd;
	close(slot_fd(r, listener));
	set_slot(r, listener, -1);
}

/* Those that mount nothing but through attach(), and let nobody else mount. */
static int keeps_places(unsigned code)
{
	switch (code) {
	case OP_TRACE:
	case OP_SOURCE:
	case OP_MOUNT_FS:
	case OP_NEW_FS:
	case OP_SET_ATTRS:
	case OP_MOUNT_BIND:
	case OP_REMOUNT:
	case OP_DEVICE:
	case OP_SYMLINK:
	case OP_MASK:
	case OP_MASK_TMPFS:
	case OP_READONLY:
	case OP_LABEL_MQUEUE:
	case OP_CONSOLE:
		return 1;
	}
	return 0;
}

static void perform(struct run *r, const struct op *op)
{
	if (r->own_count && !keeps_places(op->code))
		forget_all(r);
	switch (op->code) {
	case OP_DUMPABLE:
		if (prctl(PR_SET_DUMPABLE, (unsigned long)U(op, F_DUMPABLE_ON), 0, 0, 0))
			fail(r, "PR_SET_DUMPABLE", "");
		break;
	case OP_TRACE: r->trace = 1; break;
	case OP_HERE: op_here(r, op); break;
	case OP_JOIN: op_join(r, op); break;
	case OP_CLONE: op_clone(r, op); break;
	case OP_SYNC: op_sync(r, op); break;
	case OP_BECOME: op_become(r, op); break;
	case OP_NEST: op_nest(r, op); break;
	case OP_ENTER_CGROUPS: op_enter_cgroups(r, op); break;
	case OP_ENTER_OWN: op_enter_own(r, op); break;
	case OP_UNSHARE:
		if (unshare((int)U(op, F_UNSHARE_FLAGS)))
			fail(r, "unshare", "");
		break;
	case OP_HOSTNAME:
		set_name(r, "sethostname", sethostname(S(op, F_HOSTNAME_NAME), op->f[F_HOSTNAME_NAME].n));
		break;
	case OP_DOMAINNAME:
		set_name(r, "setdomainname", setdomainname(S(op, F_DOMAINNAME_NAME), op->f[F_DOMAINNAME_NAME].n));
		break;
	case OP_LOOPBACK: op_loopback(r, op); break;
	case OP_SYSCTL: op_sysctl(r, op); break;
	case OP_LABEL_MQUEUE: op_label_mqueue(r, op); break;
	case OP_MASK_TMPFS: op_mask_tmpfs(r, op); break;
	case OP_PROC_FILE: op_proc_file(r, op); break;
	case OP_PROC_WRITE: op_proc_write(r, op); break;
	case OP_OOM_SCORE_ADJ: op_oom_score_adj(r, op); break;
	case OP_PROPAGATION: op_propagation(r, op); break;
	case OP_SOURCE: op_source(r, op); break;
	case OP_IDMAP: op_idmap(r, op); break;
	case OP_ROOT: op_root(r, op); break;
	case OP_DIRECTORY: op_directory(r, op); break;
	case OP_OVERLAY: op_overlay(r, op); break;
	case OP_LAYERS: op_layers(r, op); break;
	case OP_MOUNT_FS: op_mount_fs(r, op); break;
	case OP_MOUNT_BIND: op_mount_bind(r, op); break;
	case OP_REMOUNT: op_remount(r, op); break;
	case OP_DEVICE: op_device(r, op); break;
	case OP_SYMLINK: op_symlink(r, op); break;
	case OP_MASK: op_mask(r, op); break;
	case OP_READONLY: op_readonly(r, op); break;
	case OP_ROOT_ATTRS: op_root_attrs(r, op); break;
	case OP_CONSOLE: op_console(r, op); break;
	case OP_COVER: op_cover(r, op); break;
	case OP_PIVOT: op_pivot(r, op); break;
	case OP_ROOT_PROPAGATION: op_root_propagation(r, op); break;
	case OP_CHDIR: op_chdir(r, op); break;
	case OP_RLIMIT: op_rlimit(r, op); break;
	case OP_KEYRING: op_keyring(r, op); break;
	case OP_HOOK: op_hook(r, op); break;
	case OP_NO_NEW_PRIVS:
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
			fail(r, "PR_SET_NO_NEW_PRIVS", "");
		break;
	case OP_BOUNDING: op_bounding(r, op); break;
	case OP_IDS: op_ids(r, op); break;
	case OP_CAPS: op_caps(r, op); break;
	case OP_AMBIENT: op_ambient(r, op); break;
	case OP_SESSION: op_session(r, op); break;
	case OP_CHOWN_STDIO: op_chown_stdio(r, op); break;
	case OP_HOME: op_home(r, op); break;
	case OP_FIND: op_find(r, op); break;
	case OP_WAIT_START: op_wait_start(r, op); break;
	case OP_CLOSE_OTHERS: op_close_others(r, op); break;
	case OP_KEEP_FDS: op_keep_fds(r, op); break;
	case OP_SECCOMP: op_seccomp(r, op); break;
	case OP_SECCOMP_LISTEN: op_seccomp_listen(r, op); break;
	case OP_LANDLOCK_RULES: op_landlock_rules(r, op); break;
	case OP_LANDLOCK: op_landlock(r, op); break;
	case OP_LISTEN_PID: op_listen_pid(r); break;
	case OP_EXEC: op_exec(r, op); break;
	case OP_SCHEDULER: op_scheduler(r, op); break;
	case OP_IO_PRIORITY: op_io_priority(r, op); break;
	case OP_AFFINITY: op_affinity(r, op); break;
	case OP_MEMORY_POLICY: op_memory_policy(r, op); break;
	case OP_PERSONALITY: op_personality(r, op); break;
	case OP_ATTEND: op_attend(r, op); break;
	case OP_KEEP: op_keep(r, op); break;
	case OP_MORE: op_more(r, op); break;
	case OP_CLONE_MAPPED: op_clone_mapped(r, op); break;
	case OP_STDIO: op_stdio(r, op); break;
	case OP_NEW_FS: op_new_fs(r, op); break;
	case OP_SET_ATTRS:
		set_attributes(r, slot_fd(r, U(op, F_SET_ATTRS_SLOT)), "", &op->f[F_SET_ATTRS_SET]);
		break;
	}
}

static int64_t microseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

/* Nothing has been performed yet, and the runtime is on `sock`. */
void clear_run(struct run *r, int sock)
{
	mode_t own = r->umask;

	/* The rest is zero already, and a page that is not touched costs a waiting container nothing. */
	memset(r->slots, 0, r->slots_end * sizeof *r->slots);
	memset(r, 0, offsetof(struct run, made));
	r->home[0] = 0;
	if (r->exe[0])
		r->exe[0] = 0;
	r->umask = own;
	r->sock = sock;
	r->keeper = r->proc = r->mounts = -1;
}

/* The ops of a plan come behind those that have been performed. */
void adopt_plan(struct run *r, const unsigned char *bytes, size_t size)
{
	if (plan_open(&r->plan, bytes, size)) {
		errno = EBADMSG;
		fail(r, "plan", "the plan is malformed");
	}
	r->end = r->index + r->plan.count;
}

/* Take a plan from the runtime. */
void take_plan(struct run *r, uint64_t first)
{
	struct received p;
	struct stat st;

	if (receive_plan(r, &p, first))
		_exit(1);
	if (p.fd >= 0) {
		free(p.bytes);
		if (fstat(p.fd, &st) || st.st_size <= 0 ||
		    (p.bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, p.fd, 0)) == MAP_FAILED)
			fail(r, "mmap", "the plan");
		p.size = (size_t)st.st_size;
		close(p.fd);
	}
	adopt_plan(r, p.bytes, p.size);
}

int main(void)
{
	struct run *r = &state;
	struct op op;

	clear_run(r, SOCKET_FD);
	/* Engines leak descriptors; umask would change the modes of what the plan makes. */
	if (syscall(SYS_close_range, SOCKET_FD + 1, ~0U, 0))
		fail(r, "close_range", "");
	reset_signals();
	r->umask = umask(0);
	take_plan(r, 0);
	r->proc = open_proc();
	if (r->proc < 0)
		fail(r, "proc", "/proc");
	for (; r->index < r->end; r->index++) {
		plan_next(&r->plan, &op);
		int64_t before = r->trace ? microseconds() : 0;
		perform(r, &op);
		if (before && r->trace)
			send_message(r, MSG_TRACE, (int)(microseconds() - before), 0, "", "", -1);
	}
	errno = EBADMSG;
	fail(r, "plan", "the plan ends without exec");
}
