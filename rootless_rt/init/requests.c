/* What the program asks of the keeper: a process, in three ways. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "keeper.h"

#define REQUEST 200
/* REQUEST_FDS: connection, status, stdin, stdout, stderr */
#define READY 201     /* followed by a plan of one op, which makes a process */
#define READY_FDS 2   /* connection, status; perhaps what tells of changed mounts */
#define KILL 203      /* followed by the id of a captured run: for who has no pidfd of it */
#define CAPTURE 202   /* struct wanted, a plan of one op, which makes a process, and the plan behind it */
#define MAX_REQUEST 65536

/* Of a run whose output is taken. GIVEN: a descriptor for that number comes with it. */
enum { GIVEN_IN = 1, GIVEN_OUT = 2, GIVEN_ERR = 4, ERR_IS_OUT = 8 };
struct wanted {
	uint32_t word, id, flags, first; /* the length of the plan of one op */
	uint64_t most;
};

static unsigned char asked[MAX_REQUEST];

/* A process to be made by a plan of one op: what it has from the beginning, and what comes of it. */
struct newborn {
	int sock, mounts;	   /* as 3; what tells of changed mounts, or -1 */
	const int *stdio;	   /* or NULL: they come with its plan */
	const unsigned char *plan; /* or NULL: it comes on `sock` */
	size_t size;
	pid_t pid;
	int pidfd;
	const char *failed; /* which map could not be written */
	int release;	    /* a byte there lets it go on: our end of `sock`, or -1 for a pipe to be made */
};

/* How many descriptors come with a request, at least and at most; -1: it is none. */
static int fds_of(const struct request *q, int *most)
{
	struct wanted w;
	int count = -1;

	*most = -1;
	if (q->word == REQUEST && q->size == sizeof q->word)
		*most = count = REQUEST_FDS;
	if (q->word == READY)
		*most = (count = READY_FDS) + 1;
	if (q->word == KILL && q->size == 2 * sizeof q->word)
		*most = count = 0;
	if (q->word == CAPTURE && q->size >= sizeof w) {
		memcpy(&w, asked, sizeof w);
		if (w.first <= q->size - sizeof w && w.flags <= (GIVEN_IN | GIVEN_OUT | GIVEN_ERR | ERR_IS_OUT))
			*most = count = !!(w.flags & GIVEN_IN) + !!(w.flags & GIVEN_OUT) + !!(w.flags & GIVEN_ERR);
	}
	return count;
}

/* Whoever waits for a run is told, if there is any place for it. */
static void refuse_run(struct run *r, uint32_t id, int problem)
{
	int index = free_place();
	struct capture *c = index < 0 ? NULL : capture_refused(id, problem);

	if (!c)
		return;
	runs[index] = (struct kept){.status = -1, .capture = c};
	tell_capture(r, &runs[index]);
}

/* Of the others the connection is closed. */
static void refuse(struct run *r, const struct request *q, int problem)
{
	struct wanted w;

	if (q->word != CAPTURE || q->size < sizeof w)
		return;
	memcpy(&w, asked, sizeof w);
	refuse_run(r, w.id, problem);
}

