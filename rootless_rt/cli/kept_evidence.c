/* Whether all is still as the plan was made from: host/facts.py and cgroups/choice.py would come to the same. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kept.h"

#define MOST (1 << 20) /* of a file of /proc */

static uint64_t number(const struct text *found, int index)
{
	uint64_t value;

	memcpy(&value, found->at + 8 * index, sizeof value);
	return value;
}

/* The whole of a file into memory of this file's own, which the next call takes again; -1 for what is too much. */
static ssize_t contents(const char *path, const char **bytes)
{
	static char *room;
	int fd;

	if (!room && !(room = malloc(MOST)))
		return -1;
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t length = read_small(fd, room, MOST);
	close(fd);
	*bytes = room;
	return length;
}

int is_content(const char *path, const struct text *text)
{
	const char *bytes;
	ssize_t length = contents(path, &bytes);

	return length >= 0 && (size_t)length == text->length && !memcmp(bytes, text->at, (size_t)length);
}

/* Those lines of a file that hold a word, which is the first line of what was found. */
static int has_same_lines(const struct item *item)
{
	const char *word = item->found.at, *end = word + item->found.length, *bytes;
	const size_t size = (size_t)((const char *)memchr(word, '\n', item->found.length) - word);
	const char *wanted = word + size + 1;
	ssize_t length = contents(item->name.at, &bytes);

	if (length < 0)
		return 0;
	for (const char *at = bytes, *last = bytes + length; at < last;) {
		const char *stop = memchr(at, '\n', (size_t)(last - at));
		if (!stop)
			return 0;
		const size_t line = (size_t)(stop + 1 - at);
		if (memmem(at, line - 1, word, size)) {
			if ((size_t)(end - wanted) < line || memcmp(wanted, at, line))
				return 0;
			wanted += line;
		}
		at = stop + 1;
	}
	return wanted == end;
}

static int is_same_status(const struct item *item, const struct stat *now)
{
	const struct text *found = &item->found;

	return number(found, 0) == now->st_dev && number(found, 1) == now->st_ino &&
	       number(found, 2) == (uint64_t)now->st_size &&
	       number(found, 3) == (uint64_t)now->st_ctim.tv_sec * 1000000000u + (uint64_t)now->st_ctim.tv_nsec;
}

static int is_same_code(const struct item *item)
{
	struct stat now;

	return !stat(item->name.at, &now) && is_same_status(item, &now);
}

static int is_same_node(const struct item *item)
{
	const struct text *found = &item->found;
	struct stat now;

	return !stat(item->name.at, &now) && number(found, 0) == now.st_dev && number(found, 1) == now.st_ino &&
	       number(found, 2) == now.st_mode && number(found, 3) == now.st_uid && number(found, 4) == now.st_gid &&
	       number(found, 5) == now.st_rdev;
}

static int is_missing(const struct item *item)
{
	struct stat now;

	return stat(item->name.at, &now) < 0;
}

static int has_room(const struct item *item, const char *id)
{
	char path[PATH_MAX];
	struct stat now;
	int length = snprintf(path, sizeof path, "%s/%s", item->name.at, id);

	return length > 0 && (size_t)length < sizeof path && lstat(path, &now) < 0 && errno == ENOENT;
}

static int is_same_variable(const struct item *item)
{
	const char *value = getenv(item->name.at);

	if (!value)
		return !item->found.length;
	return *item->found.at == '=' && !strcmp(value, item->found.at + 1);
}

static int is_same_limit(const struct item *item)
{
	struct rlimit now;

	return !getrlimit((int)number(&item->found, 0), &now) && number(&item->found, 1) == now.rlim_cur &&
	       number(&item->found, 2) == now.rlim_max;
}

static int by_number(const void *a, const void *b)
{
	const gid_t *one = a, *other = b;

	return (*one > *other) - (*one < *other);
}

static int has_same_ids(const struct item *item)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[2];
	static gid_t groups[65536];
	int count = getgroups(65536, groups);

	if (count < 0 || item->found.length != 24 + 8 * (size_t)count || syscall(SYS_capget, &head, sets))
		return 0;
	if (number(&item->found, 0) != geteuid() || number(&item->found, 1) != getegid() ||
	    number(&item->found, 2) != ((uint64_t)sets[1].effective << 32 | sets[0].effective))
		return 0;
	qsort(groups, (size_t)count, sizeof *groups, by_number);
	for (int i = 0; i < count; i++)
		if (number(&item->found, 3 + i) != groups[i])
			return 0;
	return 1;
}

static int is_as_found(const struct item *item, const char *id)
{
	switch ((enum evidence_kind)item->kind) {
	case E_FILE: return is_content(item->name.at, &item->found);
	case E_LINES: return has_same_lines(item);
	case E_CODE: return is_same_code(item);
	case E_NODE: return is_same_node(item);
	case E_MISSING: return is_missing(item);
	case E_ROOM: return has_room(item, id);
	case E_VARIABLE: return is_same_variable(item);
	case E_LIMIT: return is_same_limit(item);
	case E_IDS: return has_same_ids(item);
	case EVIDENCE_KINDS: break;
	}
	return 0;
}

/* Whether what has been opened is the program that was looked at, and not one put in its place since. */
int is_kept_program(const struct kept *kept, int fd)
{
	const char *path = kept->texts[P_PROGRAM].at;
	struct item item;
	struct stat now;
	size_t at = 0;

	while (next_item(&kept->texts[P_EVIDENCE], &at, &item) > 0)
		if (item.kind == E_CODE && !strcmp(item.name.at, path))
			return !fstat(fd, &now) && is_same_status(&item, &now);
	return 0;
}

int still_holds(const struct kept *kept, const char *id)
{
	struct item item;
	size_t at = 0;

	while (next_item(&kept->texts[P_EVIDENCE], &at, &item) > 0)
		if (!is_as_found(&item, id))
			return 0;
	return 1;
}
