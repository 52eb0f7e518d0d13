/* An overlay over the rootfs: what the container writes goes elsewhere, and the rootfs stays as it is. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel.h"
#include "rt.h"

static int directory(struct run *r, int dir, const char *name)
{
	int fd;

	if (mkdirat(dir, name, 0755) && errno != EEXIST)
		fail(r, "mkdirat", name);
	fd = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		fail(r, "open", name);
	return fd;
}

/* A path of the host's, with the caller's own ids. */
void op_directory(struct run *r, const struct op *op)
{
	const char *path = S(op, F_DIRECTORY_PATH);
	int fd;

	if (mkdirat(AT_FDCWD, path, 0700) && errno != EEXIST)
		fail(r, "mkdirat", path);
	fd = openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		fail(r, "open", path);
	set_slot(r, U(op, F_DIRECTORY_SLOT), fd);
}

/* The merged root has the mode and owner of the upper one. An owner that is not mapped stays the maker's. */
static void look_alike(struct run *r, int upper, int root)
{
	struct stat st;
	char link[64];

	snprintf(link, sizeof link, "self/fd/%d", upper);
	if (fstat(root, &st) || fchmodat(r->proc, link, st.st_mode & 07777, 0))
		fail(r, "fchmodat", "upper");
	if (fchownat(upper, "", st.st_uid, st.st_gid, AT_EMPTY_PATH))
		return;
}

/* By descriptor: names may hold commas and colons, and somebody may exchange what they lead to. */
static int set_layer(int fs, const char *key, int fd)
{
	char name[64];

	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	return k_fsconfig(fs, FSCONFIG_SET_STRING, key, name, 0);
}

/* The kernel's overlay; -1 with errno where it refuses and there is a substitute. */
static int kernel_overlay(struct run *r, int lower, int upper, int work, int userxattr, int substitute)
{
	int fs = k_fsopen("overlay"), mount, saved;

	if (fs < 0 && !substitute)
		fail(r, "fsopen", "overlay");
	if (fs < 0)
		return -1;
	if (set_layer(fs, "lowerdir", lower) || set_layer(fs, "upperdir", upper) || set_layer(fs, "workdir", work) ||
	    (userxattr && k_fsconfig(fs, FSCONFIG_SET_FLAG, "userxattr", NULL, 0)) ||
	    k_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0)) {
		if (!substitute)
			fail_context(r, fs, "fsconfig", "/");
		saved = errno;
		close(fs);
		errno = saved;
		return -1;
	}
	mount = k_fsmount(fs, 0);
	if (mount < 0)
		fail_context(r, fs, "fsmount", "/");
	close(fs);
	return mount;
}

/*
 * A filesystem that a program outside will serve, to which the runtime gives the other end. Both ends are of
 * this user namespace, or the kernel would not take them together.
 */
static int served_overlay(struct run *r)
{
	char number[32], *options[] = {number, "rootmode=40000", "user_id=0", "group_id=0", "default_permissions",
				       "allow_other", NULL};
	int device = openat(AT_FDCWD, "/dev/fuse", O_RDWR | O_CLOEXEC), mount;

	if (device < 0)
		fail(r, "open", "/dev/fuse");
	snprintf(number, sizeof number, "fd=%d", device);
	mount = new_filesystem(r, "fuse", options, 0, "/");
	send_message(r, MSG_FUSE, 0, 0, "", "", device);
	close(device);
	return mount;
}

void op_overlay(struct run *r, const struct op *op)
{
	int root = slot_fd(r, U(op, F_OVERLAY_ROOT)), place = root, dir, upper, work, mount, served;
	char *small[] = {"mode=0755", NULL};
	struct stat st;

	if (U(op, F_OVERLAY_DIR) == NO_SLOT) {
		/* Kernels before 6.15 take layers only from mounts that have a place: below the overlay. */
		dir = new_filesystem(r, "tmpfs", small, 0, "/");
		if (k_move_mount(dir, place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))
			fail(r, "move_mount", "/");
		place = dir;
	} else {
		dir = slot_fd(r, U(op, F_OVERLAY_DIR));
	}
	upper = directory(r, dir, "upper");
	work = directory(r, dir, "work");
	look_alike(r, upper, root);
	mount = kernel_overlay(r, root, upper, work, U(op, F_OVERLAY_USERXATTR) != 0, U(op, F_OVERLAY_FUSE) != 0);
	served = mount < 0;
	if (served) {
		note(r, "overlay", "/");
		mount = served_overlay(r);
	}
	if (k_move_mount(mount, place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))
		fail(r, "move_mount", "/");
	/* Waits for the program's first answer; there is none when it has ended. */
	if (served && fstat(mount, &st))
		fail(r, "fuse", "/");
	close(upper);
	close(work);
	set_slot(r, U(op, F_OVERLAY_ROOT), mount);
	r->slots[U(op, F_OVERLAY_ROOT)].tree = ROOTFS;
}

/* Put a copy of a mount, or of the directory that is open, on a directory of `dir`. */
static void put(struct run *r, int tree, int dir, const char *name)
{
	int at = directory(r, dir, name);

	if (k_move_mount(tree, at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))
		fail(r, "move_mount", name);
	close(at);
}

/*
 * For the program that serves an overlay, in a mount namespace of its own: a directory where the layers have
 * names of a few letters, which it can reach whoever it is. /tmp is on every host, and open to all.
 */
void op_layers(struct run *r, const struct op *op)
{
	int lower = slot_fd(r, U(op, F_LAYERS_LOWER)), kept, tree, upper;
	char *small[] = {"mode=0755", NULL};
	int place = new_filesystem(r, "tmpfs", small, 0, "/tmp"), at = openat(AT_FDCWD, "/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (at < 0)
		fail(r, "open", "/tmp");
	if (k_move_mount(place, at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))
		fail(r, "move_mount", "/tmp");
	close(at);
	put(r, lower, place, "lower");
	if (U(op, F_LAYERS_DIR) != NO_SLOT) {
		tree = k_open_tree(slot_fd(r, U(op, F_LAYERS_DIR)), "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
		if (tree < 0)
			fail(r, "open_tree", "kept");
		put(r, tree, place, "kept");
		close(tree);
	}
	kept = directory(r, place, "kept");
	upper = directory(r, kept, "upper");
	close(directory(r, kept, "work"));
	look_alike(r, upper, lower);
	close(upper);
	close(kept);
	set_slot(r, U(op, F_LAYERS_SLOT), place);
}
