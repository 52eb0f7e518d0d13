/*
 * A process between a program that runs many containers and these: it starts them, waits for them, and when
 * the program ends, or closes the connection, it ends them and removes their cgroups. However the program has
 * ended: no signal handler and no parent-death signal of a thread is needed. The program's own children, and
 * what it does with SIGCHLD, do not matter.
 *
 * It is a copy of itself that performs a plan: to fork a small static program is faster than to execute one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rt.h"

#define MAX_RUNS 4096
#define REQUEST 200
#define REQUEST_FDS 5 /* connection, status, stdin, stdout, stderr */
#define READY 201     /* followed by a plan of one op, which makes a process */
#define READY_FDS 2   /* connection, status; perhaps what tells of changed mounts */
#define MAX_REQUEST 65536
#define REMOVAL_STEPS 200
#define DEEPEST 32

struct kept {
	pid_t starter, pid; /* 0: has ended, or is not known yet */
	int status;	    /* where its end is told; -1 in a free place */
};

/* What the starter of run `index` tells: its container's process. */
struct born {
	int32_t index, pid;
};

static struct kept runs[MAX_RUNS];
static int places; /* those behind have never been used */

/* What the program asks for: its length and its descriptors. */
struct request {
	size_t size;
	size_t count;
	int ready; /* whether it is READY */
	int fds[REQUEST_FDS + 1]; /* CMSG_SPACE(3) rounds up: one more may come */
};

static unsigned char asked[MAX_REQUEST];

/* From the starter to the keeper, before it ends: so none is ever unknown to both. */
void tell_keeper(struct run *r, pid_t pid)
{
	struct born born = {r->kept, pid};
	ssize_t n;

	if (r->keeper < 0)
		return;
	do
		n = send(r->keeper, &born, sizeof born, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n != sizeof born) {
		kill(pid, SIGKILL);
		fail(r, "keeper", "");
	}
	close(r->keeper);
	r->keeper = -1;
}

static void finish(struct kept *k)
{
	close(k->status);
	*k = (struct kept){0, 0, -1};
}

static int64_t microseconds(const struct timeval *t)
{
	return (int64_t)t->tv_sec * 1000000 + t->tv_usec;
}

/* rootless_rt/api/keeper.py reads the same: the wait status, then the fields of getrusage(2). */
static void tell_end(const struct kept *k, int status, const struct rusage *u)
{
	int64_t told[17] = {status,	    microseconds(&u->ru_utime), microseconds(&u->ru_stime),
			    u->ru_maxrss,   u->ru_ixrss,		u->ru_idrss,
			    u->ru_isrss,    u->ru_minflt,		u->ru_majflt,
			    u->ru_nswap,    u->ru_inblock,		u->ru_oublock,
			    u->ru_msgsnd,   u->ru_msgrcv,		u->ru_nsignals,
			    u->ru_nvcsw,    u->ru_nivcsw};

	/* Less than PIPE_BUF, into an empty pipe; who reads no more does not matter. */
	if (write(k->status, told, sizeof told) < 0)
		return;
}

static int reaped(pid_t *pid, int *status, struct rusage *usage)
{
	if (!*pid || wait4(*pid, status, WNOHANG, usage) != *pid)
		return 0;
	*pid = 0;
	return 1;
}

static void take_born(int inner)
{
	struct born born;

	while (recv(inner, &born, sizeof born, MSG_DONTWAIT) == sizeof born)
		if (born.index >= 0 && born.index < places && runs[born.index].status >= 0)
			runs[born.index].pid = born.pid;
}

static void reap(int inner)
{
	struct rusage usage;
	int status;

	for (int i = 0; i < places; i++) {
		struct kept *k = &runs[i];
		if (k->status < 0)
			continue;
		if (reaped(&k->starter, &status, &usage)) {
			take_born(inner); /* it has told before it ended */
			if (!k->pid)
				finish(k);
		}
		if (k->status >= 0 && reaped(&k->pid, &status, &usage)) {
			tell_end(k, status, &usage);
			/* Its starter has done all that it had to, but is still to be waited for. */
			if (k->starter)
				while (waitpid(k->starter, NULL, 0) < 0 && errno == EINTR)
					;
			finish(k);
		}
	}
}

