/* Landlock: which files the program, and all that it starts, may read, write and make. landlock(7). */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "rt.h"

/* Numbers and bits of linux/landlock.h, which old headers lack; newer architectures all share the numbers. */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif
#define ASK_VERSION 1U
#define RULE_PATH_BENEATH 1

#define EXECUTE (1ULL << 0)
#define WRITE_FILE (1ULL << 1)
#define READ_FILE (1ULL << 2)
#define READ_DIR (1ULL << 3)
#define MAKE_CHAR (1ULL << 6)
#define MAKE_BLOCK (1ULL << 11)
#define MAKE_SYM (1ULL << 12)
#define REFER (1ULL << 13)
#define TRUNCATE (1ULL << 14)
#define IOCTL_DEV (1ULL << 15)

#define READING (EXECUTE | READ_FILE | READ_DIR)
#define OF_FILES (EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV)

struct beneath {
	uint64_t allowed;
	int32_t parent;
} __attribute__((packed));

/* All that this version can tell apart: what is not handled stays allowed. */
static uint64_t handled(long version)
{
	uint64_t rights = MAKE_SYM | (MAKE_SYM - 1);

	if (version >= 2)
		rights |= REFER;
	if (version >= 3)
		rights |= TRUNCATE;
	if (version >= 5)
		rights |= IOCTL_DEV;
	return rights;
}

static void allow(struct run *r, int ruleset, int root, const struct field *paths, uint64_t rights)
{
	char **list = list_strings(paths, NULL);
	struct beneath rule = {0};
	struct stat st;

	if (!list)
		fail(r, "malloc", "");
	for (; *list; list++) {
		rule.parent = in_root(root, *list, O_PATH, 0);
		if (rule.parent < 0 || fstat(rule.parent, &st))
			fail(r, "open", *list);
		rule.allowed = S_ISDIR(st.st_mode) ? rights : rights & OF_FILES;
		if (syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0))
			fail(r, "landlock_add_rule", *list);
		close(rule.parent);
	}
}

/*
 * The rules are made while the process can still search every directory, and so that a path that is not
 * there is an error of create; they come into force by op_landlock, behind the hooks.
 */
void op_landlock_rules(struct run *r, const struct op *op)
{
	long version = syscall(SYS_landlock_create_ruleset, NULL, 0, ASK_VERSION);
	uint64_t rights = version > 0 ? handled(version) : 0;
	int root, ruleset;

	/* Not built, switched off at boot, or hidden by the filter of a surrounding container. */
	if (version <= 0) {
		r->no_landlock = 1;
		note(r, "landlock_create_ruleset", "");
		return;
	}
	/* Only the first member of the structure, which every version has. */
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &rights, sizeof rights, 0);
	if (ruleset < 0)
		fail(r, "landlock_create_ruleset", "");
	root = openat(AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		fail(r, "open", "/");
	allow(r, ruleset, root, &op->f[F_LANDLOCK_RULES_RO], rights & READING);
	allow(r, ruleset, root, &op->f[F_LANDLOCK_RULES_RW], rights & ~(MAKE_CHAR | MAKE_BLOCK));
	close(root);
	set_slot(r, U(op, F_LANDLOCK_RULES_SLOT), ruleset);
}

void op_landlock(struct run *r, const struct op *op)
{
	if (r->no_landlock)
		return; /* which was told */
	if (syscall(SYS_landlock_restrict_self, slot_fd(r, U(op, F_LANDLOCK_SLOT)), 0))
		fail(r, "landlock_restrict_self", "");
	close(slot_fd(r, U(op, F_LANDLOCK_SLOT)));
	set_slot(r, U(op, F_LANDLOCK_SLOT), -1);
}
