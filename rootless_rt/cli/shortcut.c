/* The verbs of the short way, in the order of container/lifecycle.py and container/start.py. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kept.h"

#define MSG_GO 100 /* init/launch.py, _MSG_GO */

/* cli/output.py, write_fd. Of a reader that is gone, and of a full disk, Python tells: it meets the same again. */
static int print(const char *text, size_t length)
{
	struct pollfd room = {.fd = 1, .events = POLLOUT};

	while (length) {
		ssize_t got = write(1, text, length);
		if (got >= 0) {
			text += got;
			length -= (size_t)got;
		} else if (errno == EAGAIN) {
			poll(&room, 1, -1);
		} else if (errno != EINTR) {
			return 0;
		}
	}
	return 1;
}

/* cmd_state.py. */
static int state(struct container *box)
{
	static const char *const names[] = {NULL, "stopped", "created", "running", "paused"};
	static char text[RECORD_LIMIT + 64];
	const struct text *parts = box->record.texts;
	int pidfd, waiting;

	if (!load_container(box))
		return 0;
	enum status status = status_of(box, hold_process(&box->record, &pidfd), &waiting);
	if (status == UNKNOWN)
		return 0;
	const int pid = status == STOPPED ? 0 : (int)box->record.numbers[N_PID];
	const int length = snprintf(text, sizeof text, "%s%d%s%s%s", parts[T_HEAD].at, pid, parts[T_MIDDLE].at,
				    names[status], parts[T_TAIL].at);
	return length > 0 && (size_t)length < sizeof text && print(text, (size_t)length);
}

/* lifecycle.py, kill. */
static int kill_container(struct container *box, const struct call *call)
{
	int pidfd, waiting;

	if (!load_container(box))
		return 0;
	const uint64_t flags = box->record.numbers[N_FLAGS];
	enum status status = status_of(box, hold_process(&box->record, &pidfd), &waiting);
	if (call->all && status != UNKNOWN) {
		/* The first of a pid namespace takes all others with it; without one, only the first is known. */
		int known = call->signal == SIGKILL || !(flags & RECORD_OWN_PID) || status == STOPPED;
		if (flags & RECORD_CGROUP ? !is_alone(&box->record, status) : !known)
			return 0;
		if (status == STOPPED)
			return 1;
	}
	if (status != CREATED && status != RUNNING && !(status == PAUSED && call->signal != SIGKILL))
		return 0;
	if (call->signal == SIGKILL && flags & RECORD_CGROUP && !(flags & RECORD_OWN_PID))
		return 0;
	return !syscall(SYS_pidfd_send_signal, pidfd, call->signal, NULL, 0) || errno == ESRCH;
}

/* Whether the process has said nothing before it closed its end: its program runs. */
static int has_gone_on(int connection)
{
	char byte;
	ssize_t got;

	/* Only looked at: a report of what failed is left for Python to read. */
	while ((got = recv(connection, &byte, 1, MSG_PEEK)) < 0 && errno == EINTR)
		;
	return got == 0 || (got < 0 && errno == ECONNRESET);
}

/* start.py, start. Comes back with 1, 0, or -1: begun, and Python is to see it through. */
static int start(struct container *box, const struct call *call, int *connection)
{
	const char *manager = getenv("NOTIFY_SOCKET");
	int pidfd;

	if ((manager && *manager) || !lock_container(box, call->id) || !load_container(box))
		return 0;
	if (!(box->record.numbers[N_FLAGS] & RECORD_STARTS) || !names_no_hook(box, "\"poststart\""))
		return 0;
	enum status status = status_of(box, hold_process(&box->record, &pidfd), connection);
	if (status != CREATED || *connection < 0 || fcntl(*connection, F_SETFL, 0))
		return 0;
	const int32_t go[2] = {MSG_GO, (int32_t)box->record.numbers[N_PID]};
	if (send(*connection, go, sizeof go, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
		return 0;
	if (!has_gone_on(*connection) || (unlinkat(box->directory, "start", 0) && errno != ENOENT))
		return -1;
	return 1;
}

/* lifecycle.py, delete and forget. */
static int delete(struct container *box, const struct call *call)
{
	int pidfd, waiting;

	if (!lock_container(box, call->id) || !load_container(box))
		return 0;
	const uint64_t flags = box->record.numbers[N_FLAGS];
	if (!(flags & RECORD_DELETES) || (flags & RECORD_CGROUP && !(flags & RECORD_OWN_PID)))
		return 0;
	if (!names_no_hook(box, "\"poststop\"") || !holds_only_files(box))
		return 0;
	int alive = hold_process(&box->record, &pidfd);
	enum status status = status_of(box, alive, &waiting);
	if (status != STOPPED && status != CREATED && !(status == RUNNING && call->force))
		return 0;
	if (alive && !end_process(pidfd))
		return 0;
	return remove_cgroups(&box->record) && remove_container(box, call->id);
}

/* cli/main.py, _interrupted: the status that Python ends with at Ctrl-C. */
static void interrupted(int number)
{
	_exit(128 + number);
}

static int perform(const struct call *call, struct container *box, int *connection)
{
	enum found found = find_container(call, box);

	if (found != FOUND)
		return found == MISSING && call->verb == DELETE && call->force;
	switch (call->verb) {
	case STATE: return state(box);
	case KILL: return kill_container(box, call);
	case START: return start(box, call, connection);
	case DELETE: return delete(box, call);
	case RUN:
	case EXEC: break;
	}
	return 0;
}

const char *shortcut(int argc, char **argv)
{
	static char held[32];
	struct sigaction pipe, interrupt;
	struct container box;
	struct call call;
	int connection = -1;

	if (!read_call(argc, argv, &call))
		return "";
	if (call.verb == RUN)
		return run_kept(&call);
	if (call.verb == EXEC) {
		exec_kept(&call);
		return "";
	}
	/* As Python has them. */
	sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, &pipe);
	sigaction(SIGINT, NULL, &interrupt);
	if (interrupt.sa_handler == SIG_DFL)
		sigaction(SIGINT, &(struct sigaction){.sa_handler = interrupted}, NULL);
	int done = perform(&call, &box, &connection);
	if (done > 0)
		_exit(0);
	sigaction(SIGPIPE, &pipe, NULL);
	sigaction(SIGINT, &interrupt, NULL);
	if (!done)
		return ""; /* what is open here closes when Python is executed, and the lock goes with it */
	if (fcntl(box.directory, F_SETFD, 0) || fcntl(connection, F_SETFD, 0))
		_exit(1);
	snprintf(held, sizeof held, "%d,%d", box.directory, connection);
	return held;
}
