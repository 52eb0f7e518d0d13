/*
 * rt-init: a strict interpreter of ops (rootless_rt/plan/ops.py).
 *
 * It decides nothing: an op succeeds, or rt-init sends one report {op, call, errno, text} to the
 * runtime and exits. No function here takes a path below the rootfs but through in_root() or
 * make_in_root(), which give a descriptor; everything further works on that descriptor.
 */
#ifndef RT_H
#define RT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "ops.h"

#define MAX_SLOTS 4096
#define MAX_MADE 256
#define MAX_OWN 4 /* each an open descriptor: plans may need all that there are */
#define FEW 32 /* strings of a list that need no memory of the heap */
#define INLINE_PLAN 16384 /* rootless_rt/init/launch.py */

struct field {
	uint64_t u;		   /* U */
	const char *s;		   /* S, B */
	uint32_t n;		   /* length of S and B, count of L and V */
	const unsigned char *list; /* L and V, still encoded, up to `end` */
	const unsigned char *end;
};

struct op {
	uint32_t code;
	const char *types;
	struct field f[OP_FIELDS];
};

struct plan {
	const unsigned char *next, *end;
	uint32_t count;
	int reconfigures; /* an op of it, or one that comes later, changes a filesystem that the plan has made */
};

/* Of the mounts in a slot: nothing is known; part of no other tree yet; has found its place; the container's root. */
enum tree { UNKNOWN, LOOSE, PLACED, ROOTFS };

struct slot {
	int fd; /* plus one, or 0: a page that no slot needs stays untouched */
	enum tree tree;
};

/* See places.c: a directory that this plan has made, the root of a mount, and where it is. */
struct own {
	const char *path; /* in the tree of slot `root` */
	uint64_t root;
	int fd;
	int borrowed; /* it is a slot's */
};

/* Where something goes: to `fd` itself, or, unless that is "", to a name in it. */
struct place {
	uint64_t root; /* a slot, and the path in its tree */
	const char *path;
	const char *name;
	int fd;
	int own;   /* the descriptor stays open */
	int plain; /* no link has led there */
};

/* What one run of a plan carries from op to op; what comes last is large, and mostly never touched. */
struct run {
	int sock;	/* to the runtime; -1 while a created container waits */
	int proc;	/* the host's /proc, verified */
	uint32_t index; /* of the op being performed */
	int trace;	/* report the time of each op */
	int apart;	/* no mount here tells another of what is mounted on it: none is shared */
	int no_landlock; /* the kernel has none, and the runtime was told */
	int mounts;	/* tells when the host's mounts change, or -1 */
	int keeper;	/* to the process that keeps this one, or -1 */
	int32_t kept;	/* what the keeper calls this one */
	struct plan plan; /* what is left of it */
	uint32_t end;	/* the index behind its last op */
	int32_t pid;	/* of this process, as the runtime sees it */
	mode_t umask;	/* of what it executes: the caller's until `ids` sets another */
	uint32_t slots_end; /* behind the last slot that was ever filled */
	uint32_t made_count;
	uint32_t own_count;
	struct own own[MAX_OWN];
	char listen_pid[32];
	char program[288];    /* what is known of it, see program.c */
	dev_t made[MAX_MADE]; /* of the filesystems that are the container's own */
	char home[4096];
	char exe[4096];
	struct slot slots[MAX_SLOTS];
};

/* wire.c: the plan's bytes. plan_open returns -1 when they are malformed anywhere. */
int plan_open(struct plan *p, const unsigned char *data, size_t size);
void plan_next(struct plan *p, struct op *op);
char **list_strings(const struct field *f, const char *extra);
char **few_strings(const struct field *f, const char *extra, char *room[FEW]);
uint64_t vector_item(const struct field *f, uint32_t i);

/* A plan as it comes: its bytes, or a descriptor of them. */
struct received {
	int fd;
	unsigned char *bytes;
	size_t size;
};

/* report.c: messages to and from the runtime. */
enum message { MSG_PID = 1, MSG_SYNC = 2, MSG_ERROR = 3, MSG_NOTE = 4, MSG_CONSOLE = 5, MSG_TRACE = 6, MSG_LISTENER = 8, MSG_FUSE = 9, MSG_STALE = 10, MSG_GO = 100 };
void send_message(struct run *r, int type, int value, int err, const char *call, const char *text, int fd);
union one_fd {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};
/* The message takes a copy of the descriptor along; `room` is for the words to say so. */
void carry_fd(struct msghdr *msg, union one_fd *room, int fd);
int receive_go(int sock, int32_t *pid);
int receive_plan(struct run *r, struct received *p, uint64_t first);
_Noreturn void fail(struct run *r, const char *call, const char *text);
void note(struct run *r, const char *call, const char *text);

/* paths.c: inside the rootfs. All return a descriptor or -1 with errno. */
int in_root(int root, const char *path, uint64_t flags, uint64_t resolve);
int make_in_root(int root, const char *path, int directory, uint64_t resolve);
int parent_in_root(int root, const char *path, const char **last, uint64_t resolve);
int make_last_in_root(int root, const char *path, int directory, uint64_t resolve);
int beneath(int dir, const char *name);
int open_proc(void);
int proc_file(int proc, const char *path);
int write_whole(int fd, const char *value);
int write_proc(int proc, const char *path, const char *value);

