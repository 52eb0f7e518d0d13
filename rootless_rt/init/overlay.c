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
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
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

void op_overlay(struct run *r, const struct op *op)
{
	int root = slot_fd(r, U(op, F_OVERLAY_ROOT)), place = root, dir, upper, work, mount;
	char lowerdir[64], upperdir[64], workdir[64];
	char *small[] = {"mode=0755", NULL};
	char *options[] = {lowerdir, upperdir, workdir, U(op, F_OVERLAY_USERXATTR) ? "userxattr" : NULL, NULL};

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
	/* By descriptor: names may hold commas and colons, and somebody may exchange what they lead to. */
	snprintf(lowerdir, sizeof lowerdir, "lowerdir=/proc/self/fd/%d", root);
	snprintf(upperdir, sizeof upperdir, "upperdir=/proc/self/fd/%d", upper);
	snprintf(workdir, sizeof workdir, "workdir=/proc/self/fd/%d", work);
	mount = new_filesystem(r, "overlay", options, 0, "/");
	if (k_move_mount(mount, place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))
		fail(r, "move_mount", "/");
	close(upper);
	close(work);
	set_slot(r, U(op, F_OVERLAY_ROOT), mount);
}
