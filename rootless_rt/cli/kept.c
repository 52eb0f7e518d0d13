/* `rt run` of a kept plan, in the order of cli/cmd_run.py and container/create.py; then the foreground, as supervise.py. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kept.h"

/* init/launch.py and plan/ops.py. */
enum { MSG_GONE = 0, MSG_PID = 1, MSG_SYNC = 2, MSG_ERROR = 3, MSG_GO = 100 };
enum { SYNC_MAPS = 1, SYNC_CREATED = 3 };
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

static void put_away(int *fd)
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

/* create.py, take_back and end_process. */
static void take_back(struct made *made, const char *id)
{
	struct pollfd end = {.fd = made->pidfd, .events = POLLIN};

	put_away(&made->connection);
	if (made->pidfd >= 0)
		send_signal(made->pidfd, SIGKILL);
	if (made->starter) {
		kill(made->starter, SIGKILL);
		wait_status(made->starter);
	}
	if (made->pid && (made->pidfd < 0 || poll(&end, 1, END_MS) == 1))
		wait_status(made->pid);
	put_away(&made->pidfd);
	remove_container(&made->box, id);
	put_away(&made->box.directory);
	put_away(&made->box.root);
}

/* launch.py, go_on. That rt-init has gone is read next. */
static void go_on(const struct made *made)
{
	const int32_t go[2] = {MSG_GO, made->pid};

	if (send(made->connection, go, sizeof go, MSG_NOSIGNAL) < 0)
		return;
}

/* Waits for rt-init's next message, and receives it: 1, 0 when that fails, or minus a signal that ends all this. */
static int receive(const struct made *made, struct message *message, int *fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec part = {message, sizeof *message};
	struct msghdr all = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	struct pollfd both[] = {{.fd = made->connection, .events = POLLIN}, {.fd = made->signals, .events = POLLIN}};
	struct signalfd_siginfo info;

	*fd = -1;
	if (poll(both, 2, -1) < 0)
		return 0;
	/* Once rt-init has something to say, the program may run: the signal is then its own (supervise.py, until). */
	if (!both[0].revents)
		return read(made->signals, &info, sizeof info) == sizeof info ? -(int)info.ssi_signo : 0;
	ssize_t got = recvmsg(made->connection, &all, MSG_CMSG_CLOEXEC);
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

/* create.py, _at_sync at SYNC_MAPS: what follows "go on" is done beside rt-init's work. */
static int map_and_save(const struct kept *kept, struct made *made, const char *id)
{
	if (!identify(made->pid, made->started, sizeof made->started) || !write_maps(kept, made->pid))
		return 0;
	go_on(made);
	return write_state(kept, made, id, "creating", "state.json") && write_state(kept, made, id, "created", "staged");
}

/* create.py, until_created. Returns as `receive`. */
static int until_created(const struct kept *kept, struct made *made, const char *id)
{
	struct message message;
	int waiting = 0, fd, got;

	for (;;) {
		if ((got = receive(made, &message, &fd)) <= 0)
			return got;
		if (message.type == MSG_PID && fd >= 0) {
			made->pid = message.value;
			made->pidfd = fd;
			wait_status(made->starter);
			made->starter = 0;
		} else if (message.type == MSG_SYNC) {
			waiting = message.value;
		} else {
			put_away(&fd);
			return 0; /* a note, a report: Python hears the same, and explains it */
		}
		if (!waiting || !made->pid)
			continue;
		if (waiting == SYNC_CREATED)
			return !renameat(made->box.directory, "staged", made->box.directory, "state.json");
		if (waiting != SYNC_MAPS || !map_and_save(kept, made, id))
			return 0;
		waiting = 0;
	}
}

/* create.py, start_now: the connection closes when the program starts. */
static int until_started(const struct made *made)
{
	struct message message;
	int fd, got;

	go_on(made);
	if ((got = receive(made, &message, &fd)) <= 0)
		return got;
	put_away(&fd);
	return message.type == MSG_GONE;
}

/* create.py, _make. Returns as `receive`. */
static int make(const struct kept *kept, struct made *made, const struct call *call)
{
	const struct text *config = &kept->texts[P_CONFIG];
	int got;

	if (!make_container(call, &made->box))
		return 0;
	if (!start_init(kept, made) || !identify(getpid(), made->maker_started, sizeof made->maker_started) ||
	    !read_boot_id(made->boot, sizeof made->boot) ||
	    !write_file(&made->box, "config.json", config->at, config->length) ||
	    !write_state(kept, made, call->id, "creating", "state.json") || !send_plan(kept, made, call->id))
		return 0;
	if ((got = until_created(kept, made, call->id)) <= 0)
		return got;
	return until_started(made);
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

/* supervise.py, supervise, without a terminal. */
static int supervise(const struct made *made)
{
	struct pollfd both[] = {{.fd = made->pidfd, .events = POLLIN}, {.fd = made->signals, .events = POLLIN}};
	struct signalfd_siginfo info;
	int status = -1;

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

static sigset_t forwarded(void)
{
	sigset_t set;

	sigfillset(&set);
	for (size_t i = 0; i < sizeof NOT_CAUGHT / sizeof *NOT_CAUGHT; i++)
		sigdelset(&set, NOT_CAUGHT[i]);
	return set;
}

/* cmd_run.py, _remove: somebody may have deleted it already. */
static int forget(struct made *made, const char *id)
{
	return !relock_container(&made->box, id) || remove_container(&made->box, id);
}

/* What Python is left with, when it does not come to it here. */
struct before {
	struct sigaction pipe, child;
	sigset_t mask;
	mode_t umask;
};

static void prepare(struct made *made, struct before *before)
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

static void give_back(struct made *made, const struct before *before)
{
	put_away(&made->signals);
	sigprocmask(SIG_SETMASK, &before->mask, NULL);
	sigaction(SIGPIPE, &before->pipe, NULL);
	sigaction(SIGCHLD, &before->child, NULL);
	umask(before->umask);
}

/* cmd_run.py takes what a service manager passes, and closes all else that the caller has leaked. */
static int is_alone_with_us(void)
{
	const char *manager = getenv("NOTIFY_SOCKET");

	return !(manager && *manager) && !getenv("LISTEN_FDS") && !syscall(SYS_close_range, 3, ~0U, 0);
}

void run_kept(const struct call *call)
{
	struct made made = {.box = {-1, -1, {{0}, {{0}}}}, .signals = -1, .connection = -1, .pidfd = -1};
	const sigset_t all = forwarded();
	struct before before;
	struct kept kept;

	if (call->other || !find_kept(call, &kept) || !still_holds(&kept, call->id) || !is_alone_with_us())
		return;
	prepare(&made, &before);
	int got = made.signals < 0 ? 0 : make(&kept, &made, call);
	if (got <= 0) {
		if (made.box.directory >= 0)
			take_back(&made, call->id);
		if (got < 0)
			_exit(128 - got);
		give_back(&made, &before);
		return;
	}
	put_away(&made.connection);
	flock(made.box.directory, LOCK_UN);
	/* From here on the container is like any other: others may signal, stop and delete it. */
	if (signalfd(made.signals, &all, SFD_CLOEXEC) < 0)
		_exit(1);
	int code = supervise(&made);
	if (!forget(&made, call->id)) {
		dprintf(2, "rt: cannot remove the container's directory\nhint: rt delete --force %s\n", call->id);
		code = 1;
	}
	_exit(code);
}
