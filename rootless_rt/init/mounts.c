/* Mounts: the rootfs and what is put into it, all by descriptor (new mount API, Linux 5.12). */
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
#define CLONE_FD (OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)

void op_source(struct run *r, const struct op *op)
{
	unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
	int fd = k_open_tree(AT_FDCWD, S(op, F_SOURCE_PATH), flags | (U(op, F_SOURCE_RECURSIVE) ? AT_RECURSIVE : 0));

	if (fd < 0)
		fail(r, "open_tree", S(op, F_SOURCE_PATH));
	set_slot(r, U(op, F_SOURCE_SLOT), fd);
}

/* A detached copy can get a map, and only once: mount_setattr(2). */
void op_idmap(struct run *r, const struct op *op)
{
	int mount = slot_fd(r, U(op, F_IDMAP_SLOT));
	uint64_t flag = U(op, F_IDMAP_PROPAGATION);

	if (k_setattr(mount, "", AT_EMPTY_PATH | (flag & MS_REC ? AT_RECURSIVE : 0), 0, 0, flag & ~(uint64_t)MS_REC))
		fail(r, "mount_setattr", "");
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
	at = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
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
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), up, steps = PATH_MAX;

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
}

void op_propagation(struct run *r, const struct op *op)
{
	if (k_setattr(AT_FDCWD, "/", AT_RECURSIVE, 0, 0, U(op, F_PROPAGATION_FLAG)))
		fail(r, "mount_setattr", "/");
}

void op_root_propagation(struct run *r, const struct op *op)
{
	uint64_t flag = U(op, F_ROOT_PROPAGATION_FLAG);

	if (k_setattr(AT_FDCWD, "/", flag & MS_REC ? AT_RECURSIVE : 0, 0, 0, flag & ~(uint64_t)MS_REC))
		fail(r, "mount_setattr", "/");
}

/*
 * A link in the image can lead a mount into /proc, where a file of the attacker's would stand in
 * for a file of the kernel's (CVE-2019-16884, CVE-2025-52881): only destinations that the plan
 * knows to be in /proc may end on procfs.
 */
int destination(struct run *r, int root, const char *path, int directory, int strict, int in_proc)
{
	struct statfs fs;
	struct stat st;
	int fd = make_in_root(root, path, directory, strict ? RESOLVE_NO_SYMLINKS : 0);

	if (fd < 0)
		fail(r, "destination", path);
	if (!in_proc && (fstatfs(fd, &fs) || fs.f_type == PROC_SUPER_MAGIC)) {
		errno = EPERM;
		fail(r, "inside-proc", path);
	}
	/* The kernel would say EINVAL, which says nothing. */
	if (!directory && (fstat(fd, &st) || S_ISDIR(st.st_mode))) {
		errno = EISDIR;
		fail(r, "destination", path);
	}
	return fd;
}

static void propagate(struct run *r, int mount, const char *path, const struct field *propagation)
{
	uint64_t flag;

	for (uint32_t i = 0; i < propagation->n; i++) {
		flag = vector_item(propagation, i);
		if (k_setattr(mount, "", AT_EMPTY_PATH | (flag & MS_REC ? AT_RECURSIVE : 0), 0, 0,
			      flag & ~(uint64_t)MS_REC))
			fail(r, "mount_setattr", path);
	}
}

static void attach(struct run *r, int mount, int at, const char *path, const struct field *propagation)
{
	if (k_move_mount(mount, at, "", ATTACH))
		fail(r, "move_mount", path);
	close(at);
	propagate(r, mount, path, propagation);
}

/* The kernel says in the context's log what it disliked: "e tmpfs: Bad value for 'mode'". */
static void fail_context(struct run *r, int fs, const char *call, const char *path)
{
	char text[1024];
	int saved = errno, at = snprintf(text, sizeof text, "%s", path);
	ssize_t n;

	if (at > 0 && (size_t)at < sizeof text - 2) {
		n = read(fs, text + at + 1, sizeof text - (size_t)at - 2);
		if (n > 0) {
			text[at] = '\n';
			text[at + 1 + n] = 0;
		}
	}
	errno = saved;
	fail(r, call, text);
}

/* A new mount of a filesystem, or -1 where the caller has a substitute and the kernel says EPERM. */
static int new_filesystem(struct run *r, const char *type, const char *source, char **data, uint64_t attrs,
			  const char *path, int substitute)
{
	int fs = k_fsopen(type), mount;
	char key[256], *equals;

	if (fs < 0 && substitute && errno == EPERM)
		return -1;
	if (fs < 0)
		fail(r, "fsopen", type);
	if (*source && k_fsconfig(fs, FSCONFIG_SET_STRING, "source", source))
		fail_context(r, fs, "fsconfig", path);
	for (; data && *data; data++) {
		equals = strchr(*data, '=');
		if (!equals) {
			if (k_fsconfig(fs, FSCONFIG_SET_FLAG, *data, NULL))
				fail_context(r, fs, "fsconfig", path);
			continue;
		}
		if ((size_t)(equals - *data) >= sizeof key) {
			errno = EINVAL;
			fail(r, "fsconfig", path);
		}
		memcpy(key, *data, (size_t)(equals - *data));
		key[equals - *data] = 0;
		if (k_fsconfig(fs, FSCONFIG_SET_STRING, key, equals + 1))
			fail_context(r, fs, "fsconfig", path);
	}
	if (k_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL)) {
		if (substitute && errno == EPERM) {
			close(fs);
			errno = EPERM;
			return -1;
		}
		fail_context(r, fs, "fsconfig-create", path);
	}
	mount = k_fsmount(fs, (unsigned)attrs);
	if (mount < 0)
		fail_context(r, fs, "fsmount", path);
	close(fs);
	return mount;
}

