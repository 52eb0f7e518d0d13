/* Paths: the only code that resolves a name below the rootfs or in /proc. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "rt.h"

/* Symlinks followed while creating missing parts, as many as the kernel allows in one path. */
#define MAX_LINKS 40

/*
 * Open `path` as if `root` were "/": symlinks, ".." and absolute links stay inside, magic links
 * (/proc/PID/fd, exe, cwd …) are refused. openat2(2). EAGAIN means that a rename was under way
 * while ".." was resolved: the kernel asks to try again.
 */
int in_root(int root, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how how = {.flags = flags | O_CLOEXEC,
			       .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve};
	int fd, tries = 128;

	while (*path == '/')
		path++;
	do
		fd = (int)syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof how);
	while (fd < 0 && (errno == EINTR || (errno == EAGAIN && --tries)));
	return fd;
}

/* Open the deepest part of `path` that exists; *rest points at what is missing. */
static int deepest(int root, char *path, char **rest)
{
	char *slash = path + strlen(path);
	int fd;

	for (;;) {
		slash = memrchr(path, '/', (size_t)(slash - path));
		if (!slash) {
			*rest = path;
			return in_root(root, ".", O_PATH | O_DIRECTORY, 0);
		}
		*slash = 0;
		fd = in_root(root, path, O_PATH | O_DIRECTORY, 0);
		*slash = '/';
		if (fd >= 0 || errno != ENOENT) {
			*rest = slash + 1;
			return fd;
		}
	}
}

static int create(int dir, const char *name, int directory)
{
	int fd;

	if (directory)
		return mkdirat(dir, name, 0755);
	fd = openat(dir, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd >= 0)
		close(fd);
	return fd < 0 ? -1 : 0;
}

/* A dangling link stands where something is to be made: go on with what it points to. */
static int follow(int dir, char *path, const char *name, const char *tail)
{
	char target[PATH_MAX], joined[PATH_MAX];
	ssize_t n = readlinkat(dir, name, target, sizeof target - 1);
	int length;

	if (n < 0)
		return errno == EINVAL || errno == ENOENT ? 0 : -1; /* no link: somebody else was quicker */
	target[n] = 0;
	if (target[0] == '/')
		length = snprintf(joined, sizeof joined, "%s%s%s", target, *tail ? "/" : "", tail);
	else
		length = snprintf(joined, sizeof joined, "%.*s%s%s%s", (int)(name - path), path, target,
				  *tail ? "/" : "", tail);
	if (length < 0 || (size_t)length >= sizeof joined) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(path, joined, (size_t)length + 1);
	return 1;
}

/*
 * Open `path` inside `root`, making what is missing: directories on the way, and at the end a
 * directory or an empty file. Each step is a *at() call on a descriptor.
 */
int make_in_root(int root, const char *wanted, int directory, uint64_t resolve)
{
	char path[PATH_MAX], *name, *slash;
	struct statfs fs;
	int links = MAX_LINKS, fd, dir, made;

	while (*wanted == '/')
		wanted++;
	if (strlen(wanted) >= sizeof path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(path, wanted);
	for (int steps = 0; steps < PATH_MAX; steps++) {
		fd = in_root(root, path, O_PATH | (directory ? O_DIRECTORY : 0), resolve);
		if (fd >= 0 || errno != ENOENT)
			return fd;
		dir = deepest(root, path, &name);
		if (dir < 0)
			return -1;
		/* Nothing can be made there, and what its magic links read as is no path to go on with. */
		if (fstatfs(dir, &fs) || fs.f_type == PROC_SUPER_MAGIC) {
			close(dir);
			errno = ENOENT;
			return -1;
		}
		while (*name == '/')
			name++;
		slash = strchr(name, '/');
		if (slash)
			*slash = 0;
		made = create(dir, name, directory || slash);
		if (made < 0 && errno == EEXIST) {
			/* Where no link may lead there, the next look-up refuses it. */
			made = resolve & RESOLVE_NO_SYMLINKS ? 0 : follow(dir, path, name, slash ? slash + 1 : "");
			if (made == 1) {
				slash = NULL;
				if (!links--) {
					errno = ELOOP;
					made = -1;
				}
			}
		}
		if (slash)
			*slash = '/';
		int saved = errno;
		close(dir);
		errno = saved;
		if (made < 0)
			return -1;
	}
	errno = ELOOP;
	return -1;
}

/* The directory that holds the last part of `path`, made when missing; *last points at that part. */
int parent_in_root(int root, const char *path, const char **last, uint64_t resolve)
{
	char parent[PATH_MAX];
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) : 0;

	*last = slash ? slash + 1 : path;
	if (length >= sizeof parent) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(parent, path, length);
	parent[length] = 0;
	return make_in_root(root, parent, 1, resolve);
}

/* The last part of `path` itself, be it a symlink; a directory or an empty file is made where nothing is. */
int make_last_in_root(int root, const char *path, int directory, uint64_t resolve)
{
	const char *name;
	int dir = parent_in_root(root, path, &name, resolve), fd = -1;

	if (dir < 0)
		return -1;
	if (!create(dir, name, directory) || errno == EEXIST)
		fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	int saved = errno;
	close(dir);
	errno = saved;
	return fd;
}

/* An entry of a directory, itself if it is a symlink; EXDEV where something is mounted on it. */
int beneath(int dir, const char *name)
{
	struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS};

	return (int)syscall(SYS_openat2, dir, name, &how, sizeof how);
}

/* The host's /proc: really procfs, and its root (inode 1), or -1. */
int open_proc(void)
{
	struct statfs fs;
	struct stat st;
	int fd = openat(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return -1;
	if (fstatfs(fd, &fs) || fs.f_type != PROC_SUPER_MAGIC || fstat(fd, &st) || st.st_ino != 1) {
		close(fd);
		errno = ENOTSUP;
		return -1;
	}
	return fd;
}

/* A file of the verified /proc, open for writing: no link to elsewhere, no other mount on the way. */
int proc_file(int proc, const char *path)
{
	uint64_t resolve = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_BENEATH;
	struct open_how how = {.flags = O_WRONLY | O_CLOEXEC | O_NOFOLLOW, .resolve = resolve};

	return (int)syscall(SYS_openat2, proc, path, &how, sizeof how);
}

/* In one write(2), as the files of /proc want it; closes the file. 0, or -1 with errno. */
int write_whole(int fd, const char *value)
{
	size_t length = strlen(value);
	ssize_t n = write(fd, value, length);
	int saved = n >= 0 && (size_t)n != length ? EIO : errno;

	close(fd);
	errno = saved;
	return n == (ssize_t)length ? 0 : -1;
}

int write_proc(int proc, const char *path, const char *value)
{
	int fd = proc_file(proc, path);

	return fd < 0 ? -1 : write_whole(fd, value);
}