/* 0 with a request in `asked`; 1 for what is none; -1 when the program has closed its end. */
static int take_request(int sock, struct request *q)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * REQUEST_FDS)];
		struct cmsghdr align;
	} control;
	uint32_t word = 0;
	struct iovec iov = {asked, sizeof asked};
	struct msghdr msg = {
	    .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c;

	if (n <= 0)
		return n < 0 && errno == EINTR ? 1 : -1;
	q->size = (size_t)n;
	q->count = 0;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		q->count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(q->fds, CMSG_DATA(c), q->count * sizeof(int));
	}
	if (q->size >= sizeof word)
		memcpy(&word, asked, sizeof word);
	if (!(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) &&
	    ((word == REQUEST && q->size == sizeof word && q->count == REQUEST_FDS) ||
	     (word == READY && (q->count == READY_FDS || q->count == READY_FDS + 1)))) {
		q->ready = word == READY;
		return 0;
	}
	for (size_t i = 0; i < q->count; i++)
		close(q->fds[i]);
	return 1;
}

static int free_place(void)
{
	for (int i = 0; i < places; i++)
		if (runs[i].status < 0)
			return i;
	if (places == MAX_RUNS)
		return -1;
	runs[places].status = -1;
	return places++;
}

/* In the copy: only what is of this run, under the numbers that a program started by itself has. */
static void become_starter(struct run *r, int index, int inner, const int fds[REQUEST_FDS])
{
	int high = fcntl(inner, F_DUPFD_CLOEXEC, 64), sock = fcntl(fds[0], F_DUPFD_CLOEXEC, 64);

	for (int i = 0; i < 3; i++)
		if (dup2(fds[2 + i], i) < 0)
			_exit(1);
	if (high < 0 || sock < 0 || dup3(sock, 3, O_CLOEXEC) < 0 || dup3(high, 4, O_CLOEXEC) < 0 ||
	    syscall(SYS_close_range, 5, ~0U, 0))
		_exit(1);
	unblock_signals();
	clear_run(r, 3);
	r->keeper = 4;
	r->kept = index;
	take_plan(r, 0);
	r->proc = open_proc();
	if (r->proc < 0)
		fail(r, "proc", "/proc");
	r->index--; /* its first op is the next to be performed */
}

/* Whether this is the copy that is to perform a plan. */
static int start(struct run *r, const int inner[2], const int fds[REQUEST_FDS])
{
	int index = free_place();
	pid_t pid = index < 0 ? -1 : fork();

	if (!pid) {
		become_starter(r, index, inner[1], fds);
		return 1;
	}
	for (int i = 0; i < REQUEST_FDS; i++)
		if (pid < 0 || i != 1)
			close(fds[i]);
	if (pid > 0)
		runs[index] = (struct kept){pid, 0, fds[1]};
	return 0;
}

/* To the runtime, on the connection of one run: about its first op. */
static void tell(struct run *r, int sock, int type, int value, const char *call, const char *text, int fd)
{
	int own = r->sock, err = type == MSG_ERROR ? errno : 0;
	uint32_t index = r->index;

	r->sock = sock;
	r->index = 0;
	send_message(r, type, value, err, call, text, fd);
	r->sock = own;
	r->index = index;
}

/* The last three descriptors that came with a plan. */
static void take_stdio(struct run *r)
{
	uint64_t count = 0;

	while (fills_slot(r, count))
		count++;
	for (uint64_t i = 0; i < 3; i++) {
		int fd = count < 3 ? -1 : slot_fd(r, count - 3 + i);
		if (fd < 0 || dup2(fd, (int)i) < 0)
			fail(r, "dup2", "");
		close(fd);
		set_slot(r, count - 3 + i, -1);
	}
}