/* The slot's tree: itself the first time, later a copy of where it went. give_back() ends its use. */
static int tree_of(struct run *r, uint64_t slot, const char *path)
{
	int fd = slot_fd(r, slot);

	if (!r->attached[slot]) {
		r->attached[slot] = 1;
		return fd;
	}
	fd = k_open_tree(fd, "", CLONE_FD);
	if (fd < 0)
		fail(r, "open_tree", path);
	return fd;
}

/* A config may mask more paths than there may be descriptors: only the slot's own stays open. */
static void give_back(struct run *r, uint64_t slot, int fd)
{
	if (slot >= MAX_SLOTS || r->slots[slot] != fd)
		close(fd);
}

void op_mount_fs(struct run *r, const struct op *op)
{
	const char *path = S(op, F_MOUNT_FS_DEST);
	int root = slot_fd(r, U(op, F_MOUNT_FS_ROOT));
	int at = destination(r, root, path, 1, U(op, F_MOUNT_FS_STRICT) != 0, U(op, F_MOUNT_FS_IN_PROC) != 0);
	char **data = list_strings(&op->f[F_MOUNT_FS_DATA], NULL);
	uint64_t fallback = U(op, F_MOUNT_FS_FALLBACK);
	int mount = new_filesystem(r, S(op, F_MOUNT_FS_FSTYPE), S(op, F_MOUNT_FS_SOURCE), data,
				   U(op, F_MOUNT_FS_ATTRS), path, fallback != NO_SLOT);

	if (mount < 0) {
		note(r, "fsopen", path);
		mount = tree_of(r, fallback, path);
		if (k_setattr(mount, "", AT_EMPTY_PATH | AT_RECURSIVE, U(op, F_MOUNT_FS_ATTRS) | MOUNT_ATTR_RDONLY, 0, 0))
			fail(r, "mount_setattr", path);
	}
	attach(r, mount, at, path, &op->f[F_MOUNT_FS_PROPAGATION]);
	give_back(r, fallback, mount);
}

void op_mount_bind(struct run *r, const struct op *op)
{
	const char *path = S(op, F_MOUNT_BIND_DEST);
	uint64_t device = U(op, F_MOUNT_BIND_DEVICE);
	uint64_t soft_set = U(op, F_MOUNT_BIND_SOFT_SET), soft_clear = U(op, F_MOUNT_BIND_SOFT_CLEAR);
	uint64_t in_proc = U(op, F_MOUNT_BIND_IN_PROC);
	int mount = tree_of(r, U(op, F_MOUNT_BIND_SLOT), path);
	struct statfs fs;
	struct stat st;
	int at;

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
	at = destination(r, slot_fd(r, U(op, F_MOUNT_BIND_ROOT)), path, S_ISDIR(st.st_mode),
			 in_proc == PROC_ITSELF || in_proc == NO_LINKS, in_proc == IN_PROC || in_proc == PROC_ITSELF);
	if ((U(op, F_MOUNT_BIND_SET) || U(op, F_MOUNT_BIND_CLEAR)) &&
	    k_setattr(mount, "", AT_EMPTY_PATH | (U(op, F_MOUNT_BIND_RECURSIVE) ? AT_RECURSIVE : 0),
		      U(op, F_MOUNT_BIND_SET), U(op, F_MOUNT_BIND_CLEAR), 0))
		fail(r, "mount_setattr", path);
	/* Flags locked by an outer mount stay as they are: said, not fatal, and never less safe. */
	if ((soft_set || soft_clear) && k_setattr(mount, "", AT_EMPTY_PATH, soft_set, soft_clear, 0)) {
		if (errno != EPERM)
			fail(r, "mount_setattr", path);
		note(r, "mount_setattr", path);
	}
	attach(r, mount, at, path, &op->f[F_MOUNT_BIND_PROPAGATION]);
	give_back(r, U(op, F_MOUNT_BIND_SLOT), mount);
}

