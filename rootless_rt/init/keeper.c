/*
 * A process between a program that runs many containers and these: it starts them, waits for them, and when
 * the program ends, or closes the connection, it ends them and removes their cgroups. However the program has
 * ended: no signal handler and no parent-death signal of a thread is needed. The program's own children, and
 * what it does with SIGCHLD, do not matter.
 *
 * It is a copy of itself that performs a plan: to fork a small static program is faster than to execute one.
 */
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
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keeper.h"

static struct rlimit files; /* as this process got them, once it has more */

/* Every run takes a few descriptors: as many as there may be. */
static void take_files(void)
{
	struct rlimit more;

	if (getrlimit(RLIMIT_NOFILE, &files) || files.rlim_cur == files.rlim_max)
		return;
	more = files;
	more.rlim_cur = files.rlim_max;
	if (syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &more, NULL))
		files.rlim_max = files.rlim_cur;
}

void give_files_back(struct run *r)
{
	if (files.rlim_cur != files.rlim_max && syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &files, NULL))
		fail(r, "prlimit64", "");
}

/* What the starter of run `index` tells: its container's process. */
struct born {
	int32_t index, pid;
};

struct kept runs[MAX_RUNS];
static int places; /* those behind have never been used */

int is_used(const struct kept *k)
{
	return k->status >= 0 || k->capture;
}

void kill_captured(uint32_t id)
{
	for (int i = 0; i < places; i++)
		if (runs[i].capture)
			capture_kill(runs[i].capture, id);
}

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
	*k = (struct kept){.status = -1};
}

static int64_t microseconds(const struct timeval *t)
{
	return (int64_t)t->tv_sec * 1000000 + t->tv_usec;
}

/* rootless_rt/api/keeper.py reads the same: the wait status, then the fields of getrusage(2). */
static void tell_end(const struct kept *k, int status, const struct rusage *u)
{
	int64_t told[TOLD] = {status,	      microseconds(&u->ru_utime), microseconds(&u->ru_stime),
			      u->ru_maxrss,   u->ru_ixrss,		  u->ru_idrss,
			      u->ru_isrss,    u->ru_minflt,		  u->ru_majflt,
			      u->ru_nswap,    u->ru_inblock,		  u->ru_oublock,
			      u->ru_msgsnd,   u->ru_msgrcv,		  u->ru_nsignals,
			      u->ru_nvcsw,    u->ru_nivcsw};

	if (k->capture)
		capture_end(k->capture, told);
	/* Less than PIPE_BUF, into an empty pipe; who reads no more does not matter. */
	else if (write(k->status, told, sizeof told) < 0)
		return;
}

void tell_capture(struct run *r, struct kept *k)
{
	if (capture_tell(r, k->capture))
		*k = (struct kept){.status = -1};
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
		if (born.index >= 0 && born.index < places && is_used(&runs[born.index]))
			runs[born.index].pid = born.pid;
}

static void reap(struct run *r, int inner)
{
	struct rusage usage;
	int status;

	for (int i = 0; i < places; i++) {
		struct kept *k = &runs[i];
		if (!is_used(k))
			continue;
		if (reaped(&k->starter, &status, &usage)) {
			take_born(inner); /* it has told before it ended */
			if (!k->pid)
				finish(k);
		}
		if (is_used(k) && reaped(&k->pid, &status, &usage)) {
			tell_end(k, status, &usage);
			if (k->capture) {
				tell_capture(r, k);
				continue;
			}
			/* Its starter has done all that it had to, but is still to be waited for. */
			if (k->starter)
				while (waitpid(k->starter, NULL, 0) < 0 && errno == EINTR)
					;
			finish(k);
		}
	}
}

int free_place(void)
{
	for (int i = 0; i < places; i++)
		if (!is_used(&runs[i]))
			return i;
	if (places == MAX_RUNS)
		return -1;
	runs[places] = (struct kept){.status = -1};
	return places++;
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
			if (is_used(&runs[i]) && runs[i].pid == pid) {
				if (!runs[i].capture) /* nobody is left to be told of the others */
					tell_end(&runs[i], status, &usage);
				runs[i].pid = 0; /* the number may be somebody else's now */
			} else if (runs[i].starter == pid)
				runs[i].starter = 0;
		}
	} while (pid > 0 || errno == EINTR);
	for (char **dir = dirs; dir && *dir; dir++)
		remove_tree(*dir);
	_exit(0);
}

/* The program has taken something. */
static void tell_captures(struct run *r)
{
	for (int i = 0; i < places && !captures_blocked(0); i++)
		if (runs[i].capture)
			tell_capture(r, &runs[i]);
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
	take_files();
	setsid();
	if (chdir("/"))
		fail(r, "chdir", "/");
	send_message(r, MSG_SYNC, SYNC_CREATED, 0, "", "", -1);
	for (;;) {
		struct pollfd ready[5] = {{.fd = r->sock, .events = POLLIN},
					  {.fd = caller, .events = POLLIN},
					  {.fd = children, .events = POLLIN},
					  {.fd = inner[0], .events = POLLIN},
					  {.fd = captures_fd(), .events = POLLIN}};
		struct signalfd_siginfo info;
		int request = 1;

		if (captures_blocked(0))
			ready[0].events |= POLLOUT;
		if (poll(ready, 5, -1) < 0)
			continue;
		if (ready[3].revents)
			take_born(inner[0]);
		if (ready[4].revents)
			captures_serve();
		if (ready[2].revents)
			while (read(children, &info, sizeof info) == sizeof info)
				;
		if (ready[2].revents || ready[3].revents) /* also what has ended before it was told of */
			reap(r, inner[0]);
		if (ready[0].revents & POLLOUT && captures_blocked(1))
			tell_captures(r);
		if (ready[0].revents & ~POLLOUT)
			request = take_request(r, &q);
		if (request < 0 || ready[1].revents)
			end_all(r, op, inner[0]);
		if (!request && perform_request(r, inner, &q))
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
