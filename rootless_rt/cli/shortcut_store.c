/* The state root and a container's directory, with the checks of container/store.py. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shortcut.h"

#define DIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define PLAIN_FILE (O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
#define LARGEST (16 << 20) /* store.py, _MAX_STATE */

/* store.py, check_id. */
static int is_id(const char *id)
{
	size_t length = strlen(id);

	return length && length <= NAME_MAX && strcmp(id, ".") && strcmp(id, "..") &&
	       strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-") == length;
}

/* Whether paths.normal leaves it as it is: nothing to do for a path of an engine. */
static int is_normal(const char *path)
{
	if (*path != '/')
		return 0;
	while (*path) {
		const char *part = path + 1;
		path = strchrnul(part, '/');
		size_t length = (size_t)(path - part);
		if (!length || (length == 1 && *part == '.') || (length == 2 && part[0] == '.' && part[1] == '.'))
			return 0;
	}
	return 1;
}

/* Reads all there is of a small file; -1 when it is larger or cannot be read. */
ssize_t read_small(int fd, char *bytes, size_t size)
{
	size_t used = 0;
	ssize_t got;

	while ((got = read(fd, bytes + used, size - used)) > 0)
		if ((used += (size_t)got) == size)
			return -1;
	return got < 0 ? -1 : (ssize_t)used;
}

/* idmap/userns.py, in_user_namespace: 1, 0, or -1 when it cannot be read. */
int in_user_namespace(void)
{
	char bytes[4096], rest;
	unsigned long inside, outside, count;
	int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read_small(fd, bytes, sizeof bytes - 1);

	if (fd >= 0)
		close(fd);
	if (length < 0)
		return -1;
	bytes[length] = '\0';
	int fields = sscanf(bytes, "%lu %lu %lu %c", &inside, &outside, &count, &rest);
	return !(fields == 3 && inside == 0 && outside == 0 && count == UINT32_MAX);
}

/* store.py and cache.py: whether nobody else can have made it, or write it. */
int is_safe(const struct stat *status)
{
	return status->st_uid == geteuid() && !(status->st_mode & 022);
}

/* store.py, _is_ours. */
static int is_ours(const char *path)
{
	struct stat status;

	return !stat(path, &status) && S_ISDIR(status.st_mode) && is_safe(&status);
}

/* store.py, default_root. */
static int default_root(char *path, size_t size)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR"), *home = getenv("HOME");
	unsigned uid = geteuid();
	int length, inside = uid ? 1 : in_user_namespace();

	if (inside < 0)
		return 0;
	if (!inside) {
		length = snprintf(path, size, "/run/rt");
	} else if (runtime && *runtime == '/' && is_ours(runtime)) {
		length = snprintf(path, size, "%s/rt", runtime);
	} else {
		snprintf(path, size, "/run/user/%u", uid);
		if (is_ours(path))
			length = snprintf(path, size, "/run/user/%u/rt", uid);
		else if (home && *home == '/' && home[1] && is_ours(home) && !access(home, W_OK))
			length = snprintf(path, size, "%s/.rt/run", home);
		else
			length = snprintf(path, size, "/tmp/rt-%u", uid);
	}
	return length > 0 && (size_t)length < size;
}

/* store.py, _open_root and _check_root. */
static enum found open_root(const char *given, int *fd)
{
	char usual[PATH_MAX];
	struct stat link, status;

	if (given ? !is_normal(given) : !default_root(usual, sizeof usual))
		return ODD;
	const char *path = given ? given : usual;
	*fd = open(path, given ? DIRECTORY & ~O_NOFOLLOW : DIRECTORY);
	if (*fd < 0)
		return errno == ENOENT ? MISSING : ODD;
	if (lstat(path, &link) || (S_ISLNK(link.st_mode) && link.st_uid && link.st_uid != geteuid()))
		return ODD;
	if (fstat(*fd, &status) || !is_safe(&status))
		return ODD;
	return FOUND;
}

/* store.py, find. */
enum found find_container(const struct call *call, struct container *box)
{
	struct stat status;

	if (!is_id(call->id))
		return ODD;
	enum found root = open_root(call->root, &box->root);
	if (root != FOUND)
		return root;
	box->directory = openat(box->root, call->id, DIRECTORY);
	if (box->directory < 0)
		return errno == ENOENT ? MISSING : ODD;
	return !fstat(box->directory, &status) && status.st_uid == geteuid() ? FOUND : ODD;
}

/* store.py, exists. */
static int is_still_there(const struct container *box, const char *id)
{
	struct stat named, open;

	return !fstatat(box->root, id, &named, AT_SYMLINK_NOFOLLOW) && !fstat(box->directory, &open) &&
	       named.st_dev == open.st_dev && named.st_ino == open.st_ino;
}

/* store.py, lock(wait=False): waiting for whoever holds it is Python's. */
int lock_container(const struct container *box, const char *id)
{
	return !flock(box->directory, LOCK_EX | LOCK_NB) && is_still_there(box, id);
}

