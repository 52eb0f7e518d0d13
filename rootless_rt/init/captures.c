/*
 * Runs whose output the keeper takes: the program asks once, and is answered once, with all that was said. So a
 * run costs it no descriptor and no thread of its own. It gets a pidfd at once: to kill needs nobody's help.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "keeper.h"

#define CHUNK 65536
#define EVENTS 64
#define PAGE ((size_t)4096)
#define MOST ((size_t)1 << 31) /* bytes of one pipe: their number is told in 32 bits */
#define INLINE_RESULT 16384 /* bytes that go into a packet; more are sent as a file. rootless_rt/api/captured.py */
#define WHICH 2		    /* bits that say which of the three */

enum { OUT, ERR, REPORTS };
enum { MSG_BORN = 1, MSG_RESULT = 2 };
/* Flags of a result: more was said than there may be, it could not be kept, there was no process. */
enum { LONG_OUT = 1, LONG_ERR = 2, NO_MEMORY = 4, NOT_MADE = 8 };

struct bytes {
	char *at;
	size_t size, room;
};

struct capture {
	uint32_t id, flags;
	uint64_t most; /* bytes of each */
	pid_t pid;
	int pidfd; /* until the program has it; else -1 */
	int ended;
	int fds[3]; /* -1 once nothing more can come */
	struct bytes said[3];
	int64_t told[TOLD];
};

struct born {
	uint32_t type, id;
	int32_t pid;
};

struct result {
	uint32_t type, id, flags, sizes[3];
	int64_t told[TOLD];
};

static int watch = -1, blocked;

int captures_fd(void)
{
	return watch;
}

int captures_blocked(int now)
{
	int was = blocked;

	if (now)
		blocked = 0;
	return was;
}

static void close_all(const int *fds, int count)
{
	for (int i = 0; i < count; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

struct capture *capture_open(uint32_t id, uint64_t most, int takes_out, int takes_err, int theirs[3])
{
	int ends[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}}, problem;
	struct capture *c = calloc(1, sizeof *c);

	if (watch < 0)
		watch = epoll_create1(EPOLL_CLOEXEC);
	if (!c || watch < 0 || (takes_out && pipe2(ends[OUT], O_CLOEXEC)) ||
	    (takes_err && pipe2(ends[ERR], O_CLOEXEC)) ||
	    /* Whoever the process is, it may open /dev/stdout again. */
	    (takes_out && fchmod(ends[OUT][1], 0666)) || (takes_err && fchmod(ends[ERR][1], 0666)) ||
	    /* It may also read from there what we are just about to: that must not make us wait. */
	    (takes_out && fcntl(ends[OUT][0], F_SETFL, O_NONBLOCK)) ||
	    (takes_err && fcntl(ends[ERR][0], F_SETFL, O_NONBLOCK)) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends[REPORTS])) {
		problem = errno;
		close_all(ends[0], 6);
		free(c);
		errno = problem;
		return NULL;
	}
	*c = (struct capture){.id = id, .most = most, .pidfd = -1};
	for (int i = 0; i < 3; i++) {
		c->fds[i] = ends[i][0];
		theirs[i] = ends[i][1];
	}
	return c;
}

int capture_reports(const struct capture *c)
{
	return c->fds[REPORTS];
}

static void stop_taking(struct capture *c, int which)
{
	/* By name: a copy in a process that is being made would keep it watched beyond its close. */
	epoll_ctl(watch, EPOLL_CTL_DEL, c->fds[which], NULL);
	close(c->fds[which]);
	c->fds[which] = -1;
}

/* What cannot be kept whole is not kept at all, and nor is the run. */
static void give_up(struct capture *c, uint32_t flag)
{
	c->flags |= flag;
	if (!c->ended && c->pid)
		kill(c->pid, SIGKILL);
}

void capture_begin(int place, pid_t pid, int pidfd)
{
	struct capture *c = runs[place].capture;

	c->pid = pid;
	c->pidfd = pidfd;
	for (int i = 0; i < 3; i++) {
		struct epoll_event e = {.events = EPOLLIN, .data.u64 = (uint64_t)place << WHICH | (unsigned)i};

		if (c->fds[i] >= 0 && epoll_ctl(watch, EPOLL_CTL_ADD, c->fds[i], &e))
			give_up(c, NO_MEMORY);
	}
}

/* 0, or -1 without memory; what was there stays as it is then. Whole pages: most runs say little or much. */
static int make_room(struct bytes *b, size_t size)
{
	size_t room = b->room ? b->room : PAGE;
	void *at;

	while (room - b->size < size)
		room *= 2;
	if (room == b->room)
		return 0;
	if (room >= MOST)
		return -1;
	at = b->at ? mremap(b->at, b->room, room, MREMAP_MAYMOVE)
		   : mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return -1;
	b->at = at;
	b->room = room;
	return 0;
}

