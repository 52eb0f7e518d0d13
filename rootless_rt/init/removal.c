/* Directories of cgroups, removed with all below them. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "keeper.h"

#define REMOVAL_STEPS 200
#define DEEPEST 32

static void pause_for(long milliseconds)
{
	struct timespec t = {0, milliseconds * 1000000};

	nanosleep(&t, NULL);
}

/* Directories only, as in a cgroup file system; rmdir(2) takes those that hold nothing but its files. */
static void remove_below(int dir, int depth)
{
	DIR *list = fdopendir(dir);
	struct dirent *entry;

	if (!list) {
		close(dir);
		return;
	}
	while (depth < DEEPEST && (entry = readdir(list))) {
		int fd;
		if (entry->d_type != DT_DIR || !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		fd = openat(dirfd(list), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0)
			remove_below(fd, depth + 1);
		unlinkat(dirfd(list), entry->d_name, AT_REMOVEDIR);
	}
	closedir(list);
}

/* The kernel may take a moment to let go of the dead. */
void remove_tree(const char *path)
{
	for (int step = 0; step < REMOVAL_STEPS; step++) {
		int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return;
		remove_below(fd, 0);
		if (!rmdir(path) || errno != EBUSY)
			return;
		pause_for(5);
	}
}
