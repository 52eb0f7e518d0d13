/* `rt run` of a kept plan, in the order of cli/cmd_run.py and container/create.py. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "kept.h"

/* create.py, take_back. */
static void take_back(const struct kept *kept, struct made *made, const char *id)
{
	end_made(made);
	remove_made_cgroups(kept, made, id, 1);
	if (made->box.directory < 0)
		return;
	remove_container(&made->box, id);
	put_away(&made->box.directory);
	put_away(&made->box.root);
}

/* create.py, _at_sync at SYNC_MAPS: what follows "go on" is done beside rt-init's work. */
static int map_and_save(const struct kept *kept, struct made *made, const char *id)
{
	char letter;

	if (read_start_time(made->pid, &letter, made->started, sizeof made->started) <= 0 || !write_maps(kept, made->pid))
		return 0;
	go_on(made);
	return write_state(kept, made, id, "creating", "state.json") && write_state(kept, made, id, "created", "staged");
}

/* create.py, _make. Returns as `receive`. */
static int make(const struct kept *kept, struct made *made, const struct call *call)
{
	const struct text *config = &kept->texts[P_CONFIG];
	char letter;
	int got;

	if (!make_container(call, &made->box))
		return 0;
	if (!start_init(kept, made) ||
	    read_start_time(getpid(), &letter, made->maker_started, sizeof made->maker_started) <= 0 ||
	    !read_boot_id(made->boot, sizeof made->boot) ||
	    !write_file(&made->box, "config.json", config->at, config->length) ||
	    !write_state(kept, made, call->id, "creating", "state.json") || !make_cgroups(kept, made, call->id) ||
	    !send_plan(kept, made, call))
		return 0;
	while (made->fd_count)
		put_away(&made->fds[--made->fd_count]);
	if ((got = until_sync(kept, made, SYNC_MAPS)) <= 0 || !(got = map_and_save(kept, made, call->id)))
		return got;
	if ((got = until_sync(kept, made, SYNC_CREATED)) <= 0)
		return got;
	if (renameat(made->box.directory, "staged", made->box.directory, "state.json"))
		return 0;
	return until_started(kept, made);
}

/* cmd_run.py, _put_away: 1 when all is gone; somebody may have deleted it already. */
static int forget(const struct kept *kept, struct made *made, const char *id, int code)
{
	if (!relock_container(&made->box, id))
		return 1;
	/* Of what has been killed, its cgroup tells Python the reason. */
	if (code == 128 + SIGKILL && made->cgroups)
		return 0;
	return remove_made_cgroups(kept, made, id, 0) && remove_container(&made->box, id);
}

const char *run_kept(const struct call *call)
{
	static char held[32];
	struct made made = NOTHING_MADE;
	struct before before;
	struct kept kept;

	/* First, as in Python: what the caller has leaked is no bundle, either. */
	if (call->other || !is_alone_with_us() || !find_kept_run(call, &kept) || !still_holds(&kept, call->id))
		return "";
	prepare(&made, &before);
	int got = made.signals < 0 ? 0 : make(&kept, &made, call);
	if (got <= 0) {
		while (made.fd_count)
			put_away(&made.fds[--made.fd_count]);
		take_back(&kept, &made, call->id);
		if (got < 0)
			_exit(128 - got);
		give_back(&made, &before);
		return "";
	}
	put_away(&made.connection);
	/* From here on the container is like any other: others may signal, stop and delete it. */
	flock(made.box.directory, LOCK_UN);
	int code = supervise(&made);
	if (forget(&kept, &made, call->id, code))
		_exit(code);
	/* As with Python in the foreground, no signal keeps it from being put away. */
	before.mask = forwarded();
	give_back(&made, &before);
	fcntl(made.box.directory, F_SETFD, 0);
	snprintf(held, sizeof held, "%d,%d", made.box.directory, code);
	return held;
}
