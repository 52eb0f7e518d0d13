/*
 * The short way of `state`, `kill`, `start` and `delete`: performed here, without an interpreter, where the call is
 * plain and the record that Python has left in the container's directory fits (container/shortcut.py says how).
 *
 * Every function answers only for what it is sure of. In all other cases nothing has been changed, or only what
 * Python would do first as well, and Python starts as if none of this existed: it alone refuses, waits and explains.
 * Nothing here prints an error. The Python functions that are followed are named at each function.
 */
#ifndef RT_SHORTCUT_H
#define RT_SHORTCUT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "shortcut_tables.h"

enum verb { STATE, KILL, START, DELETE, RUN, EXEC };

/* A command line that this program understands whole. */
struct call {
	enum verb verb;
	const char *root; /* NULL: not given */
	const char *bundle; /* of run; NULL: not given */
	const char *process; /* of exec; NULL: not given */
	char *const *words; /* of exec without `process`: the command, ended by NULL */
	const char *manager; /* --cgroup-manager; NULL: not given */
	int other; /* whether there are other global options, of which run may have to know */
	const char *id;
	int signal;
	int all;
	int force;
};

struct text {
	const char *at; /* ends with a NUL */
	size_t length;
};

/* What container/shortcut.py has written. */
struct record {
	uint64_t numbers[RECORD_NUMBERS];
	struct text texts[RECORD_TEXTS];
};

struct container {
	int root;
	int directory;
	struct record record;
};

enum found { ODD, MISSING, FOUND };
enum status { UNKNOWN, STOPPED, CREATED, RUNNING, PAUSED };

/* All return 1 or the like where all is plain, and 0 for the long way. */
int read_call(int argc, char **argv, struct call *call);
int read_record(const char *bytes, size_t size, struct record *record);
int read_text(const char *bytes, size_t size, size_t *at, struct text *text);
ssize_t read_small(int fd, char *bytes, size_t size);
char *read_file(int directory, const char *name, int ours, size_t most, size_t *length);
int is_safe(const struct stat *status);

int in_user_namespace(void);
enum found find_container(const struct call *call, struct container *box);
int make_container(const struct call *call, struct container *box);
int relock_container(const struct container *box, const char *id);
int lock_container(const struct container *box, const char *id);
int load_container(struct container *box);
int names_no_hook(const struct container *box, const char *kind);
int holds_only_files(const struct container *box);
int remove_container(const struct container *box, const char *id);

int read_boot_id(char *text, size_t size);
int read_start_time(pid_t pid, char *letter, char *text, size_t size);
int hold_process(const struct record *record, int *pidfd);
enum status status_of(const struct container *box, int alive, int *waiting);
int is_alone(const struct record *record, enum status status);
int end_process(int pidfd);
int remove_cgroup(const char *path);
int remove_cgroups(const struct record *record);

/*
 * Ends the program when the call has been performed. Else it comes back with "", or, when Python has to see through what
 * has been begun here, with what it takes: of a `start`, "DIRECTORY,CONNECTION", the numbers of two descriptors; of a
 * `run`, see run_kept.
 */
const char *shortcut(int argc, char **argv);

#endif
