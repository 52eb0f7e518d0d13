/* Mounts: the rootfs and what is bound into it, all by descriptor (new mount API, Linux 5.12). */
#include <errno.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "kernel.h"
#include "rt.h"

#define ATTACH (MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)

/* A detached copy can get a map, and only once: mount_setattr(2). */
void op_idmap(struct run *r, const struct op *op)
{
	int mount = slot_fd(r, U(op, F_IDMAP_SLOT));

	set_propagation(r, mount, "", U(op, F_IDMAP_PROPAGATION));
	if (k_idmap(mount, AT_EMPTY_PATH | (U(op, F_IDMAP_RECURSIVE) ? AT_RECURSIVE : 0),
		    slot_fd(r, U(op, F_IDMAP_USERNS))))
		fail(r, "idmap", "");
}

static int bind_over(struct run *r, const char *path)
{
	int fd = k_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	int at;
	struct stat st;

	if (fd < 0)
		fail(r, "open_tree", path);
	if (fstat(fd, &st) || !S_ISDIR(st.st_mode)) {
		errno = ENOTDIR;
		fail(r, "open_tree", path);
	}
	/* The new tree goes on top of what is there now, so the place itself is opened last. */
	at = openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (at < 0)
		fail(r, "open", path);
	if (k_move_mount(fd, at, "", ATTACH))
		fail(r, "move_mount", path);
	close(at);
	return fd;
}

/*
 * Make the mount that `path` lies on private, in this namespace. Its root is found by going up:
 * mount_setattr(2) says EINVAL for any other directory.
 */
static void make_private(struct run *r, const char *path)
{
	int fd = openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC), up, steps = PATH_MAX;

	if (fd < 0)
		fail(r, "open", path);
	while (k_setattr(fd, "", AT_EMPTY_PATH, 0, 0, MS_PRIVATE)) {
		if (errno != EINVAL || !steps--)
			fail(r, "mount_setattr", path);
		up = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (up < 0)
			fail(r, "open", path);
		close(fd);
		fd = up;
	}
	close(fd);
}

/*
 * Where the host's mounts stay shared (rootfsPropagation), the one below the rootfs is made private
 * first: the bind would appear on the host, and pivot_root(2) wants it so.
 */
void op_root(struct run *r, const struct op *op)
{
	const char *path = S(op, F_ROOT_PATH);

	if (U(op, F_ROOT_PRIVATE_PARENT))
		make_private(r, path);
	set_slot(r, U(op, F_ROOT_SLOT), bind_over(r, path));
	r->slots[U(op, F_ROOT_SLOT)].tree = ROOTFS;
}

void op_propagation(struct run *r, const struct op *op)
{
	if (k_setattr(AT_FDCWD, "/", AT_RECURSIVE, 0, 0, U(op, F_PROPAGATION_FLAG)))
		fail(r, "mount_setattr", "/");
	r->apart = !(U(op, F_PROPAGATION_FLAG) & MS_SHARED);
}

void op_root_propagation(struct run *r, const struct op *op)
{
	uint64_t flag = U(op, F_ROOT_PROPAGATION_FLAG);

	if (k_setattr(AT_FDCWD, "/", flag & MS_REC ? AT_RECURSIVE : 0, 0, 0, flag & ~(uint64_t)MS_REC))
		fail(r, "mount_setattr", "/");
	r->apart = r->apart && !(flag & MS_SHARED);
}

/* The slot's tree: itself the first time, later a copy of where it went. give_back() ends its use. */
int tree_of(struct run *r, uint64_t slot, const char *path)
{
	int fd = slot_fd(r, slot);

	if (r->slots[slot].tree != PLACED) {
		r->slots[slot].tree = PLACED;
		forget_tree(r, slot);
		return fd;
	}
	fd = k_open_tree(fd, "", CLONE_FD);
	if (fd < 0)
		fail(r, "open_tree", path);
	return fd;
}

/* A config may mask more paths than there may be descriptors: only the slot's own stays open. */
void give_back(struct run *r, uint64_t slot, int fd)
{
	if (!fills_slot(r, slot) || slot_fd(r, slot) != fd)
		close(fd);
}

/* A symlink of the host's made anew: with the same target it may be there already. */
static void copy_symlink(struct run *r, int link, uint64_t root, const char *path)
{
	char target[PATH_MAX], there[PATH_MAX];
	struct place p;
	struct statfs fs;
	ssize_t n = readlinkat(link, "", target, sizeof target - 1);

	if (n < 0)
		fail(r, "destination", path);
	p = parent(r, root, path);
	if (fstatfs(p.fd, &fs) || fs.f_type == PROC_SUPER_MAGIC) {
		errno = EPERM;
		fail(r, "inside-proc", path);
	}
	target[n] = 0;
	if (symlinkat(target, p.fd, p.name) &&
	    (errno != EEXIST || readlinkat(p.fd, p.name, there, sizeof there) != n || memcmp(target, there, (size_t)n))) {
		errno = EEXIST;
		fail(r, "symlinkat", path);
	}
	leave(&p);
}

