/*
 * `rt run` without an interpreter, where the plan of an earlier run of the same bundle has been kept and all that it was
 * made from is as it was (container/kept.py says how). The rules of shortcut.h hold: nothing here decides, refuses or
 * explains. Up to the moment in which the container's program starts, whatever is odd or fails is taken back, and Python
 * begins at the beginning. The Python functions that are followed are named at each function.
 */
#ifndef RT_KEPT_H
#define RT_KEPT_H

#include "kept_tables.h"
#include "shortcut.h"

/* What container/kept.py has written. */
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

/* The container in the making, and what has to be put away. */
struct made {
	struct container box;
	int signals; /* signalfd(2) */
	int connection; /* to rt-init */
	pid_t starter;
	pid_t pid;
	int pidfd;
	char started[24], boot[40], maker_started[24], created[40];
};

int read_kept(const char *bytes, size_t size, struct kept *kept);
int next_item(const struct text *evidence, size_t *at, struct item *item);

int find_kept(const struct call *call, struct kept *kept);
int still_holds(const struct kept *kept, const char *id);
int is_kept_program(const struct kept *kept, int fd);

int write_state(const struct kept *kept, struct made *made, const char *id, const char *phase, const char *name);
int write_file(const struct container *box, const char *name, const char *bytes, size_t length);
int identify(pid_t pid, char *started, size_t size);

int start_init(const struct kept *kept, struct made *made);
int send_plan(const struct kept *kept, const struct made *made, const char *id);
int write_maps(const struct kept *kept, pid_t pid);

/* Comes back only where Python has to do it, with nothing left of what was tried. */
void run_kept(const struct call *call);

#endif