/* places.c: where a mount is to go, made when missing, or it fails; attach() puts it there and lets go of the place. */
struct place destination(struct run *r, uint64_t root, const char *path, int directory, int strict, int in_proc);
struct place symlink_destination(struct run *r, uint64_t root, const char *path, int directory, int in_proc);
struct place existing(struct run *r, uint64_t root, const char *path);
struct place parent(struct run *r, uint64_t root, const char *path);
void leave(const struct place *p);
void attach(struct run *r, int mount, const struct place *p, const struct field *propagation);
int keep_own(struct run *r, const struct place *p, int mount, int borrowed);
void forget_tree(struct run *r, uint64_t root);
void forget_all(struct run *r);

/* mounts.c: the tree that a slot has. */
int tree_of(struct run *r, uint64_t slot, const char *path);
void give_back(struct run *r, uint64_t slot, int fd);

/* attributes.c: the six fields from `set` on, and the propagation of a mount: one kind, or as an op lists them. */
void set_attributes(struct run *r, int mount, const char *path, const struct field *fields);
void set_propagation(struct run *r, int mount, const char *path, uint64_t flag);
void propagate(struct run *r, int mount, const char *path, const struct field *propagation);

/* filesystem.c: making one, and the words for it. */
int new_filesystem(struct run *r, const char *type, char **data, uint64_t attrs, const char *path);
void set_option(struct run *r, int fs, const char *option, const char *path);
_Noreturn void fail_context(struct run *r, int fs, const char *call, const char *path);

/* copyup.c: the content of a directory of the rootfs into a new filesystem. */
void copy_up(struct run *r, int from, int to, const char *path, int owner);

/* The subjects. */
void op_source(struct run *r, const struct op *op);
void op_idmap(struct run *r, const struct op *op);
void op_directory(struct run *r, const struct op *op);
void op_overlay(struct run *r, const struct op *op);
void op_layers(struct run *r, const struct op *op);
void op_root(struct run *r, const struct op *op);
void op_propagation(struct run *r, const struct op *op);
void op_mount_fs(struct run *r, const struct op *op);
void op_new_fs(struct run *r, const struct op *op);
void op_mount_bind(struct run *r, const struct op *op);
void op_remount(struct run *r, const struct op *op);
void op_device(struct run *r, const struct op *op);
void op_symlink(struct run *r, const struct op *op);
void op_mask(struct run *r, const struct op *op);
void op_readonly(struct run *r, const struct op *op);
void op_root_attrs(struct run *r, const struct op *op);
void op_console(struct run *r, const struct op *op);
void op_cover(struct run *r, const struct op *op);
void op_pivot(struct run *r, const struct op *op);
void op_here(struct run *r, const struct op *op);
void op_root_propagation(struct run *r, const struct op *op);

void op_join(struct run *r, const struct op *op);
void op_clone(struct run *r, const struct op *op);
void op_become(struct run *r, const struct op *op);
void op_nest(struct run *r, const struct op *op);
void op_enter_cgroups(struct run *r, const struct op *op);
void op_enter_own(struct run *r, const struct op *op);
void op_loopback(struct run *r, const struct op *op);
void op_sysctl(struct run *r, const struct op *op);
void op_label_mqueue(struct run *r, const struct op *op);
void op_mask_tmpfs(struct run *r, const struct op *op);
void op_proc_file(struct run *r, const struct op *op);
void op_proc_write(struct run *r, const struct op *op);
void op_chdir(struct run *r, const struct op *op);
void op_rlimit(struct run *r, const struct op *op);
void op_keyring(struct run *r, const struct op *op);
void op_oom_score_adj(struct run *r, const struct op *op);
void op_bounding(struct run *r, const struct op *op);
void op_ids(struct run *r, const struct op *op);
void op_caps(struct run *r, const struct op *op);
void op_ambient(struct run *r, const struct op *op);
void op_session(struct run *r, const struct op *op);
void op_chown_stdio(struct run *r, const struct op *op);
void op_home(struct run *r, const struct op *op);
void op_find(struct run *r, const struct op *op);
void op_close_others(struct run *r, const struct op *op);
void op_keep_fds(struct run *r, const struct op *op);
void op_seccomp(struct run *r, const struct op *op);
void op_seccomp_listen(struct run *r, const struct op *op);
void op_listen_pid(struct run *r);
void op_exec(struct run *r, const struct op *op);
void op_hook(struct run *r, const struct op *op);

void op_landlock_rules(struct run *r, const struct op *op);
void op_landlock(struct run *r, const struct op *op);

void op_scheduler(struct run *r, const struct op *op);
void op_io_priority(struct run *r, const struct op *op);
void op_affinity(struct run *r, const struct op *op);
void op_memory_policy(struct run *r, const struct op *op);
void op_personality(struct run *r, const struct op *op);

_Noreturn void op_attend(struct run *r, const struct op *op);

void op_keep(struct run *r, const struct op *op);
void op_more(struct run *r, const struct op *op);
void op_stdio(struct run *r, const struct op *op);
void op_clone_mapped(struct run *r, const struct op *op);
long new_child(struct run *r, uint64_t flags, int *pidfd);
const char *put_maps(struct run *r, long pid, const struct op *op);
void tell_keeper(struct run *r, pid_t pid);

void clear_run(struct run *r, int sock);
void take_plan(struct run *r, uint64_t first);
void adopt_plan(struct run *r, const unsigned char *bytes, size_t size);
void await_runtime(struct run *r);

void reset_signals(void);
void unblock_signals(void);
int fills_slot(const struct run *r, uint64_t slot);
int slot_fd(struct run *r, uint64_t slot);
void set_slot(struct run *r, uint64_t slot, int fd);

#define U(op, place) ((op)->f[place].u)
#define S(op, place) ((op)->f[place].s)

#endif