void op_remount(struct run *r, const struct op *op)
{
	const char *path = S(op, F_REMOUNT_DEST);
	/* No links: the image must not choose which mount loses its flags. */
	int mount = in_root(slot_fd(r, U(op, F_REMOUNT_ROOT)), path, O_PATH, RESOLVE_NO_SYMLINKS);

	if (mount < 0)
		fail(r, "destination", path);
	if (k_setattr(mount, "", AT_EMPTY_PATH, U(op, F_REMOUNT_SET), U(op, F_REMOUNT_CLEAR), 0))
		fail(r, "mount_setattr", path);
	propagate(r, mount, path, &op->f[F_REMOUNT_PROPAGATION]);
	close(mount);
}

void op_device(struct run *r, const struct op *op)
{
	const char *path = S(op, F_DEVICE_PATH), *name;
	mode_t mode = (mode_t)U(op, F_DEVICE_MODE);
	int dir = parent_in_root(slot_fd(r, U(op, F_DEVICE_ROOT)), path, &name);
	int fd;

	if (dir < 0)
		fail(r, "destination", path);
	if (mknodat(dir, name, mode & ~(mode_t)07777, (dev_t)U(op, F_DEVICE_RDEV)) && errno != EEXIST)
		fail(r, "mknodat", path);
	fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
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
	close(dir);
}

void op_symlink(struct run *r, const struct op *op)
{
	const char *path = S(op, F_SYMLINK_PATH), *name;
	int dir = parent_in_root(slot_fd(r, U(op, F_SYMLINK_ROOT)), path, &name);

	if (dir < 0)
		fail(r, "destination", path);
	if (symlinkat(S(op, F_SYMLINK_TARGET), dir, name) && errno != EEXIST)
		fail(r, "symlinkat", path);
	close(dir);
}

/* Files are masked by /dev/null, directories by one empty read-only tmpfs that all share. */
/* Empty, read-only and for every masked directory the same; `label` is an SELinux context or "". */
static int mask_tmpfs(struct run *r, const char *label, const char *path)
{
	char context[256 + sizeof "context="];
	char *options[] = {"size=0k", "nr_blocks=1", "nr_inodes=2", "mode=755", "ro", *label ? context : NULL, NULL};

	snprintf(context, sizeof context, "context=%s", label);
	return new_filesystem(r, "tmpfs", "tmpfs", options,
			      MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, path, 0);
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
	struct stat st;
	int at = in_root(slot_fd(r, U(op, F_MASK_ROOT)), path, O_PATH, 0), tree;

	if (at < 0) {
		if (errno == ENOENT || errno == ENOTDIR)
			return;
		fail(r, "destination", path);
	}
	if (fstat(at, &st))
		fail(r, "fstat", path);
	if (!S_ISDIR(st.st_mode)) {
		int null = tree_of(r, U(op, F_MASK_NULL), path);
		/* What stands for /dev/null must be it (CVE-2025-31133). */
		if (fstat(null, &st) || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3)) {
			errno = ENODEV;
			fail(r, "device", path);
		}
		attach(r, null, at, path, &none);
		give_back(r, U(op, F_MASK_NULL), null);
		return;
	}
	if (tmpfs >= MAX_SLOTS || r->slots[tmpfs] < 0)
		set_slot(r, tmpfs, mask_tmpfs(r, "", path));
	tree = tree_of(r, tmpfs, path);
	attach(r, tree, at, path, &none);
	give_back(r, tmpfs, tree);
}

void op_readonly(struct run *r, const struct op *op)
{
	static const struct field none;
	const char *path = S(op, F_READONLY_PATH);
	int at = in_root(slot_fd(r, U(op, F_READONLY_ROOT)), path, O_PATH, 0), mount;

	if (at < 0) {
		if (errno == ENOENT || errno == ENOTDIR)
			return;
		fail(r, "destination", path);
	}
	mount = k_open_tree(at, "", CLONE_FD | AT_RECURSIVE);
	if (mount < 0)
		fail(r, "open_tree", path);
	if (k_setattr(mount, "", AT_EMPTY_PATH | AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0, 0))
		fail(r, "mount_setattr", path);
	attach(r, mount, at, path, &none);
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
	int at;

	if (!umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW))
		return;
	at = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (at < 0)
		fail(r, "open", path);
	int mount = new_filesystem(r, "tmpfs", "tmpfs", NULL, MOUNT_ATTR_RDONLY, path, 0);
	attach(r, mount, at, path, &none);
	close(mount);
}

void op_pivot(struct run *r, const struct op *op)
{
	int root = slot_fd(r, U(op, F_PIVOT_ROOT));
	uint64_t how = U(op, F_PIVOT_HOW);

	if (fchdir(root))
		fail(r, "fchdir", "/");
	if (how == PIVOT_ROOT) {
		int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

		if (old < 0)
			fail(r, "open", "/");
		/* With "." twice the old root lies on top of the new one: no directory is needed for it. */
		if (syscall(SYS_pivot_root, ".", "."))
			fail(r, "pivot_root", "/");
		/* Its unmount must not travel to the host's mounts: slave before umount. */
		if (fchdir(old) || k_setattr(old, "", AT_EMPTY_PATH | AT_RECURSIVE, 0, 0, MS_SLAVE) ||
		    umount2(".", MNT_DETACH))
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
