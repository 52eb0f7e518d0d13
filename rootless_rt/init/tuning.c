/* Scheduling, I/O priority, CPUs, memory policy, personality. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "rt.h"

#define MASK_BITS 8192 /* of CPUs; MAX_CPUS of spec/tuning.py */
#define NODE_BITS 1024
#define WORD (8 * sizeof(unsigned long))

#define IOPRIO_WHO_PROCESS 1
#define IOPRIO_CLASS_SHIFT 13
#define FLAG_UTIL_CLAMP 0x60

/* sched_setattr(2)'s argument (SCHED_ATTR_SIZE_VER1), under a name of our own. */
struct scheduling {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t util_min, util_max;
};

/* A refusal that no fact told of is the runtime's to judge; anything else is an error. */
static void refused(struct run *r, const char *call)
{
	if (errno != EPERM && errno != EACCES)
		fail(r, call, "");
	note(r, call, "");
}

/* Of the process that the runtime named: this one is outside of the container. */
void op_scheduler(struct run *r, const struct op *op)
{
	struct scheduling s = {.policy = (uint32_t)U(op, F_SCHEDULER_POLICY),
			       .flags = U(op, F_SCHEDULER_FLAGS),
			       .nice = (int32_t)strtol(S(op, F_SCHEDULER_NICE), NULL, 10),
			       .priority = (uint32_t)U(op, F_SCHEDULER_PRIORITY),
			       .runtime = U(op, F_SCHEDULER_RUNTIME),
			       .deadline = U(op, F_SCHEDULER_DEADLINE),
			       .period = U(op, F_SCHEDULER_PERIOD)};

	/* Kernels before 5.3 know the shorter form only. */
	s.size = s.flags & FLAG_UTIL_CLAMP ? sizeof s : offsetof(struct scheduling, util_min);
	if (syscall(SYS_sched_setattr, r->pid, &s, 0))
		refused(r, "sched_setattr");
}

void op_io_priority(struct run *r, const struct op *op)
{
	int value = (int)(U(op, F_IO_PRIORITY_CLASS) << IOPRIO_CLASS_SHIFT | U(op, F_IO_PRIORITY_LEVEL));

	if (syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, r->pid, value))
		refused(r, "ioprio_set");
}

/* Set the bits that a field lists; those beyond the mask are an error. */
static void fill(struct run *r, unsigned long *mask, unsigned long bits, const struct field *f)
{
	for (uint32_t i = 0; i < f->n; i++) {
		uint64_t bit = vector_item(f, i);
		if (bit >= bits) {
			errno = EINVAL;
			fail(r, "mask", "");
		}
		mask[bit / WORD] |= 1UL << bit % WORD;
	}
}

void op_affinity(struct run *r, const struct op *op)
{
	unsigned long mask[MASK_BITS / WORD] = {0};

	fill(r, mask, MASK_BITS, &op->f[F_AFFINITY_CPUS]);
	if (!op->f[F_AFFINITY_CPUS].n)
		memset(mask, 0xff, sizeof mask);
	if (syscall(SYS_sched_setaffinity, 0, sizeof mask, mask))
		fail(r, "sched_setaffinity", "");
}

void op_memory_policy(struct run *r, const struct op *op)
{
	const struct field *nodes = &op->f[F_MEMORY_POLICY_NODES];
	unsigned long mask[NODE_BITS / WORD] = {0};

	fill(r, mask, NODE_BITS, nodes);
	/* The kernel takes one bit less than it is told of. */
	if (!syscall(SYS_set_mempolicy, (int)U(op, F_MEMORY_POLICY_MODE), nodes->n ? mask : NULL,
		     nodes->n ? NODE_BITS + 1UL : 0UL))
		return;
	if (errno != EPERM && errno != EACCES && errno != ENOSYS)
		fail(r, "set_mempolicy", "");
	note(r, "set_mempolicy", "");
}

void op_personality(struct run *r, const struct op *op)
{
	if (personality((unsigned long)U(op, F_PERSONALITY_DOMAIN)) < 0)
		fail(r, "personality", "");
}
