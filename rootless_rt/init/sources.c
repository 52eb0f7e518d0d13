/* Sources of bind mounts: copies of mounts of the host, taken before anything is changed. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel.h"
#include "rt.h"

/*
 * What a descriptor of the caller's has open. It is of the caller's mount namespace, whose mounts cannot
 * be copied from here: then the copy is of what has its name, if that is the same file.
 */
static int by_descriptor(struct run *r, int fd, const char *below, unsigned flags, const char *text)
{
	char link[64], name[PATH_MAX];
	struct stat wanted, found;
	int tree = k_open_tree(fd, below, flags | AT_EMPTY_PATH), base;
	ssize_t n;

	if (tree >= 0 || errno != EINVAL)
		return tree;
	snprintf(link, sizeof link, "self/fd/%d", fd);
	n = readlinkat(r->proc, link, name, sizeof name - 1);
	if (n <= 0 || fstat(fd, &wanted))
		fail(r, "descriptor", text);
	name[n] = 0;
	base = name[0] == '/' ? openat(AT_FDCWD, name, O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1;
	if (base < 0 || fstat(base, &found) || found.st_dev != wanted.st_dev || found.st_ino != wanted.st_ino) {
		errno = ESTALE;
		fail(r, "descriptor", text);
	}
	tree = k_open_tree(base, below, flags | AT_EMPTY_PATH);
	int saved = errno;
	close(base);
	errno = saved;
	return tree;
}

void op_source(struct run *r, const struct op *op)
{
	const char *path = S(op, F_SOURCE_PATH);
	unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
	uint64_t descriptor = U(op, F_SOURCE_DESCRIPTOR);
	int fd;

	flags |= U(op, F_SOURCE_RECURSIVE) ? AT_RECURSIVE : 0;
	flags |= U(op, F_SOURCE_NOFOLLOW) ? AT_SYMLINK_NOFOLLOW : 0;
	if (descriptor == NO_SLOT)
		fd = k_open_tree(AT_FDCWD, path, flags);
	else
		fd = by_descriptor(r, slot_fd(r, descriptor), S(op, F_SOURCE_BELOW), flags, path);
	if (fd < 0)
		fail(r, "open_tree", path);
	set_slot(r, U(op, F_SOURCE_SLOT), fd);
	r->slots[U(op, F_SOURCE_SLOT)].tree = LOOSE;
}
