/* The foreground of `run` and `exec`: rt-init's messages, and the signals of the caller (create.py, supervise.py). */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kept.h"

/* init/launch.py. */
enum { MSG_GONE = 0, MSG_PID = 1, MSG_SYNC = 2, MSG_NOTE = 4, MSG_GO = 100 };
#define END_MS 2000 /* create.py, _END_SECONDS */

/* signals.py, ENDING. */
static const int ENDING[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};
/* supervise.py, _NOT_CAUGHT. */
static const int NOT_CAUGHT[] = {SIGKILL, SIGSTOP, 32, 33, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS,
				 SIGPIPE, SIGURG};

struct message {
	int32_t type, op, value, err, reserved;
	char rest[24 + 4096];
};

void put_away(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int send_signal(int pidfd, int number)
{
	return (int)syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0);
}

static int wait_status(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/* launch.py, go_on. That rt-init has gone is read next. */
void go_on(const struct made *made)
{
	const int32_t go[2] = {MSG_GO, made->pid};

	if (send(made->connection, go, sizeof go, MSG_NOSIGNAL) < 0)
		return;
}

/* Receives a message of rt-init: 1, or 0 when that fails. */
static int take(const struct made *made, struct message *message, int *fd, int flags)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec part = {message, sizeof *message};
	struct msghdr all = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};

	*fd = -1;
	ssize_t got = recvmsg(made->connection, &all, flags | MSG_CMSG_CLOEXEC);
	if (got < 0 && errno != ECONNRESET)
		return 0;
	if (got <= 0) {
		message->type = MSG_GONE;
		return 1;
	}
	struct cmsghdr *head = CMSG_FIRSTHDR(&all);
	if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(head), sizeof *fd);
	return (size_t)got >= sizeof *message - sizeof message->rest;
}

/* Takes the process and its pidfd from the message that tells of it; 0 for another message, whose descriptor goes. */
static int note_process(struct made *made, const struct message *message, int *fd)
{
	if (message->type == MSG_PID && *fd >= 0) {
		made->pid = message->value;
		made->pidfd = *fd;
		return 1;
	}
	put_away(fd);
	return 0;
}

/* Waits for rt-init's next message, and receives it: 1, 0 when that fails, or minus a signal that ends all this. */
static int receive(const struct made *made, struct message *message, int *fd)
{
	struct pollfd both[] = {{.fd = made->connection, .events = POLLIN}, {.fd = made->signals, .events = POLLIN}};
	struct signalfd_siginfo info;

	*fd = -1;
	if (poll(both, 2, -1) < 0)
		return 0;
	/* Once rt-init has something to say, the program may run: the signal is then its own (supervise.py, until). */
	if (!both[0].revents)
		return read(made->signals, &info, sizeof info) == sizeof info ? -(int)info.ssi_signo : 0;
	return take(made, message, fd, 0);
}

/* create.py, end_process: of one that is not going to execute its program. */
void end_made(struct made *made)
{
	struct message message;
	int fd;

	if (made->starter) {
		kill(made->starter, SIGKILL);
		wait_status(made->starter);
	}
	/* It may have told of the new process, and nobody has listened. */
	while (made->connection >= 0 && made->pidfd < 0 && take(made, &message, &fd, MSG_DONTWAIT) > 0 &&
	       message.type != MSG_GONE)
		note_process(made, &message, &fd);
	put_away(&made->connection);
	struct pollfd end = {.fd = made->pidfd, .events = POLLIN};
	if (made->pidfd >= 0)
		send_signal(made->pidfd, SIGKILL);
	if (made->pid && (made->pidfd < 0 || poll(&end, 1, END_MS) == 1))
		wait_status(made->pid);
	put_away(&made->pidfd);
}

/* create.py, outcome: a note of an op that the plan says nothing of makes no difference. */
static int makes_no_difference(const struct kept *kept, const struct message *message)
{
	const struct text *ops = &kept->texts[P_TOLERATED];

	if (message->type != MSG_NOTE)
		return 0;
	for (size_t at = 0; at < ops->length; at += sizeof(int32_t))
		if (!memcmp(ops->at + at, &message->op, sizeof(int32_t)))
			return 0;
	return 1;
}

