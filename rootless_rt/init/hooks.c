/* Hooks of the container's namespaces: createContainer and startContainer. */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rt.h"

/* How much of a failed hook's output goes into the report. */
#define SHOWN 1024

/* The state goes in, and the output comes out, through files in memory: neither side can block. */
static int state_file(struct run *r, const struct op *op)
{
	int fd = (int)syscall(SYS_memfd_create, "state", 1U /* MFD_CLOEXEC */);
	int pid = (int)getpid(); /* as seen by the container, where these hooks run (runtime.md, "State") */

	if (fd < 0 || dprintf(fd, "%s%d%s", S(op, F_HOOK_STATE_HEAD), pid, S(op, F_HOOK_STATE_TAIL)) < 0 ||
	    lseek(fd, 0, SEEK_SET))
		fail(r, "memfd_create", S(op, F_HOOK_PATH));
	return fd;
}

static _Noreturn void fail_hook(struct run *r, const struct op *op, int output, const char *what, int value)
{
	char text[4096 + SHOWN];
	int at = snprintf(text, sizeof text - SHOWN, "%s\n%s %d\n", S(op, F_HOOK_PATH), what, value);
	ssize_t n;

	if (at > 0 && (size_t)at < sizeof text - SHOWN) {
		n = pread(output, text + at, SHOWN - 1, 0);
		text[at + (n > 0 ? n : 0)] = 0;
	}
	fail(r, "hook", text);
}

void op_hook(struct run *r, const struct op *op)
{
	char **args = list_strings(&op->f[F_HOOK_ARGS], NULL);
	char **env = list_strings(&op->f[F_HOOK_ENV], NULL);
	int input = state_file(r, op), status, ready;
	int output = (int)syscall(SYS_memfd_create, "output", 1U);
	volatile int exec_error = 0;
	uint64_t timeout = U(op, F_HOOK_TIMEOUT_MS);
	struct pollfd wait = {.events = POLLIN};
	pid_t pid;

	if (!args || !env || output < 0)
		fail(r, "memfd_create", S(op, F_HOOK_PATH));
	pid = vfork();
	if (pid < 0)
		fail(r, "vfork", S(op, F_HOOK_PATH));
	if (!pid) {
		/* The parent's memory: only system calls, and the one variable it reads. */
		if (setpgid(0, 0) || dup2(input, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0 ||
		    (*S(op, F_HOOK_CWD) && chdir(S(op, F_HOOK_CWD))) ||
		    syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC)) {
			exec_error = errno;
			_exit(127);
		}
		umask(r->umask);
		execve(S(op, F_HOOK_PATH), args, env);
		exec_error = errno;
		_exit(127);
	}
	wait.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (wait.fd < 0)
		fail(r, "pidfd_open", S(op, F_HOOK_PATH));
	do
		ready = poll(&wait, 1, timeout ? (int)timeout : -1);
	while (ready < 0 && errno == EINTR);
	if (!ready)
		kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (exec_error) {
		errno = exec_error;
		fail_hook(r, op, output, "exec", exec_error);
	}
	errno = 0;
	if (!ready)
		fail_hook(r, op, output, "timeout", (int)timeout);
	if (WIFSIGNALED(status))
		fail_hook(r, op, output, "signal", WTERMSIG(status));
	if (WEXITSTATUS(status))
		fail_hook(r, op, output, "exit", WEXITSTATUS(status));
	close(wait.fd);
	close(input);
	close(output);
	free(args);
	free(env);
}
