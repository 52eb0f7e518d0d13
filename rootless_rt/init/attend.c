/* A program of the host that serves a container from outside, and must not outlive it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rt.h"

/* Before exec: descriptors of slots get the numbers 0, 1, ...; those without one keep /dev/null. */
static int place(struct run *r, const struct field *fds)
{
	for (uint32_t i = 0; i < fds->n; i++) {
		uint64_t slot = vector_item(fds, i);
		if (slot != NO_SLOT && dup2(slot_fd(r, slot), (int)i) < 0)
			return -1;
	}
	return (int)syscall(SYS_close_range, fds->n > 3 ? fds->n : 3, ~0U, CLOSE_RANGE_CLOEXEC);
}

static int pidfd_of(struct run *r, pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (fd < 0)
		fail(r, "pidfd_open", "");
	return fd;
}

/*
 * This process stays as long as the program and the process of slot `until`, and ends the program when that
 * ends: whoever started us may be gone by then. It holds nothing of its caller's: no terminal, no pipe, no
 * directory. Never comes back.
 */
_Noreturn void op_attend(struct run *r, const struct op *op)
{
	const struct field *fds = &op->f[F_ATTEND_FDS];
	char **args = list_strings(&op->f[F_ATTEND_ARGS], NULL);
	char **env = list_strings(&op->f[F_ATTEND_ENV], NULL);
	int until = slot_fd(r, U(op, F_ATTEND_UNTIL)), directory = slot_fd(r, U(op, F_ATTEND_DIRECTORY));
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct pollfd ends[2] = {{.fd = until, .events = POLLIN}, {.events = POLLIN}};
	volatile int exec_error = 0;
	pid_t pid;

	if (!args || !env || null < 0)
		fail(r, "open", "/dev/null");
	for (uint32_t i = 0; i < fds->n; i++)
		if (vector_item(fds, i) != NO_SLOT)
			slot_fd(r, vector_item(fds, i));
	/* Of a terminal's keys, and of the end of a session, it is to hear nothing. */
	setsid();
	for (int fd = 0; fd < 3; fd++)
		if (dup2(null, fd) < 0)
			fail(r, "dup2", "/dev/null");
	umask(077);
	if (chdir("/"))
		fail(r, "chdir", "/");
	pid = vfork();
	if (pid < 0)
		fail(r, "vfork", args[0]);
	if (!pid) {
		/* The parent's memory: only system calls, and the one variable it reads. */
		if (!fchdir(directory) && !place(r, fds))
			execve(args[0], args, env);
		exec_error = errno;
		_exit(127);
	}
	if (exec_error) {
		errno = exec_error;
		fail(r, "execve", args[0]);
	}
	ends[1].fd = pidfd_of(r, pid);
	send_message(r, MSG_PID, (int)pid, 0, "", "", ends[1].fd);
	for (int fd = 3; fd < 3 + MAX_SLOTS; fd++)
		if (fd != until && fd != ends[1].fd)
			close(fd);
	while (poll(ends, 2, -1) < 0 && errno == EINTR)
		;
	syscall(SYS_pidfd_send_signal, ends[1].fd, SIGKILL, NULL, 0);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	_exit(0);
}
