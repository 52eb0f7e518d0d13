/*
 * Places: where in the rootfs a mount, a device or a link goes.
 *
 * A tmpfs that this plan has just mounted is empty, and the container's alone. Its root is kept open, and what goes
 * directly into it is made there by its name: nothing has to be looked up from the rootfs again. Such a directory is
 * forgotten as soon as its path may lead elsewhere:
 *
 * - when something is mounted on the path or above it;
 * - when a link was followed on the way to such a place: it may have led there;
 * - when a mount tells others what is mounted on it (propagation): it may appear there, too;
 * - before every op of which main.c does not know that it mounts nothing but through attach().
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "kernel.h"
#include "rt.h"

static int is_loose(const struct run *r, uint64_t slot)
{
	return slot < MAX_SLOTS && r->slots[slot].tree == LOOSE;
}

static void drop(struct run *r, uint32_t i)
{
	if (!r->own[i].borrowed)
		close(r->own[i].fd);
	r->own[i] = r->own[--r->own_count];
}

void forget_all(struct run *r)
{
	while (r->own_count)
		drop(r, 0);
}

static int has_dots(const char *path)
{
	for (size_t n; *path; path += n) {
		path += strspn(path, "/");
		n = strcspn(path, "/");
		if ((n == 1 || n == 2) && !strncmp(path, "..", n))
			return 1;
	}
	return 0;
}

/* Whether `path` is `above`, or below it; or may be, where that is not plain from the names. */
static int is_within(const char *path, const char *above)
{
	size_t n, m;

	if (has_dots(path) || has_dots(above))
		return 1;
	for (;; path += n, above += m) {
		path += strspn(path, "/");
		above += strspn(above, "/");
		n = strcspn(path, "/");
		m = strcspn(above, "/");
		if (!m)
			return 1;
		if (n != m || memcmp(path, above, n))
			return 0;
	}
}

/* Something has been mounted there. A loose tree is part of no other, so that nothing in it covers another's. */
static void forget_within(struct run *r, uint64_t root, const char *path)
{
	for (uint32_t i = r->own_count; i--;) {
		const struct own *o = &r->own[i];
		if (o->root == root ? is_within(o->path, path) : !is_loose(r, root) && !is_loose(r, o->root))
			drop(r, i);
	}
}

/* A loose tree becomes part of another: what is in it has two paths now. */
void forget_tree(struct run *r, uint64_t root)
{
	for (uint32_t i = r->own_count; i--;)
		if (r->own[i].root == root)
			drop(r, i);
}

int keep_own(struct run *r, const struct place *p, int mount, int borrowed)
{
	int known = is_loose(r, p->root) || r->slots[p->root].tree == ROOTFS;

	if (!r->apart || !p->plain || !known || r->own_count == MAX_OWN)
		return 0;
	r->own[r->own_count++] = (struct own){p->path, p->root, mount, borrowed};
	return 1;
}

/* The own directory that `path` is directly in, and the name in it; or NULL. */
static const struct own *own_directory(const struct run *r, uint64_t root, const char *path, const char **name)
{
	for (uint32_t i = 0; i < r->own_count; i++) {
		size_t length = strlen(r->own[i].path);
		if (r->own[i].root != root || strncmp(path, r->own[i].path, length) || path[length] != '/')
			continue;
		*name = path + length + 1;
		if (**name && !strchr(*name, '/') && !has_dots(*name))
			return &r->own[i];
	}
	return NULL;
}

/* A place made in an own directory, where nothing was; 0 where the path is to be looked up. */
static int make_own(const struct run *r, struct place *p, int directory)
{
	const char *name;
	const struct own *o = own_directory(r, p->root, p->path, &name);

	/* Without a link as the last part: such a name would be there already. */
	if (!o || (directory ? mkdirat(o->fd, name, 0755) : mknodat(o->fd, name, S_IFREG | 0644, 0)))
		return 0;
	p->fd = o->fd;
	p->name = name;
	p->plain = p->own = 1;
	return 1;
}

