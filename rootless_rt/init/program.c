/* The program: looked up as its user, looked at, and executed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "rt.h"

#define ELF_INTERP 3

static uint64_t number(const unsigned char *at, int size, int big)
{
	uint64_t value = 0;

	for (int i = 0; i < size; i++)
		value |= (uint64_t)at[big ? size - 1 - i : i] << 8 * i;
	return value;
}

/* The dynamic loader that an ELF file names (elf(5), PT_INTERP), if its first bytes have it; else "". */
static const char *loader_of(unsigned char *head, size_t n, int big)
{
	int wide = head[4] == 2;
	uint64_t table = number(head + (wide ? 32 : 28), wide ? 8 : 4, big);
	uint64_t size = number(head + (wide ? 54 : 42), 2, big), count = number(head + (wide ? 56 : 44), 2, big);

	for (uint64_t i = 0; i < count && table < n && size <= n && table + (i + 1) * size <= n; i++) {
		const unsigned char *entry = head + table + i * size;
		if (size < 40 - 8 * !wide || number(entry, 4, big) != ELF_INTERP)
			continue;
		uint64_t at = number(entry + (wide ? 8 : 4), wide ? 8 : 4, big);
		uint64_t length = number(entry + (wide ? 32 : 16), wide ? 8 : 4, big);
		if (at >= n || length == 0 || length > n - at)
			break;
		head[at + length - 1] = 0;
		return (const char *)head + at;
	}
	return "";
}

/*
 * What a later failure to execute the program may come from, for the runtime to put into words: the machine it
 * is built for, and the interpreter that it names, with "!" where that is not there. Looked at before a filter
 * is loaded, which may forbid to look. A program that cannot be read tells nothing.
 */
static void look_at_program(struct run *r, mode_t mode)
{
	unsigned char head[1024];
	const char *interpreter = "";
	unsigned machine = 0;
	/* A device is not to be opened for that, nor may a pipe hold us up. */
	int fd = S_ISREG(mode) ? openat(AT_FDCWD, r->exe, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC) : -1;
	ssize_t n = fd < 0 ? 0 : read(fd, head, sizeof head - 1);

	if (fd >= 0)
		close(fd);
	if (n < 3)
		return;
	head[n] = 0;
	if (head[0] == '#' && head[1] == '!') {
		char *word = (char *)head + 2 + strspn((char *)head + 2, " \t");
		word[strcspn(word, " \t\n")] = 0;
		interpreter = word;
	} else if (n > 64 && !memcmp(head, "\177ELF", 4)) {
		machine = (unsigned)number(head + 18, 2, head[5] == 2);
		interpreter = loader_of(head, (size_t)n, head[5] == 2);
	}
	int gone = *interpreter && faccessat(AT_FDCWD, interpreter, F_OK, AT_EACCESS) && errno == ENOENT;
	snprintf(r->program, sizeof r->program, "\n%u %s%.250s", machine, gone ? "!" : "", interpreter);
}

/* The report on r->exe: its name, and below it what was found out. */
static _Noreturn void fail_program(struct run *r, const char *call)
{
	static char text[sizeof r->exe + sizeof r->program];
	int problem = errno;
	struct statvfs file_system;
	struct stat st;

	if (problem == EACCES && !r->program[0] && !stat(r->exe, &st) && !statvfs(r->exe, &file_system))
		snprintf(r->program, sizeof r->program, "\n%04o %s", (unsigned)st.st_mode & 07777,
			 file_system.f_flag & ST_NOEXEC ? "noexec" : "");
	snprintf(text, sizeof text, "%s%s", r->exe, r->program);
	errno = problem;
	fail(r, call, text);
}

/* 0, and which kind of file it is; or -1. */
static int executable(const char *path, mode_t *mode)
{
	struct stat st;

	if (stat(path, &st))
		return -1;
	if (S_ISDIR(st.st_mode)) {
		errno = EISDIR;
		return -1;
	}
	*mode = st.st_mode;
	return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS);
}

/* Look the program up in the container, as its user: what cannot be found is an error of create. */
void op_find(struct run *r, const struct op *op)
{
	const char *name = S(op, F_FIND_NAME), *path = S(op, F_FIND_PATH), *end;
	size_t size = sizeof r->exe;
	mode_t mode;
	int length;

	if (strchr(name, '/')) {
		if (strlen(name) >= size) {
			errno = ENAMETOOLONG;
			fail(r, "find", name);
		}
		snprintf(r->exe, size, "%s", name);
		if (executable(name, &mode))
			fail_program(r, "find");
		look_at_program(r, mode);
		return;
	}
	for (; path; path = *end ? end + 1 : NULL) {
		end = path + strcspn(path, ":");
		errno = 0;
		length = snprintf(r->exe, size, "%.*s/%s", (int)(end - path), path == end ? "." : path, name);
		if (length > 0 && (size_t)length < size && path != end && !executable(r->exe, &mode)) {
			look_at_program(r, mode);
			return;
		}
		if (errno == ENOTCONN) /* what served the rootfs has ended */
			fail(r, "find", r->exe);
	}
	errno = ENOENT;
	fail(r, "find", name);
}

static int has_home(char **env)
{
	for (; *env; env++)
		if (!strncmp(*env, "HOME=", 5))
			return 1;
	return 0;
}

/*
 * Not 1 where the program is not the first of its pid namespace. Before the filter, which may forbid
 * getpid(2).
 */
void op_listen_pid(struct run *r)
{
	snprintf(r->listen_pid, sizeof r->listen_pid, "LISTEN_PID=%d", (int)getpid());
}

void op_exec(struct run *r, const struct op *op)
{
	char *room[FEW], *more[FEW], *home = r->home[0] ? r->home : NULL;
	char **args = few_strings(&op->f[F_EXEC_ARGS], NULL, room);
	char **env = few_strings(&op->f[F_EXEC_ENV], home, more);

	if (!args || !env)
		fail(r, "malloc", "");
	if (home && has_home(env + 1))
		env++;
	for (char **item = env; r->listen_pid[0] && *item; item++)
		if (!strncmp(*item, "LISTEN_PID=", 11))
			*item = r->listen_pid;
	umask(r->umask);
	execve(r->exe, args, env);
	fail_program(r, "execve");
}