/* 0 with a request in `asked`; 1 for what is none; -1 when the program has closed its end. */
int take_request(struct run *r, struct request *q)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * REQUEST_FDS)];
		struct cmsghdr align;
	} control;
	int most;
	struct iovec iov = {asked, sizeof asked};
	struct msghdr msg = {
	    .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	ssize_t n = recvmsg(r->sock, &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c;

	if (n <= 0)
		return n < 0 && errno == EINTR ? 1 : -1;
	*q = (struct request){.size = (size_t)n};
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		q->count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(q->fds, CMSG_DATA(c), q->count * sizeof(int));
	}
	if (q->size >= sizeof q->word)
		memcpy(&q->word, asked, sizeof q->word);
	if (!(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && (int)q->count >= fds_of(q, &most) && (int)q->count <= most)
		return 0;
	for (size_t i = 0; i < q->count; i++)
		close(q->fds[i]);
	refuse(r, q, msg.msg_flags & MSG_CTRUNC ? EMFILE : EBADMSG);
	return 1;
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
	give_files_back(r);
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
		runs[index] = (struct kept){.starter = pid, .status = fds[1]};
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
static void become_new(struct run *r, const struct newborn *n, int ready)
{
	int from[4] = {n->sock, r->proc}, high[4], count = 2, at = 3;
	char go;

	if (ready >= 0)
		from[count++] = ready, at = 5;
	if (n->mounts >= 0)
		from[count++] = n->mounts;

	r->sock = n->sock;
	r->index = 0;
	for (int i = 0; n->stdio && i < 3; i++)
		if (n->stdio[i] != i && dup2(n->stdio[i], i) < 0)
			fail(r, "dup2", "");
	for (int i = 0; i < count; i++)
		high[i] = (int)syscall(SYS_fcntl, from[i], F_DUPFD_CLOEXEC, 64);
	for (int i = 0; i < count; i++)
		if (high[i] < 0 || dup3(high[i], 3 + i, O_CLOEXEC) < 0)
			fail(r, "dup", "");
	r->sock = 3;
	/* Until its ids are mapped and the program has been told of it; the end of the pipe is the keeper's. */
	if (syscall(SYS_close_range, 3 + count, ~0U, 0) || read(at, &go, 1) != 1)
		_exit(1);
	if (at != 3)
		close(at);
	unblock_signals();
	clear_run(r, 3);
	give_files_back(r);
	r->proc = 4;
	r->mounts = n->mounts >= 0 ? 6 : -1;
	r->index = 1; /* the op that has made it is performed */
	if (n->plan) {
		adopt_plan(r, n->plan, n->size);
	} else {
		await_runtime(r);
		take_plan(r, 0);
		take_stdio(r);
	}
	r->index--;
}

/* Whether this is the process that is to perform the plan; else `n` says what has become of it. */
static int make(struct run *r, const unsigned char *first, size_t size, struct newborn *n)
{
	int ready[2] = {-1, -1};
	struct plan plan;
	struct op op = {0};
	long pid = -1;

	n->pid = n->pidfd = -1;
	errno = EBADMSG;
	if (!plan_open(&plan, first, size) && plan.count == 1)
		plan_next(&plan, &op);
	/* Both begin with the flags. */
	if ((op.code == OP_CLONE || op.code == OP_CLONE_MAPPED) && (n->release >= 0 || !pipe2(ready, O_CLOEXEC)))
		pid = new_child(r, U(&op, F_CLONE_FLAGS), &n->pidfd);
	if (!pid) {
		become_new(r, n, ready[0]);
		return 1;
	}
	if (pid > 0 && op.code == OP_CLONE_MAPPED)
		n->failed = put_maps(r, pid, &op);
	n->pid = (pid_t)pid;
	int problem = errno;
	if (ready[0] >= 0) {
		close(ready[0]);
		n->release = ready[1];
	}
	errno = problem;
	return 0;
}

/* What has been made may go on, or never can. */
static void release(const struct newborn *n)
{
	if (n->pid > 0 && (n->failed || write(n->release, "", 1) != 1))
		kill(n->pid, SIGKILL);
	if (n->pidfd >= 0)
		close(n->pidfd);
}

static void tell_failure(struct run *r, const struct newborn *n, int sock)
{
	tell(r, sock, MSG_ERROR, 0, n->failed ? "write" : "clone3", n->failed ? n->failed : "", -1);
}

/*
 * A process in namespaces of its own, which waits for the rest of its plan: what is said on the connection
 * afterwards. So it can be there before anybody knows what it is for. Whether this is that process.
 */
static int make_ready(struct run *r, const struct request *q)
{
	struct newborn n = {.sock = q->fds[0], .mounts = q->count > READY_FDS ? q->fds[READY_FDS] : -1};
	int index = free_place();

	n.pid = n.pidfd = n.release = -1;
	errno = EAGAIN;
	if (index >= 0 && make(r, asked + sizeof q->word, q->size - sizeof q->word, &n))
		return 1;
	if (n.pid < 0 || n.failed)
		tell_failure(r, &n, q->fds[0]);
	else
		tell(r, q->fds[0], MSG_PID, (int)n.pid, "", "", n.pidfd);
	release(&n);
	if (n.release >= 0)
		close(n.release);
	if (n.pid > 0)
		runs[index] = (struct kept){.pid = n.pid, .status = q->fds[1]};
	else
		close(q->fds[1]);
	if (q->count > READY_FDS)
		close(q->fds[READY_FDS]);
	close(q->fds[0]);
	return 0;
}

/* The run is kept; of a process that could not be made it tells why, and ends at once. */
static void begin_captured(struct run *r, int index, struct capture *c, struct newborn *n)
{
	static const int64_t failed[TOLD] = {1 << 8};

	runs[index] = (struct kept){.pid = n->pid > 0 ? n->pid : 0, .status = -1, .capture = c};
	if (n->pid < 0 || n->failed)
		tell_failure(r, n, n->sock);
	capture_begin(index, runs[index].pid, n->pidfd);
	n->pidfd = -1; /* it has that now */
	release(n);
	if (n->pid < 0)
		capture_end(c, failed);
	tell_capture(r, &runs[index]);
}

/* A run from its beginning to its end, see captures.c. Whether this is its process. */
static int make_captured(struct run *r, const struct request *q)
{
	int index = free_place(), theirs[3] = {-1, -1, -1}, stdio[3] = {0, -1, -1}, given = 0;
	const unsigned char *first = asked + sizeof(struct wanted);
	struct newborn n = {.mounts = -1, .stdio = stdio};
	struct capture *c = NULL;
	struct wanted w;

	memcpy(&w, asked, sizeof w);
	errno = EAGAIN;
	if (index >= 0)
		c = capture_open(w.id, w.most, !(w.flags & GIVEN_OUT), !(w.flags & (GIVEN_ERR | ERR_IS_OUT)), theirs);
	if (c) {
		for (int i = 0; i < 3; i++)
			stdio[i] = w.flags >> i & 1 ? q->fds[given++] : i ? theirs[i - 1] : 0;
		if (w.flags & ERR_IS_OUT)
			stdio[2] = stdio[1];
		n.sock = theirs[2];
		n.release = capture_reports(c);
		n.plan = first + w.first;
		n.size = q->size - sizeof w - w.first;
		if (make(r, first, w.first, &n))
			return 1;
		begin_captured(r, index, c, &n);
	} else
		refuse_run(r, w.id, errno);
	for (int i = 0; i < 3; i++)
		if (theirs[i] >= 0)
			close(theirs[i]);
	for (size_t i = 0; i < q->count; i++)
		close(q->fds[i]);
	return 0;
}

/* Whether this is a process that is to perform a plan. */
int perform_request(struct run *r, const int inner[2], const struct request *q)
{
	uint32_t id;

	switch (q->word) {
	case READY: return make_ready(r, q);
	case CAPTURE: return make_captured(r, q);
	case KILL:
		memcpy(&id, asked + sizeof q->word, sizeof id);
		kill_captured(id);
		return 0;
	default: return start(r, inner, q->fds);
	}
}