static void append(struct capture *c, int which, const void *data, size_t size)
{
	struct bytes *b = &c->said[which];

	if (make_room(b, size)) {
		give_up(c, NO_MEMORY);
		return;
	}
	memcpy(b->at + b->size, data, size);
	b->size += size;
}

/* Returns how many bytes there were. */
static size_t take(struct capture *c, int which)
{
	static char data[CHUNK];
	ssize_t n = read(c->fds[which], data, sizeof data);
	uint32_t size = (uint32_t)n;

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0) {
		stop_taking(c, which);
		return 0;
	}
	if (which == REPORTS) {
		append(c, which, &size, sizeof size);
	} else if ((uint64_t)size > c->most - c->said[which].size) {
		size = (uint32_t)(c->most - c->said[which].size);
		give_up(c, which == OUT ? LONG_OUT : LONG_ERR);
		stop_taking(c, which);
	}
	append(c, which, data, size);
	return (size_t)n;
}

void captures_serve(void)
{
	struct epoll_event ready[EVENTS];
	int count = epoll_wait(watch, ready, EVENTS, 0);

	for (int i = 0; i < count; i++) {
		struct capture *c = runs[ready[i].data.u64 >> WHICH].capture;
		int which = (int)(ready[i].data.u64 & ((1 << WHICH) - 1));

		if (!c || c->fds[which] < 0)
			continue;
		if (ready[i].events & EPOLLIN)
			take(c, which);
		else
			stop_taking(c, which);
	}
}

/* Nobody of it is left; should somebody else have its pipe, that is not waited for. */
void capture_end(struct capture *c, const int64_t told[TOLD])
{
	int left;

	c->ended = 1;
	memcpy(c->told, told, sizeof c->told);
	for (int i = 0; i < 3; i++) {
		/* What is there now, and no more: somebody else may write for ever. */
		if (c->fds[i] < 0 || ioctl(c->fds[i], FIONREAD, &left))
			left = 0;
		while (left > 0 && c->fds[i] >= 0) {
			size_t taken = take(c, i);
			left = taken ? left - (int)taken : 0;
		}
		if (c->fds[i] >= 0)
			stop_taking(c, i);
	}
}

/* 0, or -1 when the program has first to take something. When it has gone, all has been told. */
static int send_with(struct run *r, struct iovec *iov, size_t count, int fd)
{
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count};
	union one_fd room;

	if (fd >= 0)
		carry_fd(&msg, &room, fd);
	if (sendmsg(r->sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || errno == EPIPE || errno == ECONNRESET)
		return 0;
	blocked = 1;
	return -1;
}

/* A file in memory of all that was said, or -1. */
static int as_file(const struct capture *c)
{
	int fd = memfd_create("output", MFD_CLOEXEC);

	for (int i = 0; fd >= 0 && i < 3; i++)
		for (size_t at = 0; at < c->said[i].size;) {
			ssize_t n = write(fd, c->said[i].at + at, c->said[i].size - at);
			if (n <= 0) {
				close(fd);
				return -1;
			}
			at += (size_t)n;
		}
	return fd;
}

static int send_result(struct run *r, struct capture *c)
{
	struct result result = {.type = MSG_RESULT, .id = c->id, .flags = c->flags};
	struct iovec iov[4] = {{&result, sizeof result}};
	size_t total = 0;
	int fd = -1, told;

	for (int i = 0; i < 3; i++)
		total += c->said[i].size;
	if (total > INLINE_RESULT && (total > UINT32_MAX || (fd = as_file(c)) < 0)) {
		result.flags |= NO_MEMORY;
		total = 0;
	}
	memcpy(result.told, c->told, sizeof result.told);
	for (int i = 0; i < 3 && total; i++) {
		result.sizes[i] = (uint32_t)c->said[i].size;
		iov[1 + i] = (struct iovec){c->said[i].at, fd < 0 ? c->said[i].size : 0};
	}
	told = send_with(r, iov, 4, fd);
	if (fd >= 0)
		close(fd);
	return told;
}

int capture_tell(struct run *r, struct capture *c)
{
	struct born born = {MSG_BORN, c->id, c->pid};
	struct iovec iov = {&born, sizeof born};

	if (c->pidfd >= 0) {
		if (send_with(r, &iov, 1, c->pidfd))
			return 0;
		close(c->pidfd);
		c->pidfd = -1;
	}
	if (!c->ended || send_result(r, c))
		return 0;
	for (int i = 0; i < 3; i++)
		if (c->said[i].at)
			munmap(c->said[i].at, c->said[i].room);
	free(c);
	return 1;
}

struct capture *capture_refused(uint32_t id, int problem)
{
	struct capture *c = calloc(1, sizeof *c);

	if (c)
		*c = (struct capture){id, NOT_MADE, .pidfd = -1, .ended = 1, .fds = {-1, -1, -1}, .told = {problem}};
	return c;
}

void capture_kill(const struct capture *c, uint32_t id)
{
	if (c->id == id && !c->ended && c->pid)
		kill(c->pid, SIGKILL);
}
