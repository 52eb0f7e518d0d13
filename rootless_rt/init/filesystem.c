/* New filesystems: configured, made and put where they belong (fsopen(2), fsconfig(2), fsmount(2)). */
#include <errno.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel.h"
#include "rt.h"

#define VALUE_MAX 255 /* of a string for fsconfig(2) */

/* The kernel says in the context's log what it disliked: "e tmpfs: Bad value for 'mode'". */
void fail_context(struct run *r, int fs, const char *call, const char *path)
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

/*
 * A directory of an overlay whose path is longer than fsconfig(2) takes: by descriptor (Linux 6.13), else
 * by the descriptor's name, which is short. The descriptor stays open until all are closed.
 */
static void set_directory(struct run *r, int fs, const char *key, const char *value, const char *path)
{
	char name[PATH_MAX];
	size_t length = 0;
	int fd, plain = strchr(key, '+') != NULL; /* there a backslash escapes nothing */

	for (const char *c = value; *c; c++) {
		if (*c == '\\' && c[1] && !plain)
			c++;
		if (length >= sizeof name - 1) {
			errno = ENAMETOOLONG;
			fail(r, "fsconfig", path);
		}
		name[length++] = *c;
	}
	name[length] = 0;
	fd = openat(AT_FDCWD, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		fail(r, "open", name);
	if (!k_fsconfig(fs, FSCONFIG_SET_FD, key, NULL, fd)) {
		close(fd);
		return;
	}
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	if (k_fsconfig(fs, FSCONFIG_SET_STRING, key, name, 0))
		fail_context(r, fs, "fsconfig", path);
}

/* One option, "word" or "key=value". */
void set_option(struct run *r, int fs, const char *option, const char *path)
{
	char key[VALUE_MAX + 1];
	const char *equals = strchr(option, '=');
	size_t length = equals ? (size_t)(equals - option) : 0;

	if (!equals) {
		if (k_fsconfig(fs, FSCONFIG_SET_FLAG, option, NULL, 0))
			fail_context(r, fs, "fsconfig", path);
		return;
	}
	if (length >= sizeof key) {
		errno = EINVAL;
		fail(r, "fsconfig", path);
	}
	memcpy(key, option, length);
	key[length] = 0;
	if (strlen(equals + 1) > VALUE_MAX)
		set_directory(r, fs, key, equals + 1, path); /* the plan lets no others be that long */
	else if (k_fsconfig(fs, FSCONFIG_SET_STRING, key, equals + 1, 0))
		fail_context(r, fs, "fsconfig", path);
}

/* A filesystem in the making, or -1 where the caller has a substitute and the kernel says EPERM. */
static int open_filesystem(struct run *r, const char *type, const char *source, char **data, const char *path,
			   int substitute)
{
	int fs = k_fsopen(type);

	if (fs < 0 && substitute && errno == EPERM)
		return -1;
	if (fs < 0)
		fail(r, "fsopen", type);
	if (*source && k_fsconfig(fs, FSCONFIG_SET_STRING, "source", source, 0))
		fail_context(r, fs, "fsconfig", path);
	for (; data && *data; data++)
		set_option(r, fs, *data, path);
	return fs;
}

/* Its mount; -1 as above. */
static int make_filesystem(struct run *r, int fs, uint64_t attrs, const char *path, int substitute)
{
	int mount;

	if (k_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0)) {
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

int new_filesystem(struct run *r, const char *type, char **data, uint64_t attrs, const char *path)
{
	return make_filesystem(r, open_filesystem(r, type, type, data, path, 0), attrs, path, 0);
}

/* What the tmpfs takes from a directory that was there before; a new one has nothing to give. */
static void mode_of(struct run *r, int root, const char *path, char *mode, size_t size)
{
	struct stat st;
	int there = in_root(root, path, O_PATH | O_DIRECTORY, 0);

	mode[0] = 0;
	if (there < 0)
		return;
	if (fstat(there, &st))
		fail(r, "fstat", path);
	close(there);
	snprintf(mode, size, "%o", (unsigned)st.st_mode & 07777);
}

static void set_number(struct run *r, int fs, const char *key, const char *number, const char *path)
{
	if (*number && k_fsconfig(fs, FSCONFIG_SET_STRING, key, number, 0))
		fail_context(r, fs, "fsconfig", path);
}

static void fill(struct run *r, int mount, int at, const char *path, uint64_t what, uint64_t attrs)
{
	copy_up(r, at, mount, path, (what & DEST_OWNER) != 0);
	if (attrs & MOUNT_ATTR_RDONLY && k_setattr(mount, "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY, 0, 0))
		fail(r, "mount_setattr", path);
}

/* Not of a filesystem that somebody serves: fstat(2) would wait for the answer. */
static void remember(struct run *r, int mount)
{
	struct stat st;

	if (r->plan.reconfigures && r->made_count < MAX_MADE && !fstat(mount, &st))
		r->made[r->made_count++] = st.st_dev;
}

/* What is made in it is made in memory, and it is empty: whatever is found in it later has this plan put there. */
static int takes_files(const char *type, uint64_t attrs)
{
	return !strcmp(type, "tmpfs") && !(attrs & MOUNT_ATTR_RDONLY);
}

/* Before it is known where it goes: a later `mount_bind` says so. */
void op_new_fs(struct run *r, const struct op *op)
{
	const char *type = S(op, F_NEW_FS_FSTYPE);
	char *room[FEW], **data = few_strings(&op->f[F_NEW_FS_DATA], NULL, room);
	int fs = open_filesystem(r, type, S(op, F_NEW_FS_SOURCE), data, type, 0);
	int mount = make_filesystem(r, fs, U(op, F_NEW_FS_ATTRS), type, 0);

	if (data != room)
		free(data);
	remember(r, mount);
	set_slot(r, U(op, F_NEW_FS_SLOT), mount);
	r->slots[U(op, F_NEW_FS_SLOT)].tree = LOOSE;
	if (takes_files(type, U(op, F_NEW_FS_ATTRS)))
		keep_own(r, &(struct place){.root = U(op, F_NEW_FS_SLOT), .path = "", .plain = 1}, mount, 1);
}

/* It has found its place: whether its descriptor is still needed. */
static int is_kept(struct run *r, const struct op *op, const struct place *at, int mount, int made)
{
	uint64_t keep = U(op, F_MOUNT_FS_KEEP);
	int fits = made && !(U(op, F_MOUNT_FS_FROM_DEST) & DEST_CONTENT) &&
		   takes_files(S(op, F_MOUNT_FS_FSTYPE), U(op, F_MOUNT_FS_ATTRS));

	if (keep != NO_SLOT) {
		set_slot(r, keep, mount);
		r->slots[keep].tree = PLACED;
	}
	return (fits && keep_own(r, at, mount, keep != NO_SLOT)) || keep != NO_SLOT;
}

void op_mount_fs(struct run *r, const struct op *op)
{
	const char *path = S(op, F_MOUNT_FS_DEST);
	int root = slot_fd(r, U(op, F_MOUNT_FS_ROOT)), mount = -1, made = 0, fs;
	uint64_t fallback = U(op, F_MOUNT_FS_FALLBACK), attrs = U(op, F_MOUNT_FS_ATTRS);
	uint64_t what = U(op, F_MOUNT_FS_FROM_DEST), descriptor = U(op, F_MOUNT_FS_DESCRIPTOR);
	struct place at;
	char mode[16] = "", number[16] = "", *room[FEW], **data = few_strings(&op->f[F_MOUNT_FS_DATA], NULL, room);

	if (what & DEST_MODE)
		mode_of(r, root, path, mode, sizeof mode);
	if (descriptor != NO_SLOT)
		snprintf(number, sizeof number, "%d", slot_fd(r, descriptor));
	if (what & DEST_CONTENT)
		forget_all(r); /* it is copied from the place itself, which is not open in a directory of the plan's */
	at = destination(r, U(op, F_MOUNT_FS_ROOT), path, 1, U(op, F_MOUNT_FS_STRICT) != 0,
			 U(op, F_MOUNT_FS_IN_PROC) != 0);
	fs = open_filesystem(r, S(op, F_MOUNT_FS_FSTYPE), S(op, F_MOUNT_FS_SOURCE), data, path, fallback != NO_SLOT);
	if (data != room)
		free(data);
	if (fs >= 0) {
		set_number(r, fs, "mode", mode, path);
		set_number(r, fs, "fd", number, path);
		mount = make_filesystem(r, fs, what & DEST_CONTENT ? attrs & ~(uint64_t)MOUNT_ATTR_RDONLY : attrs,
					path, fallback != NO_SLOT);
	}
	made = mount >= 0;
	if (!made) {
		note(r, "fsopen", path);
		mount = tree_of(r, fallback, path);
		if (k_setattr(mount, "", AT_EMPTY_PATH | AT_RECURSIVE,
			      (attrs & ~(uint64_t)(MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME)) | MOUNT_ATTR_RDONLY, 0, 0))
			fail(r, "mount_setattr", path);
	} else if (descriptor == NO_SLOT) {
		remember(r, mount);
	}
	if (what & DEST_CONTENT)
		fill(r, mount, at.fd, path, what, attrs);
	attach(r, mount, &at, &op->f[F_MOUNT_FS_PROPAGATION]);
	if (!is_kept(r, op, &at, mount, made))
		give_back(r, fallback, mount);
}
