/* Where kept plans lie, the bundle they are for, and the files of a new container (host/cache.py, spec/load.py, store.py). */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kept.h"

#define HASH_START 0xcbf29ce484222325u

/* cache.py, open_directory. */
static int open_ours_at(int directory, const char *path)
{
	struct stat status;
	int fd = openat(directory, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 || (!fstat(fd, &status) && is_safe(&status)))
		return fd;
	close(fd);
	return -1;
}

/* The one above it has to be ours, too: in a base where others write, theirs may lead to any directory of ours. */
static int open_folder_at(const char *base, const char *below)
{
	char path[PATH_MAX];
	int length = snprintf(path, sizeof path, "%s%s", base, below);

	if (length < 0 || (size_t)length >= sizeof path)
		return -1;
	int above = open_ours_at(AT_FDCWD, path), fd = above < 0 ? -1 : open_ours_at(above, KEPT_FOLDER);
	if (above >= 0)
		close(above);
	return fd;
}

/* cache.py, default_cache_dir: only one that is there already can hold anything. */
static int open_folder(void)
{
	const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	int fd = geteuid() ? -1 : open_folder_at("/var/cache", "/rt");

	if (fd >= 0 || (!geteuid() && in_user_namespace() != 1))
		return fd;
	if (base && *base == '/')
		return open_folder_at(base, "/rt");
	return home && *home == '/' ? open_folder_at(home, "/.cache/rt") : -1;
}

/* kept_form.py, file_name: FNV-1a, of one piece after the other. */
static uint64_t hashed(uint64_t hash, const char *key, size_t length)
{
	for (size_t at = 0; at < length; at++)
		hash = (hash ^ (unsigned char)key[at]) * 0x100000001b3u;
	return hash;
}

/* load.py, _real_directory. */
static int open_bundle(const char *given, char *path)
{
	char link[40];
	int fd = open(given ? given : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, PATH_MAX - 1);
	path[length < 0 ? 0 : length] = '\0';
	return fd;
}

/* What this release has kept in a file of the cache. */
static int read_entry(const struct call *call, const char *prefix, uint64_t hash, struct kept *kept)
{
	const char *manager = call->manager && strcmp(call->manager, "auto") ? call->manager : "";
	char name[24];
	size_t size;
	int folder = open_folder();

	if (folder < 0)
		return 0;
	snprintf(name, sizeof name, "%s%016llx", prefix, (unsigned long long)hash);
	const char *bytes = read_file(folder, name, 1, KEPT_LIMIT, &size);
	close(folder);
	return bytes && read_kept(bytes, size, kept) && !strcmp(kept->texts[P_VERSION].at, RT_RELEASE) &&
	       !strcmp(kept->texts[P_MANAGER].at, manager);
}

static int is_same(const struct text *wanted, const char *bytes, size_t size)
{
	return bytes && size == wanted->length && !memcmp(bytes, wanted->at, size);
}

/* The plan that was kept for exactly this bundle and config, where its rootfs still is one. */
int find_kept_run(const struct call *call, struct kept *kept)
{
	char bundle[PATH_MAX];
	struct stat status;
	size_t size = 0;
	int place = open_bundle(call->bundle, bundle);

	if (place < 0)
		return 0;
	const char *config = read_file(place, "config.json", 0, KEPT_LIMIT, &size);
	close(place);
	if (!read_entry(call, "", hashed(HASH_START, bundle, strlen(bundle)), kept))
		return 0;
	if (kept->numbers[K_FLAGS] & KEPT_EXEC || strcmp(kept->texts[P_BUNDLE].at, bundle))
		return 0;
	return is_same(&kept->texts[P_CONFIG], config, size) && !lstat(kept->texts[P_ROOTFS].at, &status) &&
	       S_ISDIR(status.st_mode);
}

static size_t at_most(size_t size)
{
	return size < KEPT_HASHED ? size : KEPT_HASHED;
}