/* In the new process: nothing of the keeper's but /proc and, for now, its null device as stdio. */
static void become_ready(struct run *r, const int from[4])
{
	int high[4], count = from[3] >= 0 ? 4 : 3;
	char go;

	for (int i = 0; i < count; i++)
		high[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 64);
	for (int i = 0; i < count; i++)
		if (high[i] < 0 || dup3(high[i], 3 + i, O_CLOEXEC) < 0)
			_exit(1);
	/* Until its ids are mapped and the program has been told of it; the end of the pipe is the keeper's. */
	if (syscall(SYS_close_range, 3 + count, ~0U, 0) || read(5, &go, 1) != 1)
		_exit(1);
	close(5);
	unblock_signals();
	clear_run(r, 3);
	r->proc = 4;
	r->mounts = count == 4 ? 6 : -1;
	r->index = 1; /* the op that has made it is performed */
	await_runtime(r);
	take_plan(r, 0);
	take_stdio(r);
	r->index--;
}

/*
 * A process in namespaces of its own, which waits for the rest of its plan: what is said on the connection
 * afterwards. So it can be there before anybody knows what it is for. Whether this is that process.
 */
static int make_ready(struct run *r, const struct request *q)
{
	int index = -1, pidfd = -1, ready[2] = {-1, -1};
	const char *failed = NULL;
	struct plan plan;
	struct op op = {0};
	long pid = -1;

	if (!plan_open(&plan, asked + sizeof(uint32_t), q->size - sizeof(uint32_t)) && plan.count == 1)
		plan_next(&plan, &op);
	if (op.code == OP_CLONE || op.code == OP_CLONE_MAPPED) {
		index = free_place();
		errno = EAGAIN;
		/* Both begin with the flags. */
		if (index >= 0 && !pipe2(ready, O_CLOEXEC))
			pid = new_child(r, U(&op, F_CLONE_FLAGS), &pidfd);
		if (!pid) {
			become_ready(r, (const int[4]){q->fds[0], r->proc, ready[0],
						       q->count > READY_FDS ? q->fds[READY_FDS] : -1});
			return 1;
		}
		if (pid > 0 && op.code == OP_CLONE_MAPPED)
			failed = put_maps(r, pid, &op);
		if (pid < 0 || failed)
			tell(r, q->fds[0], MSG_ERROR, 0, failed ? "write" : "clone3", failed ? failed : "", -1);
		else
			tell(r, q->fds[0], MSG_PID, (int)pid, "", "", pidfd);
		if (pid > 0 && (failed || write(ready[1], "", 1) != 1))
			kill((pid_t)pid, SIGKILL);
	}
	for (int i = 0; i < 2; i++)
		if (ready[i] >= 0)
			close(ready[i]);
	if (pid > 0)
		runs[index] = (struct kept){0, (pid_t)pid, q->fds[1]};
	else
		close(q->fds[1]);
	if (pidfd >= 0)
		close(pidfd);
	if (q->count > READY_FDS)
		close(q->fds[READY_FDS]);
	close(q->fds[0]);
	return 0;
}