/* create.py, until_created: until rt-init waits at that sync point, with its process known. Returns as `receive`. */
int until_sync(const struct kept *kept, struct made *made, int marker)
{
	struct message message;
	int waiting = 0, fd, got;

	while (!waiting || !made->pid) {
		if ((got = receive(made, &message, &fd)) <= 0)
			return got;
		if (note_process(made, &message, &fd)) {
			wait_status(made->starter);
			made->starter = 0;
			continue;
		}
		if (message.type == MSG_SYNC)
			waiting = message.value;
		else if (!makes_no_difference(kept, &message))
			return 0; /* a report: Python hears the same, and explains it */
	}
	return waiting == marker;
}

/* create.py, start_now: the connection closes when the program starts. Returns as `receive`. */
int until_started(const struct kept *kept, const struct made *made)
{
	struct message message;
	int fd, got;

	go_on(made);
	do {
		if ((got = receive(made, &message, &fd)) <= 0)
			return got;
		put_away(&fd);
	} while (makes_no_difference(kept, &message));
	return message.type == MSG_GONE;
}

/* The signals that end a command, without those that the caller ignores (nohup). */
static sigset_t ending(void)
{
	struct sigaction present;
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof ENDING / sizeof *ENDING; i++)
		if (!sigaction(ENDING[i], NULL, &present) && present.sa_handler != SIG_IGN)
			sigaddset(&set, ENDING[i]);
	return set;
}

sigset_t forwarded(void)
{
	sigset_t set;

	sigfillset(&set);
	for (size_t i = 0; i < sizeof NOT_CAUGHT / sizeof *NOT_CAUGHT; i++)
		sigdelset(&set, NOT_CAUGHT[i]);
	return set;
}

void prepare(struct made *made, struct before *before)
{
	const sigset_t all = forwarded(), first = ending();

	/* main.py: what is made is the user's, whatever the mask says; and exit statuses are kept for us. */
	before->umask = umask(077);
	umask(before->umask & 077);
	sigaction(SIGCHLD, &(struct sigaction){.sa_handler = SIG_DFL}, &before->child);
	sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, &before->pipe);
	sigprocmask(SIG_BLOCK, &all, &before->mask);
	made->signals = signalfd(-1, &first, SFD_CLOEXEC);
}

void give_back(struct made *made, const struct before *before)
{
	struct sigaction present;

	put_away(&made->signals);
	/* A write beyond the limit on files has raised it here: ignored, it goes. Python meets the error, and explains it. */
	sigaction(SIGXFSZ, &(struct sigaction){.sa_handler = SIG_IGN}, &present);
	sigaction(SIGXFSZ, &present, NULL);
	sigprocmask(SIG_SETMASK, &before->mask, NULL);
	sigaction(SIGPIPE, &before->pipe, NULL);
	sigaction(SIGCHLD, &before->child, NULL);
	umask(before->umask);
}

/* common.py, close_inherited: Python takes what a service manager passes; all else that the caller has leaked goes. */
int is_alone_with_us(void)
{
	const char *manager = getenv("NOTIFY_SOCKET");

	return !(manager && *manager) && !getenv("LISTEN_FDS") && !syscall(SYS_close_range, 3, ~0U, 0);
}

/* supervise.py, _reap: the children that have ended, orphans among them; `status` once it is the container's. */
static void reap(pid_t pid, int *status)
{
	int ended;
	pid_t found;

	while ((found = waitpid(-1, &ended, WNOHANG)) > 0)
		if (found == pid)
			*status = ended;
}

/* supervise.py, supervise, without a terminal. From here on all signals are the program's. */
int supervise(const struct made *made)
{
	const sigset_t all = forwarded();
	struct pollfd both[] = {{.fd = made->pidfd, .events = POLLIN}, {.fd = made->signals, .events = POLLIN}};
	struct signalfd_siginfo info;
	int status = -1;

	if (signalfd(made->signals, &all, SFD_CLOEXEC) < 0)
		_exit(1);
	for (;;) {
		if (poll(both, 2, -1) < 0)
			continue;
		if (both[1].revents && read(made->signals, &info, sizeof info) == sizeof info) {
			if (info.ssi_signo == SIGCHLD)
				reap(made->pid, &status);
			else if (info.ssi_signo != SIGWINCH)
				send_signal(made->pidfd, (int)info.ssi_signo);
		} else if (both[0].revents) {
			if (status < 0)
				status = wait_status(made->pid);
			return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
		}
	}
}