void leave(const struct place *p)
{
	if (!p->own)
		close(p->fd);
}

/*
 * A link in the image can lead a mount into /proc, where a file of the attacker's would stand in
 * for a file of the kernel's (CVE-2019-16884, CVE-2025-52881): only destinations that the plan
 * knows to be in /proc may end on procfs.
 */
static int checked(struct run *r, int fd, const char *path, int directory, int in_proc)
{
	struct statfs fs;
	struct stat st;

	if (fd < 0)
		fail(r, "destination", path);
	if (!in_proc && (fstatfs(fd, &fs) || fs.f_type == PROC_SUPER_MAGIC)) {
		errno = EPERM;
		fail(r, "inside-proc", path);
	}
	/* The kernel would say EINVAL, which says nothing. */
	if (fstat(fd, &st) || !directory != !S_ISDIR(st.st_mode)) {
		errno = directory ? ENOTDIR : EISDIR;
		fail(r, "destination", path);
	}
	return fd;
}

struct place destination(struct run *r, uint64_t root, const char *path, int directory, int strict, int in_proc)
{
	struct place p = {.root = root, .path = path, .name = "", .fd = -1};
	int base = slot_fd(r, root);

	if (make_own(r, &p, directory))
		return p;
	p.fd = make_in_root(base, path, directory, RESOLVE_NO_SYMLINKS);
	p.plain = p.fd >= 0;
	if (p.fd < 0 && errno == ELOOP && !strict) {
		forget_all(r);
		p.fd = make_in_root(base, path, directory, 0);
	}
	checked(r, p.fd, path, directory, in_proc);
	return p;
}

struct place symlink_destination(struct run *r, uint64_t root, const char *path, int directory, int in_proc)
{
	struct place p = {.root = root, .path = path, .name = "", .fd = -1};
	int base = slot_fd(r, root);

	if (make_own(r, &p, directory))
		return p;
	p.fd = make_last_in_root(base, path, directory, r->own_count ? RESOLVE_NO_SYMLINKS : 0);
	if (p.fd < 0 && errno == ELOOP && r->own_count) {
		forget_all(r);
		p.fd = make_last_in_root(base, path, directory, 0);
	}
	checked(r, p.fd, path, directory, in_proc);
	return p;
}

/* What is there already: its descriptor is -1, with errno, where nothing is. */
struct place existing(struct run *r, uint64_t root, const char *path)
{
	struct place p = {.root = root, .path = path, .name = "", .fd = -1};
	int base = slot_fd(r, root);

	p.fd = in_root(base, path, O_PATH, r->own_count ? RESOLVE_NO_SYMLINKS : 0);
	if (p.fd < 0 && errno == ELOOP && r->own_count) {
		forget_all(r);
		p.fd = in_root(base, path, O_PATH, 0);
	}
	return p;
}

/* The directory that something is made in, by its `name`, which is no mount. It may have been reached by a link. */
struct place parent(struct run *r, uint64_t root, const char *path)
{
	struct place p = {.root = root, .path = path};
	const struct own *o = own_directory(r, root, path, &p.name);

	p.own = o != NULL;
	p.fd = o ? o->fd : parent_in_root(slot_fd(r, root), path, &p.name, 0);
	if (p.fd < 0)
		fail(r, "destination", path);
	return p;
}

void attach(struct run *r, int mount, const struct place *p, const struct field *propagation)
{
	/* Of a name the last part is not followed, were it a link by now. */
	unsigned to = *p->name ? 0 : MOVE_MOUNT_T_EMPTY_PATH;

	if (k_move_mount(mount, p->fd, p->name, MOVE_MOUNT_F_EMPTY_PATH | to))
		fail(r, "move_mount", p->path);
	leave(p);
	forget_within(r, p->root, p->path);
	propagate(r, mount, p->path, propagation);
}