/* Every child there is: a starter may have been killed before it could tell of one. */
static void kill_children(struct run *r)
{
	char path[64], text[4096], *at, *end;
	ssize_t n;
	int fd;

	for (int i = 0; i < places; i++) {
		if (runs[i].starter)
			kill(runs[i].starter, SIGKILL);
		if (runs[i].pid)
			kill(runs[i].pid, SIGKILL);
	}
	snprintf(path, sizeof path, "self/task/%d/children", (int)getpid());
	fd = openat(r->proc, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return; /* CONFIG_PROC_CHILDREN */
	n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	for (at = text; *at; at = end) {
		long pid = strtol(at, &end, 10);
		if (end == at || *end != ' ') /* the last one may be cut */
			break;
		if (pid > 1)
			kill((pid_t)pid, SIGKILL);
		end++;
	}
}

static void pause_for(long milliseconds)
{
	struct timespec t = {0, milliseconds * 1000000};

	nanosleep(&t, NULL);
}

/* Directories only, as in a cgroup file system; rmdir(2) takes those that hold nothing but its files. */
static void remove_below(int dir, int depth)
{
	DIR *list = fdopendir(dir);
	struct dirent *entry;

	if (!list) {
		close(dir);
		return;
	}
	while (depth < DEEPEST && (entry = readdir(list))) {
		int fd;
		if (entry->d_type != DT_DIR || !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		fd = openat(dirfd(list), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0)
			remove_below(fd, depth + 1);
		unlinkat(dirfd(list), entry->d_name, AT_REMOVEDIR);
	}
	closedir(list);
}

/* The kernel may take a moment to let go of the dead. */
static void remove_tree(const char *path)
{
	for (int step = 0; step < REMOVAL_STEPS; step++) {
		int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return;
		remove_below(fd, 0);
		if (!rmdir(path) || errno != EBUSY)
			return;
		pause_for(5);
	}
}

static _Noreturn void end_all(struct run *r, const struct op *op, int inner)
{
	char **dirs = list_strings(&op->f[F_KEEP_DIRS], NULL);
	struct rusage usage;
	int status;
	pid_t pid;

	do {
		take_born(inner);
		kill_children(r);
		pid = wait4(-1, &status, 0, &usage);
		for (int i = 0; pid > 0 && i < places; i++) {
			if (runs[i].status >= 0 && runs[i].pid == pid) {
				tell_end(&runs[i], status, &usage);
				runs[i].pid = 0;
			} else if (runs[i].starter == pid)
				runs[i].starter = 0;
		}
	} while (pid > 0 || errno == EINTR);
	for (char **dir = dirs; dir && *dir; dir++)
		remove_tree(*dir);
	_exit(0);
}

/*
 * Comes back only in a copy of this process, which has the plan of a run to perform. Of signals only SIGKILL
 * reaches it: not the keys of the terminal that the program has.
 */
void op_keep(struct run *r, const struct op *op)
{
	int caller = slot_fd(r, U(op, F_KEEP_CALLER)), inner[2], children;
	struct request q;
	sigset_t all;

	sigfillset(&all);
	if (sigprocmask(SIG_SETMASK, &all, NULL))
		fail(r, "sigprocmask", "");
	sigemptyset(&all);
	sigaddset(&all, SIGCHLD);
	children = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	if (children < 0 || socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, inner))
		fail(r, "keeper", "");
	setsid();
	if (chdir("/"))
		fail(r, "chdir", "/");
	send_message(r, MSG_SYNC, SYNC_CREATED, 0, "", "", -1);
	for (;;) {
		struct pollfd ready[4] = {{.fd = r->sock, .events = POLLIN},
					  {.fd = caller, .events = POLLIN},
					  {.fd = children, .events = POLLIN},
					  {.fd = inner[0], .events = POLLIN}};
		struct signalfd_siginfo info;
		int request = 1;

		if (poll(ready, 4, -1) < 0)
			continue;
		if (ready[3].revents)
			take_born(inner[0]);
		while (read(children, &info, sizeof info) == sizeof info)
			;
		reap(inner[0]); /* also for what has ended before it was told of */
		if (ready[0].revents)
			request = take_request(r->sock, &q);
		if (request < 0 || ready[1].revents)
			end_all(r, op, inner[0]);
		if (!request && (q.ready ? make_ready(r, &q) : start(r, inner, q.fds)))
			return;
	}
}

/* The rest of a plan comes when the runtime knows it, on the connection that the first part came on. */
void op_more(struct run *r, const struct op *op)
{
	uint64_t first = U(op, F_MORE_FIRST);

	r->index++;
	take_plan(r, first);
	r->index--;
}

void op_stdio(struct run *r, const struct op *op)
{
	const struct field *slots = &op->f[F_STDIO_SLOTS];

	for (uint32_t i = 0; i < slots->n && i < 3; i++)
		if (dup2(slot_fd(r, vector_item(slots, i)), (int)i) < 0)
			fail(r, "dup2", "");
}
