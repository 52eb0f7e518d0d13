/* What a mount is like: attributes, propagation, and the options of a filesystem that is mounted already. */
#include <errno.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel.h"
#include "rt.h"

#define FLAG_BITS 64

/* One change: of the whole tree, else of the mount alone; 0, or -1 where it is locked for this mount too. */
static int soft_change(struct run *r, int mount, const char *path, unsigned tree, uint64_t set, uint64_t clear)
{
	if (!k_setattr(mount, "", AT_EMPTY_PATH | tree, set, clear, 0))
		return 0;
	if (errno != EPERM)
		fail(r, "mount_setattr", path);
	/* A locked mount below: what can be had is the one on top. */
	if (tree)
		k_setattr(mount, "", AT_EMPTY_PATH, set, clear, 0);
	return -1;
}

/* Flags locked by an outer mount stay as they are, each for itself: said, not fatal, and never less safe. */
static void soft_attributes(struct run *r, int mount, const char *path, unsigned tree, uint64_t set, uint64_t clear)
{
	int locked = 0;

	if (!set && !clear)
		return;
	if (!k_setattr(mount, "", AT_EMPTY_PATH | tree, set, clear, 0))
		return;
	if (errno != EPERM)
		fail(r, "mount_setattr", path);
	for (int i = 0; i < FLAG_BITS; i++) {
		uint64_t bit = (uint64_t)1 << i;

		if (bit & MOUNT_ATTR__ATIME) /* a number of three bits */
			continue;
		if ((set | clear) & bit && soft_change(r, mount, path, tree, set & bit, clear & bit))
			locked = 1;
	}
	if ((set | clear) & MOUNT_ATTR__ATIME &&
	    soft_change(r, mount, path, tree, set & MOUNT_ATTR__ATIME, clear & MOUNT_ATTR__ATIME))
		locked = 1;
	errno = EPERM;
	if (locked)
		note(r, "mount_setattr", path);
}

/*
 * The six fields of an op from `set` on. What is for the whole tree comes later and wins; the plan has
 * seen to it that nothing takes back what was to hold.
 */
void set_attributes(struct run *r, int mount, const char *path, const struct field *f)
{
	if (f[0].u && k_setattr(mount, "", AT_EMPTY_PATH, f[0].u, 0, 0))
		fail(r, "mount_setattr", path);
	if (f[1].u && k_setattr(mount, "", AT_EMPTY_PATH | AT_RECURSIVE, f[1].u, 0, 0))
		fail(r, "mount_setattr", path);
	soft_attributes(r, mount, path, 0, f[2].u, f[3].u);
	soft_attributes(r, mount, path, AT_RECURSIVE, f[4].u, f[5].u);
}

void set_propagation(struct run *r, int mount, const char *path, uint64_t flag)
{
	if (k_setattr(mount, "", AT_EMPTY_PATH | (flag & MS_REC ? AT_RECURSIVE : 0), 0, 0, flag & ~(uint64_t)MS_REC))
		fail(r, "mount_setattr", path);
	if (flag & MS_SHARED) {
		r->apart = 0;
		forget_all(r);
	}
}

void propagate(struct run *r, int mount, const char *path, const struct field *propagation)
{
	for (uint32_t i = 0; i < propagation->n; i++)
		set_propagation(r, mount, path, vector_item(propagation, i));
}

/* The filesystem itself is changed only if an op of this plan has made it: a name may lead elsewhere by now. */
static void reconfigure(struct run *r, int mount, const char *path, char **data)
{
	struct stat st;
	int fs, ours = 0;

	if (fstat(mount, &st))
		fail(r, "fstat", path);
	for (uint32_t i = 0; i < r->made_count; i++)
		ours |= r->made[i] == st.st_dev;
	if (!ours) {
		errno = EXDEV;
		fail(r, "fspick", path);
	}
	fs = k_fspick(mount);
	if (fs < 0)
		fail(r, "fspick", path);
	for (; *data; data++)
		set_option(r, fs, *data, path);
	if (k_fsconfig(fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0))
		fail_context(r, fs, "fsconfig-reconfigure", path);
	close(fs);
}

void op_remount(struct run *r, const struct op *op)
{
	const char *path = S(op, F_REMOUNT_DEST);
	/* No links: the image must not choose which mount loses its flags. */
	int mount = in_root(slot_fd(r, U(op, F_REMOUNT_ROOT)), path, O_PATH, RESOLVE_NO_SYMLINKS);

	if (mount < 0)
		fail(r, "destination", path);
	set_attributes(r, mount, path, &op->f[F_REMOUNT_SET]);
	if (op->f[F_REMOUNT_DATA].n)
		reconfigure(r, mount, path, list_strings(&op->f[F_REMOUNT_DATA], NULL));
	propagate(r, mount, path, &op->f[F_REMOUNT_PROPAGATION]);
	close(mount);
}
