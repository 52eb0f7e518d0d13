/* Labels that are no mount options. */
#include <errno.h>
#include <fcntl.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "rt.h"

#ifndef MQUEUE_MAGIC
#define MQUEUE_MAGIC 0x19800202
#endif

/*
 * SELinux takes no context= for a mqueue, but an attribute of its directory. The path is looked up anew:
 * whoever may exchange names in the rootfs must not lead the label to another file.
 */
void op_label_mqueue(struct run *r, const struct op *op)
{
	const char *path = S(op, F_LABEL_MQUEUE_PATH);
	int fd = in_root(slot_fd(r, U(op, F_LABEL_MQUEUE_ROOT)), path, O_RDONLY | O_DIRECTORY, 0);
	struct statfs fs;

	if (fd < 0 || fstatfs(fd, &fs))
		fail(r, "destination", path);
	if ((unsigned long)fs.f_type != MQUEUE_MAGIC) {
		errno = ENOTSUP;
		fail(r, "destination", path);
	}
	if (fsetxattr(fd, "security.selinux", S(op, F_LABEL_MQUEUE_LABEL), op->f[F_LABEL_MQUEUE_LABEL].n, 0))
		fail(r, "fsetxattr", path);
	close(fd);
}
