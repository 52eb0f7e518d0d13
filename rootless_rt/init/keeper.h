/* What the files of the keeper know of each other: its runs, requests for them, and those whose output it takes. */
#ifndef KEEPER_H
#define KEEPER_H

#include <stdint.h>
#include <sys/types.h>

#include "rt.h"

#define TOLD 17 /* the wait status and the fields of getrusage(2) */
#define MAX_RUNS 4096
#define REQUEST_FDS 5 /* the most that come with a request */

struct capture;

struct kept {
	pid_t starter, pid; /* 0: has ended, or is not known yet */
	int status;	    /* where its end is told, or -1 */
	struct capture *capture; /* or this; a free place has neither */
};

extern struct kept runs[MAX_RUNS];

int free_place(void);
/* Of all captured runs. */
void kill_captured(uint32_t id);
/* In a new process: the limit of descriptors that the program had. */
void give_files_back(struct run *r);
int is_used(const struct kept *k);
void tell_capture(struct run *r, struct kept *k);

/* What the program asks for: its length and its descriptors. */
struct request {
	size_t size;
	size_t count;
	uint32_t word;
	int fds[REQUEST_FDS + 1]; /* CMSG_SPACE(3) rounds up: one more may come */
};

/* 0 with a request; 1 for what is none; -1 when the program has closed its end. */
int take_request(struct run *r, struct request *q);
/* Do it. `inner` are the ends of starters' news. Whether this is a process that is to perform a plan. */
int perform_request(struct run *r, const int inner[2], const struct request *q);

/* The kernel may take a moment to let go of the dead. */
void remove_tree(const char *path);

/* A run: pipes for its output, a connection for its reports. `theirs` gets the ends of its process; NULL: errno. */
struct capture *capture_open(uint32_t id, uint64_t most, int takes_out, int takes_err, int theirs[3]);
/* Our end of the connection for reports. */
int capture_reports(const struct capture *c);
/* Its process is there, and what it says is taken from now on. The pidfd goes to the program. */
void capture_begin(int place, pid_t pid, int pidfd);
/* It has ended: what it has said last is taken. */
void capture_end(struct capture *c, const int64_t told[TOLD]);
/* Tell the program what it does not know of the run. Whether that was the last: then `c` is no more. */
int capture_tell(struct run *r, struct capture *c);
/* There is no process at all: only that is to be told under the id. NULL without memory. */
struct capture *capture_refused(uint32_t id, int problem);
/* If it is the run of that id. */
void capture_kill(const struct capture *c, uint32_t id);

int captures_fd(void);	     /* can be read when one of them has said something; -1 before the first */
void captures_serve(void);   /* take it */
int captures_blocked(int now); /* whether the program has still to take something; forgets it with `now` */

#endif