void op_mount_bind(struct run *r, const struct op *op)
{
	const char *path = S(op, F_MOUNT_BIND_DEST);
	uint64_t device = U(op, F_MOUNT_BIND_DEVICE);
	uint64_t in_proc = U(op, F_MOUNT_BIND_IN_PROC), root = U(op, F_MOUNT_BIND_ROOT);
	int mount = tree_of(r, U(op, F_MOUNT_BIND_SLOT), path);
	struct statfs fs;
	struct place at;
	struct stat st;

	if (fstat(mount, &st))
		fail(r, "fstat", path);
	if (device != UINT64_MAX && ((!S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode)) || st.st_rdev != device)) {
		errno = ENODEV;
		fail(r, "device", path);
	}
	/* The root of procfs, inode 1: a directory in it has files of the same names for other processes. */
	if (in_proc == PROC_ITSELF &&
	    (fstatfs(mount, &fs) || fs.f_type != PROC_SUPER_MAGIC || st.st_ino != 1)) {
		errno = EPERM;
		fail(r, "not-proc", path);
	}
	if (S_ISLNK(st.st_mode) && U(op, F_MOUNT_BIND_LINKS) & COPY_SYMLINK) {
		copy_symlink(r, mount, root, path);
		give_back(r, U(op, F_MOUNT_BIND_SLOT), mount);
		return;
	}
	if (U(op, F_MOUNT_BIND_LINKS) & ON_SYMLINK)
		at = symlink_destination(r, root, path, S_ISDIR(st.st_mode), in_proc == IN_PROC);
	else
		at = destination(r, root, path, S_ISDIR(st.st_mode),
				 in_proc == PROC_ITSELF || in_proc == NO_LINKS,
				 in_proc == IN_PROC || in_proc == PROC_ITSELF);
	set_attributes(r, mount, path, &op->f[F_MOUNT_BIND_SET]);
	attach(r, mount, &at, &op->f[F_MOUNT_BIND_PROPAGATION]);
	give_back(r, U(op, F_MOUNT_BIND_SLOT), mount);
}

void op_device(struct run *r, const struct op *op)
{
	const char *path = S(op, F_DEVICE_PATH);
	mode_t mode = (mode_t)U(op, F_DEVICE_MODE);
	struct place p = parent(r, U(op, F_DEVICE_ROOT), path);
	int fd;

	if (mknodat(p.fd, p.name, mode & ~(mode_t)07777, (dev_t)U(op, F_DEVICE_RDEV)) && errno != EEXIST)
		fail(r, "mknodat", path);
	fd = openat(p.fd, p.name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		fail(r, "open", path);
	struct stat st;
	if (fstat(fd, &st) || st.st_rdev != (dev_t)U(op, F_DEVICE_RDEV) || (st.st_mode & S_IFMT) != (mode & S_IFMT)) {
		errno = EEXIST;
		fail(r, "mknodat", path);
	}
	/* fchmod(2) refuses O_PATH, and the name may have been exchanged: through the verified /proc. */
	char link[64];
	snprintf(link, sizeof link, "self/fd/%d", fd);
	if (fchmodat(r->proc, link, mode & 07777, 0) || fchownat(fd, "", (uid_t)U(op, F_DEVICE_UID),
								(gid_t)U(op, F_DEVICE_GID), AT_EMPTY_PATH))
		fail(r, "fchmodat", path);
	close(fd);
	leave(&p);
}

void op_symlink(struct run *r, const struct op *op)
{
	const char *path = S(op, F_SYMLINK_PATH);
	struct place p = parent(r, U(op, F_SYMLINK_ROOT), path);

	if (symlinkat(S(op, F_SYMLINK_TARGET), p.fd, p.name) && errno != EEXIST)
		fail(r, "symlinkat", path);
	leave(&p);
}

/* Files are masked by /dev/null, directories by one empty read-only tmpfs that all share. */
/* Empty, read-only and for every masked directory the same; `label` is an SELinux context or "". */
static int mask_tmpfs(struct run *r, const char *label, const char *path)
{
	char context[256 + sizeof "context="];
	char *options[] = {"nr_blocks=1", "nr_inodes=2", "mode=755", "ro", *label ? context : NULL, NULL};

	snprintf(context, sizeof context, "context=%s", label);
	return new_filesystem(r, "tmpfs", options,
			      MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, path);
}

/* With a label of its own, beforehand; without this op it is made for the first directory. */
void op_mask_tmpfs(struct run *r, const struct op *op)
{
	set_slot(r, U(op, F_MASK_TMPFS_SLOT), mask_tmpfs(r, S(op, F_MASK_TMPFS_LABEL), "tmpfs"));
}

void op_mask(struct run *r, const struct op *op)
{
	static const struct field none;
	const char *path = S(op, F_MASK_PATH);
	uint64_t tmpfs = U(op, F_MASK_TMPFS);
	struct place at = existing(r, U(op, F_MASK_ROOT), path);
	struct stat st;
	int tree;

	if (at.fd < 0) {
		if (errno == ENOENT || errno == ENOTDIR)
			return;
		fail(r, "destination", path);
	}
	if (fstat(at.fd, &st))
		fail(r, "fstat", path);
	if (!S_ISDIR(st.st_mode)) {
		int null = tree_of(r, U(op, F_MASK_NULL), path);
		/* What stands for /dev/null must be it (CVE-2025-31133). */
		if (fstat(null, &st) || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3)) {
			errno = ENODEV;
			fail(r, "device", path);
		}
		attach(r, null, &at, &none);
		give_back(r, U(op, F_MASK_NULL), null);
		return;
	}
	if (!fills_slot(r, tmpfs))
		set_slot(r, tmpfs, mask_tmpfs(r, "", path));
	tree = tree_of(r, tmpfs, path);
	attach(r, tree, &at, &none);
	give_back(r, tmpfs, tree);
}