/* common.py, tell_of_root: whether Python has to say where containers are kept. */
static int is_told_of(const char *usual)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char expected[PATH_MAX];

	if (!runtime || !*runtime || !strcmp(usual, "/run/rt"))
		return 0;
	snprintf(expected, sizeof expected, "%s/rt", runtime);
	return strcmp(usual, expected);
}

/* store.py, create, in a state root that is there: the container's directory, new and locked. */
int make_container(const struct call *call, struct container *box)
{
	char usual[PATH_MAX];
	struct stat status;

	if (!is_id(call->id) || (!call->root && (!default_root(usual, sizeof usual) || is_told_of(usual))))
		return 0;
	if (open_root(call->root, &box->root) != FOUND || mkdirat(box->root, call->id, 0711))
		return 0;
	box->directory = openat(box->root, call->id, DIRECTORY);
	if (box->directory < 0)
		unlinkat(box->root, call->id, AT_REMOVEDIR);
	return box->directory >= 0 && !fstat(box->directory, &status) && status.st_uid == geteuid() &&
	       relock_container(box, call->id);
}

/* store.py, lock: waits for whoever has it; 0 when the container is gone. */
int relock_container(const struct container *box, const char *id)
{
	int locked;

	while ((locked = flock(box->directory, LOCK_EX)) < 0 && errno == EINTR)
		;
	return !locked && is_still_there(box, id);
}

/* All of a plain file of at most `most` bytes; with `ours` one that only we can have written. NULL for all else. */
char *read_file(int directory, const char *name, int ours, size_t most, size_t *length)
{
	struct stat status;
	int fd = openat(directory, name, PLAIN_FILE | (ours ? O_NOFOLLOW : 0));

	if (fd < 0)
		return NULL;
	char *bytes = NULL;
	if (!fstat(fd, &status) && S_ISREG(status.st_mode) && (!ours || is_safe(&status)) &&
	    (size_t)status.st_size <= most)
		bytes = malloc((size_t)status.st_size + 1);
	ssize_t got = bytes ? read_small(fd, bytes, (size_t)status.st_size + 1) : -1;
	close(fd);
	if (got < 0) {
		free(bytes);
		return NULL;
	}
	*length = (size_t)got;
	return bytes;
}

static uint64_t nanoseconds(const struct timespec *time)
{
	return (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec;
}

/* The record, if it was made from the state.json that is there now. It stays: the container's texts lie in it. */
int load_container(struct container *box)
{
	struct stat state;
	const uint64_t *numbers = box->record.numbers;
	size_t size;
	const char *bytes = read_file(box->directory, RECORD_NAME, 1, RECORD_LIMIT, &size);

	if (!bytes || !read_record(bytes, size, &box->record))
		return 0;
	if (strcmp(box->record.texts[T_VERSION].at, RT_RELEASE))
		return 0;
	return !fstatat(box->directory, "state.json", &state, AT_SYMLINK_NOFOLLOW) && S_ISREG(state.st_mode) &&
	       is_safe(&state) && numbers[N_STATE_INODE] == state.st_ino &&
	       numbers[N_STATE_SIZE] == (uint64_t)state.st_size &&
	       numbers[N_STATE_MTIME] == nanoseconds(&state.st_mtim) &&
	       numbers[N_STATE_CTIME] == nanoseconds(&state.st_ctim);
}

/*
 * Whether the saved config.json has no hooks of that kind: the name, in quotes, is nowhere in it, nor is a letter
 * of it written as an escape.
 */
int names_no_hook(const struct container *box, const char *kind)
{
	size_t length;
	char *text = read_file(box->directory, "config.json", 1, LARGEST, &length);
	int none = text && length && !memmem(text, length, kind, strlen(kind)) && !memmem(text, length, "\\u006", 5) &&
		   !memmem(text, length, "\\u007", 5);

	free(text);
	return none;
}

/* A directory of its own (of an overlay, of NOTIFY_SOCKET) takes more than unlink(2). */
static DIR *entries_of(const struct container *box)
{
	int fd = openat(box->directory, ".", DIRECTORY);
	DIR *entries = fd < 0 ? NULL : fdopendir(fd);

	if (!entries && fd >= 0)
		close(fd);
	return entries;
}

static int is_itself(const struct dirent *entry)
{
	return !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
}

int holds_only_files(const struct container *box)
{
	DIR *entries = entries_of(box);
	const struct dirent *entry;
	int only = 1;

	if (!entries)
		return 0;
	errno = 0;
	while ((entry = readdir(entries)))
		if (!is_itself(entry) && (entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN))
			only = 0;
	only &= !errno;
	closedir(entries);
	return only;
}

/* store.py, remove. */
int remove_container(const struct container *box, const char *id)
{
	DIR *entries = entries_of(box);
	const struct dirent *entry;
	int gone = 1;

	if (!entries)
		return 0;
	errno = 0;
	while (gone && (entry = readdir(entries)))
		if (!is_itself(entry) && unlinkat(box->directory, entry->d_name, 0)) {
			gone = errno == ENOENT;
			errno = 0;
		}
	gone &= !errno;
	closedir(entries);
	if (!gone)
		return 0;
	return !is_still_there(box, id) || !unlinkat(box->root, id, AT_REMOVEDIR) || errno == ENOENT;
}
