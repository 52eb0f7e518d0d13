/* The cgroups of a container of root's on v1, as cgroups/v1.py makes them: new ones, named by its id. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kept.h"

#define SETTLE_MS 2000 /* fs.py, undo */

/* The container's cgroup in a directory, and with a file's name that file in it; 0 when that is too long. */
static int name(char *path, const struct kept *kept, const char *directory, const char *id, const char *file)
{
	const char *given = kept->texts[P_CGROUP_NAME].at;
	int length = snprintf(path, PATH_MAX, *file ? "%s/%s/%s" : "%s/%s", directory, *given ? given : id, file);

	return length > 0 && length < PATH_MAX;
}

static const char *next(const char *word)
{
	return word + strlen(word) + 1;
}

/* v1.py, create; devices.py, write_v1; confine.py, fill. All is new: what was there is Python's to take over. */
int make_cgroups(const struct kept *kept, struct made *made, const char *id)
{
	const struct text *places = &kept->texts[P_CGROUPS], *settings = &kept->texts[P_SETTINGS];
	const struct text *slots = &kept->texts[P_SLOTS];
	char path[PATH_MAX];

	for (const char *at = places->at; at < places->at + places->length; at = next(at), made->cgroups++)
		if (!name(path, kept, at, id, "") || mkdir(path, 0755))
			return 0;
	for (const char *at = settings->at; at < settings->at + settings->length; at = next(next(next(at))))
		if (!name(path, kept, at, id, next(at)) || !put(AT_FDCWD, path, next(next(at)), strlen(next(next(at)))))
			return 0;
	for (const char *at = slots->at; at < slots->at + slots->length; at = next(next(at))) {
		const int flags = *next(at) ? O_WRONLY : O_PATH | O_DIRECTORY;
		if (made->fd_count == MOST_FDS || !name(path, kept, at, id, next(at)))
			return 0;
		if ((made->fds[made->fd_count] = open(path, flags | O_CLOEXEC | O_NOFOLLOW)) < 0)
			return 0;
		made->fd_count++;
	}
	return 1;
}

/* fs.py, remove: a process that is dying still keeps it for a moment, and nothing tells of its end. */
static int is_gone(const char *path, int wait)
{
	const struct timespec moment = {.tv_nsec = 1000000};

	for (int tries = 0; !remove_cgroup(path); tries++) {
		if (errno != EBUSY || !wait || tries == SETTLE_MS)
			return 0;
		nanosleep(&moment, NULL);
	}
	return 1;
}

/* v1.py, delete and undo. With `wait`, processes that nobody could wait for may be dying in them. */
int remove_made_cgroups(const struct kept *kept, const struct made *made, const char *id, int wait)
{
	const char *at = kept->texts[P_CGROUPS].at;
	char path[PATH_MAX];
	int gone = 1;

	for (int i = 0; i < made->cgroups; i++, at = next(at))
		gone &= name(path, kept, at, id, "") && is_gone(path, wait);
	return gone;
}
