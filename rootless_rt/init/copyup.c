/*
 * tmpcopyup: fill a new tmpfs with what it is going to cover.
 *
 * The directory may be changed by others meanwhile, and its content is the image's: each entry is opened
 * once, as itself (no link is followed, no device or FIFO opened, nothing that is mounted below entered), and
 * all further work is on that descriptor. The tmpfs is nobody else's yet.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "rt.h"

#define NO_INLINE __attribute__((noinline)) /* its buffers are not to be on every level of the stack */
#define MAX_DEPTH 256 /* each level holds a descriptor and some stack */
#define NAMES_SIZE 8192
#define DATA_SIZE (1 << 16)
#define ATTRIBUTE_SIZE (1 << 16)
#define LINK_LISTS 1024
#define MAX_LINKED 100000 /* beyond it, and in names longer than a path, each name gets a copy */

/* The kernel's struct linux_dirent64. */
struct entry {
	uint64_t inode;
	int64_t next;
	uint16_t length;
	unsigned char type;
	char name[];
};

/* A file of several names that has been copied by its first one. */
struct linked {
	struct linked *next;
	dev_t device;
	ino_t inode;
	char path[]; /* below the new filesystem */
};

struct copy {
	struct run *r;
	const char *path; /* of the mount, for reports */
	char *data, *attribute, *attributes;
	int target; /* the new filesystem's root */
	int left_out;
	unsigned links;
	struct linked *linked[LINK_LISTS];
	char at[PATH_MAX]; /* where the copy is, below the new filesystem; too deep for it: no links are made */
	size_t length;
};

static _Noreturn void copy_failed(struct copy *c, const char *name)
{
	char text[PATH_MAX];
	int saved = errno;

	snprintf(text, sizeof text, "%s: %s", c->path, name);
	errno = saved;
	fail(c->r, "tmpcopyup", text);
}

/* Open what `entry` (O_PATH) stands for: by the verified /proc, since its name may be another file's by now. */
static int reopen(struct copy *c, int entry, int flags)
{
	char link[64];

	snprintf(link, sizeof link, "self/fd/%d", entry);
	return openat(c->r->proc, link, flags | O_CLOEXEC);
}

/* What others could not do without keeps away quietly: filesystems differ in the attributes they take. */
static void copy_attributes(struct copy *c, int from, int to, int owned)
{
	ssize_t size = flistxattr(from, c->attributes, ATTRIBUTE_SIZE), n;

	for (char *name = c->attributes; size > 0 && name < c->attributes + size; name += strlen(name) + 1) {
		/* Capabilities of a file only for the owner they were meant for; labels are the mount's. */
		if (strncmp(name, "user.", 5) && strncmp(name, "system.posix_acl_", 17) &&
		    (strcmp(name, "security.capability") || !owned))
			continue;
		n = fgetxattr(from, name, c->attribute, ATTRIBUTE_SIZE);
		if (n >= 0)
			fsetxattr(to, name, c->attribute, (size_t)n, 0);
	}
}

/* Owner, mode and times, in this order: a change of owner takes setuid bits away. */
static void finish(struct copy *c, int to, const struct stat *st, const char *name, int from)
{
	struct timespec times[2] = {st->st_atim, st->st_mtim};
	mode_t mode = st->st_mode & 07777;
	/* An owner whom this user namespace does not have: then nobody is to gain its rights. */
	int owned = !fchown(to, st->st_uid, st->st_gid);

	if (!owned && errno != EINVAL && errno != EPERM)
		copy_failed(c, name);
	if (!owned)
		mode &= ~(mode_t)(S_ISUID | S_ISGID);
	if (fchmod(to, mode))
		copy_failed(c, name);
	copy_attributes(c, from, to, owned);
	futimens(to, times);
}