void op_readonly(struct run *r, const struct op *op)
{
	static const struct field none;
	const char *path = S(op, F_READONLY_PATH);
	struct place at = existing(r, U(op, F_READONLY_ROOT), path);
	int mount;

	if (at.fd < 0) {
		if (errno == ENOENT || errno == ENOTDIR)
			return;
		fail(r, "destination", path);
	}
	mount = k_open_tree(at.fd, "", CLONE_FD | AT_RECURSIVE);
	if (mount < 0)
		fail(r, "open_tree", path);
	if (k_setattr(mount, "", AT_EMPTY_PATH | AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0, 0))
		fail(r, "mount_setattr", path);
	attach(r, mount, &at, &none);
	close(mount);
}

void op_root_attrs(struct run *r, const struct op *op)
{
	if (k_setattr(slot_fd(r, U(op, F_ROOT_ATTRS_ROOT)), "", AT_EMPTY_PATH, U(op, F_ROOT_ATTRS_SET), 0, 0))
		fail(r, "mount_setattr", "/");
}

/* Without pivot_root the host's tree stays mounted below: no full proc or sysfs may remain there. */
void op_cover(struct run *r, const struct op *op)
{
	static const struct field none;
	const char *path = S(op, F_COVER_PATH);
	struct place at = {.root = NO_SLOT, .path = path, .name = ""};

	if (!umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW))
		return;
	at.fd = openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (at.fd < 0)
		fail(r, "open", path);
	int mount = new_filesystem(r, "tmpfs", NULL, MOUNT_ATTR_RDONLY, path);
	attach(r, mount, &at, &none);
	close(mount);
}

void op_pivot(struct run *r, const struct op *op)
{
	int root = slot_fd(r, U(op, F_PIVOT_ROOT));
	uint64_t how = U(op, F_PIVOT_HOW);

	if (fchdir(root))
		fail(r, "fchdir", "/");
	if (how == PIVOT_ROOT) {
		int old = openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC);

		if (old < 0)
			fail(r, "open", "/");
		/* With "." twice the old root lies on top of the new one: no directory is needed for it. */
		if (syscall(SYS_pivot_root, ".", "."))
			fail(r, "pivot_root", "/");
		/* Its unmount must not travel to the host's mounts: slave before umount. */
		if (!r->apart && k_setattr(old, "", AT_EMPTY_PATH | AT_RECURSIVE, 0, 0, MS_SLAVE))
			fail(r, "mount_setattr", "/");
		if (fchdir(old) || umount2(".", MNT_DETACH))
			fail(r, "umount2", "/");
		close(old);
	} else {
		/* Onto a shared "/" it would be moved on the host as well. */
		if (how == MOVE_ROOT && k_setattr(AT_FDCWD, "/", 0, 0, 0, MS_PRIVATE))
			fail(r, "mount_setattr", "/");
		if (how == MOVE_ROOT && k_move_mount(root, AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH))
			fail(r, "move_mount", "/");
		if (fchdir(root) || chroot("."))
			fail(r, "chroot", "/");
	}
	if (chdir("/"))
		fail(r, "chdir", "/");
}