/* The plan that was kept for a process, of --process or without, that is added to a container of exactly this config. */
int find_kept_exec(const struct call *call, const struct container *box, struct kept *kept)
{
	size_t size = 0, process_size = 0;
	const char *config = read_file(box->directory, "config.json", 1, KEPT_LIMIT, &size);
	const char *process = "";

	if (call->process)
		process = read_file(AT_FDCWD, call->process, 0, KEPT_LIMIT, &process_size);
	if (!config || !process || !process_size != !call->process)
		return 0;
	uint64_t hash = hashed(HASH_START, config, at_most(size));
	return read_entry(call, KEPT_EXEC_PREFIX, hashed(hash, process, at_most(process_size)), kept) &&
	       kept->numbers[K_FLAGS] & KEPT_EXEC && is_same(&kept->texts[P_CONFIG], config, size) &&
	       is_same(&kept->texts[P_PROCESS], process, process_size);
}

/* store.py, write: the new file gets its name when it is whole. */
int write_file(const struct container *box, const char *name, const char *bytes, size_t length)
{
	char temporary[64];

	snprintf(temporary, sizeof temporary, ".%s.%d", name, getpid());
	int fd = openat(box->directory, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return 0;
	ssize_t written = write(fd, bytes, length);
	if (close(fd) || written != (ssize_t)length)
		return 0;
	return !renameat(box->directory, temporary, box->directory, name);
}

/* fs.py and write.py: a file of the kernel's takes it in one write. */
int put(int directory, const char *name, const char *bytes, size_t length)
{
	int fd = openat(directory, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return 0;
	int done = write(fd, bytes, length) == (ssize_t)length;
	close(fd);
	return done;
}

/* times.py, now: trailing zeros of the fraction are left out. */
static void tell_time(char *text, size_t size)
{
	struct timespec now;
	struct tm parts;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &parts);
	size_t length = strftime(text, size, "%Y-%m-%dT%H:%M:%S", &parts);
	if (now.tv_nsec) {
		length += (size_t)snprintf(text + length, size - length, ".%09ld", now.tv_nsec);
		while (text[length - 1] == '0')
			length--;
	}
	snprintf(text + length, size - length, "Z");
}

/* kept_form.py, with_holes: how long the text is with its holes filled; written to `to` if that is not NULL. */
static size_t fill_holes(char *to, const struct text *text, const char *const *fill)
{
	size_t size = 0;

	for (size_t at = 0; at < text->length; at++) {
		const unsigned char c = (unsigned char)text->at[at];
		const int is_hole = c >= 1 && c <= HOLES;
		const char *part = is_hole ? fill[c - 1] : text->at + at;
		const size_t length = is_hole ? strlen(part) : 1;
		if (to)
			memcpy(to + size, part, length);
		size += length;
	}
	return size;
}

/* The text of state.json, for this container in this phase. A process that is not there yet has no number. */
int write_state(const struct kept *kept, struct made *made, const char *id, const char *phase, const char *name)
{
	const struct text *text = &kept->texts[P_STATE];
	char pid[16], maker[16];

	if (!*made->created)
		tell_time(made->created, sizeof made->created);
	snprintf(pid, sizeof pid, "%d", made->pid);
	snprintf(maker, sizeof maker, "%d", getpid());
	const char *fill[HOLES] = {
		[HOLE_ID] = id,
		[HOLE_PHASE] = phase,
		[HOLE_PID] = pid,
		[HOLE_STARTED] = made->started,
		[HOLE_BOOT] = made->pid ? made->boot : "",
		[HOLE_CREATED] = made->created,
		[HOLE_MAKER_PID] = maker,
		[HOLE_MAKER_STARTED] = made->maker_started,
	};
	size_t size = fill_holes(NULL, text, fill);
	char *bytes = malloc(size);
	int written = bytes && write_file(&made->box, name, bytes, fill_holes(bytes, text, fill));
	free(bytes);
	return written;
}