static void copy_range(struct copy *c, int from, int to, off_t at, off_t end, const char *name)
{
	while (at < end) {
		off_t rest = end - at;
		ssize_t n = pread(from, c->data, rest < DATA_SIZE ? (size_t)rest : DATA_SIZE, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			copy_failed(c, name);
		if (!n)
			return; /* it has become shorter */
		for (ssize_t done = 0, w; done < n; done += w) {
			w = pwrite(to, c->data + done, (size_t)(n - done), at + done);
			if (w < 0 && errno == EINTR)
				w = 0;
			if (w < 0)
				copy_failed(c, name);
		}
		at += n;
	}
}

/* No more than the size it had at first, and holes stay holes: neither a growing nor a sparse file fills us. */
static NO_INLINE void copy_file(struct copy *c, int entry, int to_dir, const char *name, const struct stat *st)
{
	int from = reopen(c, entry, O_RDONLY | O_NONBLOCK | O_NOCTTY), to;
	off_t data = 0, hole;

	if (from < 0)
		copy_failed(c, name);
	to = openat(to_dir, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (to < 0 || ftruncate(to, st->st_size))
		copy_failed(c, name);
	while (data < st->st_size) {
		data = lseek(from, data, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			break; /* a hole up to the end */
		if (data < 0)
			data = 0, hole = st->st_size; /* a filesystem that knows of no holes */
		else
			hole = lseek(from, data, SEEK_HOLE);
		if (hole < 0 || hole > st->st_size)
			hole = st->st_size;
		copy_range(c, from, to, data, hole, name);
		data = hole;
	}
	finish(c, to, st, name, from);
	close(from);
	close(to);
}

/*
 * A further name of a file that is there already: 1. Else its first name is noted. The tmpfs is ours alone:
 * in it a path leads where it led.
 */
static int link_file(struct copy *c, int to_dir, const char *name, const struct stat *st)
{
	struct linked **list = &c->linked[st->st_ino % LINK_LISTS], *found;
	size_t size = strlen(name) + 1;

	for (found = *list; found; found = found->next)
		if (found->inode == st->st_ino && found->device == st->st_dev)
			return !linkat(c->target, found->path, to_dir, name, 0);
	if (c->length + 1 + size > sizeof c->at || c->links >= MAX_LINKED)
		return 0;
	found = malloc(sizeof *found + c->length + 1 + size);
	if (!found)
		return 0;
	found->device = st->st_dev;
	found->inode = st->st_ino;
	memcpy(found->path, c->at, c->length);
	memcpy(found->path + c->length, name, size);
	found->next = *list;
	*list = found;
	c->links++;
	return 0;
}

static NO_INLINE void copy_link(struct copy *c, int entry, int to_dir, const char *name, const struct stat *st)
{
	char target[PATH_MAX];
	struct timespec times[2] = {st->st_atim, st->st_mtim};
	ssize_t n = readlinkat(entry, "", target, sizeof target - 1);

	if (n < 0)
		copy_failed(c, name);
	target[n] = 0;
	if (symlinkat(target, to_dir, name))
		copy_failed(c, name);
	if (fchownat(to_dir, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) && errno != EINVAL && errno != EPERM)
		copy_failed(c, name);
	utimensat(to_dir, name, times, AT_SYMLINK_NOFOLLOW);
}

static void copy_fifo(struct copy *c, int to_dir, const char *name, const struct stat *st)
{
	if (mknodat(to_dir, name, S_IFIFO | (st->st_mode & 0777), 0))
		copy_failed(c, name);
	if (fchownat(to_dir, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) && errno != EINVAL && errno != EPERM)
		copy_failed(c, name);
}

static void copy_directory(struct copy *c, int from, int to, int depth);

static void enter(struct copy *c, const char *name)
{
	size_t size = strlen(name);

	if (c->length + size + 1 < sizeof c->at) {
		memcpy(c->at + c->length, name, size);
		c->at[c->length + size] = '/';
		c->length += size + 1;
	} else {
		c->length = sizeof c->at;
	}
}

static void copy_entry(struct copy *c, int from, int to, const char *name, int depth)
{
	int entry = beneath(from, name), down, made;
	struct stat st;
	size_t before;

	/* Something is mounted on it: a volume of any size, or what should not be seen below it. */
	if (entry < 0 && errno == EXDEV) {
		c->left_out = 1;
		return;
	}
	if (entry < 0 && errno == ENOENT)
		return; /* removed since it was listed */
	if (entry < 0 || fstat(entry, &st))
		copy_failed(c, name);
	switch (st.st_mode & S_IFMT) {
	case S_IFREG:
		if (st.st_nlink < 2 || !link_file(c, to, name, &st))
			copy_file(c, entry, to, name, &st);
		break;
	case S_IFLNK: copy_link(c, entry, to, name, &st); break;
	case S_IFIFO: copy_fifo(c, to, name, &st); break;
	case S_IFDIR:
		if (mkdirat(to, name, 0700))
			copy_failed(c, name);
		made = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		down = openat(entry, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (made < 0 || down < 0)
			copy_failed(c, name);
		close(entry);
		before = c->length;
		enter(c, name);
		copy_directory(c, down, made, depth + 1);
		c->length = before;
		finish(c, made, &st, name, down);
		close(down);
		close(made);
		return;
	default: c->left_out = 1; /* a device of the image's, or a socket that nobody serves */
	}
	close(entry);
}

static void copy_directory(struct copy *c, int from, int to, int depth)
{
	char *names = malloc(NAMES_SIZE);
	long n;

	if (depth > MAX_DEPTH) {
		errno = ELOOP;
		fail(c->r, "tmpcopyup-depth", c->path);
	}
	if (!names)
		copy_failed(c, "memory");
	while ((n = syscall(SYS_getdents64, from, names, NAMES_SIZE)) > 0) {
		for (long at = 0; at < n;) {
			struct entry *entry = (struct entry *)(names + at);

			at += entry->length;
			if (strcmp(entry->name, ".") && strcmp(entry->name, ".."))
				copy_entry(c, from, to, entry->name, depth);
		}
	}
	if (n < 0 && errno != ENOENT)
		copy_failed(c, "readdir");
	free(names);
}

/* Copy what is in the directory `from` into the mount `to`; its owner as well if that is asked. */
void copy_up(struct run *r, int from, int to, const char *path, int owner)
{
	static struct copy c; /* a run has one thread, and what is noted here is of one mount */
	int source = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int target = openat(to, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	memset(&c, 0, sizeof c);
	c.r = r;
	c.path = path;
	c.target = target;
	c.data = malloc(DATA_SIZE);
	c.attribute = malloc(ATTRIBUTE_SIZE);
	c.attributes = malloc(ATTRIBUTE_SIZE);
	if (source < 0 || target < 0 || !c.data || !c.attribute || !c.attributes || fstat(source, &st))
		copy_failed(&c, ".");
	/* A limit on the size of files (RLIMIT_FSIZE) is to be an error, not a death. */
	signal(SIGXFSZ, SIG_IGN);
	copy_directory(&c, source, target, 0);
	signal(SIGXFSZ, SIG_DFL);
	if (owner && fchown(target, st.st_uid, st.st_gid) && errno != EINVAL && errno != EPERM)
		copy_failed(&c, ".");
	copy_attributes(&c, source, target, 0);
	close(source);
	close(target);
	free(c.data);
	free(c.attribute);
	free(c.attributes);
	for (int i = 0; i < LINK_LISTS; i++) {
		for (struct linked *linked = c.linked[i], *next; linked; linked = next) {
			next = linked->next;
			free(linked);
		}
	}
	if (c.left_out) {
		errno = EPERM;
		note(r, "tmpcopyup", path);
	}
}
