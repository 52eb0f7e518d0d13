/*
 * `rt run` and `rt exec` without an interpreter, where the plan of an earlier call has been kept and all that it was made
 * from is as it was (container/kept.py says how). The rules of shortcut.h hold: nothing here decides, refuses or
 * explains. Up to the moment in which the container's program starts, whatever is odd or fails is taken back, and Python
 * begins at the beginning. The Python functions that are followed are named at each function.
 */
#ifndef RT_KEPT_H
#define RT_KEPT_H

#include <signal.h>
#include <sys/stat.h>

#include "kept_tables.h"
#include "shortcut.h"

/* What container/kept_form.py has written. */
struct kept {
	uint64_t numbers[KEPT_NUMBERS];
	struct text texts[KEPT_TEXTS];
};

/* One thing that the plan was made from; see container/evidence.py. */
struct item {
	uint32_t kind;
	struct text name;
	struct text found;
};

/* Where a text of the plan is: its op, its length, and behind its last byte. */
struct place {
	uint64_t op, field, end;
};

#define MOST_FDS 64 /* the kinds of namespaces, or the hierarchies of cgroups */

/* A process in the making, and what has to be put away. */
struct made {
	struct container box;
	int signals; /* signalfd(2) */
	int connection; /* to rt-init */
	int pidfd;
	pid_t starter;
	pid_t pid;
	int fds[MOST_FDS]; /* that go with the plan */
	int fd_count;
	int cgroups; /* how many have been made */
	char started[24], boot[40], maker_started[24], created[40];
};

#define NOTHING_MADE {.box = {-1, -1, {{0}, {{0}}}}, .signals = -1, .connection = -1, .pidfd = -1}

/* What Python is left with, when it does not come to it here. */
struct before {
	struct sigaction pipe, child;
	sigset_t mask;
	mode_t umask;
};

/* plan/ops.py, encode_op: number and length of the op; then a text's length, or a list's. */
enum { OP_LENGTH = 4, OP_HEAD = 8, FIRST_FIELD = 12 };
enum { SYNC_MAPS = 1, SYNC_CREATED = 3 }; /* plan/ops.py */

int read_kept(const char *bytes, size_t size, struct kept *kept);
int place_of_id(const struct kept *kept, size_t index, struct place *place);
int next_item(const struct text *evidence, size_t *at, struct item *item);

int still_holds(const struct kept *kept, const char *id);
int is_kept_program(const struct kept *kept, int fd);
int is_content(const char *path, const struct text *text);

int find_kept_run(const struct call *call, struct kept *kept);
int find_kept_exec(const struct call *call, const struct container *box, struct kept *kept);
int write_file(const struct container *box, const char *name, const char *bytes, size_t length);
int write_state(const struct kept *kept, struct made *made, const char *id, const char *phase, const char *name);
int put(int directory, const char *name, const char *bytes, size_t length);

int start_init(const struct kept *kept, struct made *made);
int send_plan(const struct kept *kept, const struct made *made, const struct call *call);
int write_maps(const struct kept *kept, pid_t pid);

int make_cgroups(const struct kept *kept, struct made *made, const char *id);
int remove_made_cgroups(const struct kept *kept, const struct made *made, const char *id, int wait);

/* The foreground. What waits returns 1, 0 for what fails, or minus a signal that ends all this. */
int is_alone_with_us(void);
sigset_t forwarded(void);
void prepare(struct made *made, struct before *before);
void give_back(struct made *made, const struct before *before);
void go_on(const struct made *made);
int until_sync(const struct kept *kept, struct made *made, int marker);
int until_started(const struct kept *kept, const struct made *made);
int supervise(const struct made *made);
void end_made(struct made *made);
void put_away(int *fd);

/*
 * Both come back only where Python has to do it, with nothing left of what was tried. But of a container that has run and
 * cannot be put away here, `run_kept` returns "DIRECTORY,CODE": its directory's descriptor, and its exit code.
 */
const char *run_kept(const struct call *call);
void exec_kept(const struct call *call);

#endif
