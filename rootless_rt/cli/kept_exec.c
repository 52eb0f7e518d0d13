/* `rt exec` by a kept plan, in the order of cli/cmd_exec.py and container/execute.py. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kept.h"

/* execute.py, _namespaces: whether those that are not ours are the ones to join, and no others. */
static int joins_the_same(const struct kept *kept, pid_t pid)
{
	static const char *const names[] = {
#define X(name) name,
		NAMESPACE_TABLE(X)
#undef X
	};
	const struct text *joined = &kept->texts[P_JOINED];
	char theirs[64], ours[64];
	struct stat one, other;
	int found_mount = 0;

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		int wanted = 0;
		for (const char *at = joined->at; at < joined->at + joined->length; at += strlen(at) + 1)
			wanted |= !strcmp(at, names[i]);
		snprintf(theirs, sizeof theirs, "/proc/%d/ns/%s", pid, names[i]);
		snprintf(ours, sizeof ours, "/proc/self/ns/%s", names[i]);
		int there = !stat(ours, &other);
		if (stat(theirs, &one) ? errno != ENOENT || there : !there)
			return 0;
		if (wanted != (there && one.st_ino != other.st_ino))
			return 0;
		found_mount |= wanted && !strcmp(names[i], "mnt");
	}
	return found_mount;
}

/* execute.py, _maps. */
static int has_same_maps(const struct kept *kept, pid_t pid)
{
	char path[64];
	const char *const names[] = {"uid_map", "gid_map"};
	const struct text *maps[] = {&kept->texts[P_UID_MAP], &kept->texts[P_GID_MAP]};

	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof path, "/proc/%d/%s", pid, names[i]);
		if (!is_content(path, maps[i]))
			return 0;
	}
	return 1;
}

/* prepare.py, open_fds: as many as there are, or -1. */
static int open_namespaces(const struct kept *kept, pid_t pid, int *fds)
{
	const struct text *joined = &kept->texts[P_JOINED];
	char path[64];
	int count = 0;

	for (const char *at = joined->at; at < joined->at + joined->length; at += strlen(at) + 1) {
		snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, at);
		if (count == MOST_FDS || (fds[count] = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)) < 0)
			return -1;
		count++;
	}
	return count;
}

/* execute.py, add_process and _start; then start_now. Returns as `receive`. */
static int add_process(const struct kept *kept, struct made *made, const struct call *call)
{
	const pid_t first = (pid_t)made->box.record.numbers[N_PID];
	int pidfd = -1, got;

	made->fd_count = open_namespaces(kept, first, made->fds);
	/* Opened by number: they are the container's only if its process is still the same behind that. */
	if (made->fd_count < 0 || hold_process(&made->box.record, &pidfd) != 1)
		return 0;
	put_away(&pidfd);
	if (!start_init(kept, made) || !send_plan(kept, made, call))
		return 0;
	if ((got = until_sync(kept, made, SYNC_MAPS)) <= 0)
		return got;
	go_on(made);
	if ((got = until_sync(kept, made, SYNC_CREATED)) <= 0)
		return got;
	return until_started(kept, made);
}

/* execute.py, check_status, of a container without a cgroup, and with nothing else that the config does not tell. */
static int takes_processes(const struct container *box)
{
	int pidfd, waiting;

	if ((box->record.numbers[N_FLAGS] & (RECORD_CGROUP | RECORD_EXECS)) != RECORD_EXECS)
		return 0;
	enum status status = status_of(box, hold_process(&box->record, &pidfd), &waiting);
	put_away(&waiting);
	return status == CREATED || status == RUNNING;
}

void exec_kept(const struct call *call)
{
	struct made made = NOTHING_MADE;
	struct before before;
	struct kept kept;

	/* First, as in Python: what the caller has leaked is no file for --process, either. */
	if (call->other || !is_alone_with_us() || find_container(call, &made.box) != FOUND || !load_container(&made.box))
		return;
	const pid_t first = (pid_t)made.box.record.numbers[N_PID];
	if (!find_kept_exec(call, &made.box, &kept) || !still_holds(&kept, call->id))
		return;
	if (!takes_processes(&made.box) || !joins_the_same(&kept, first) || !has_same_maps(&kept, first))
		return;
	prepare(&made, &before);
	int got = made.signals < 0 ? 0 : add_process(&kept, &made, call);
	for (int i = 0; i < made.fd_count; i++)
		put_away(&made.fds[i]);
	if (got > 0) {
		put_away(&made.connection);
		_exit(supervise(&made));
	}
	end_made(&made);
	if (got < 0)
		_exit(128 - got);
	give_back(&made, &before);
}
