/* The seccomp filter, and the listener of one that notifies an agent. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "rt.h"

/* What seccomp(2) returns: 0, or a listener. -1 and errno when the filter is not loaded. */
static long load(struct run *r, const struct field *program, uint64_t flags)
{
	struct sock_fprog filter = {.len = (unsigned short)(program->n / sizeof(struct sock_filter))};
	void *copy = malloc(program->n);

	/* The kernel counts in 16 bits: a longer program must not become its own beginning. */
	if (program->n / sizeof(struct sock_filter) > BPF_MAXINSNS || program->n % sizeof(struct sock_filter)) {
		errno = E2BIG;
		fail(r, "seccomp", "");
	}
	if (!copy)
		fail(r, "malloc", "");
	memcpy(copy, program->s, program->n); /* the plan's bytes are not aligned */
	filter.filter = copy;
	r->trace = 0; /* from here on every system call is the filter's to judge: free(3) could make one */
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, (unsigned)flags, &filter);
}

void op_seccomp(struct run *r, const struct op *op)
{
	if (load(r, &op->f[F_SECCOMP_PROGRAM], U(op, F_SECCOMP_FLAGS)))
		fail(r, "seccomp", "");
}

#define NO_LISTENER -1
static const struct timespec moment = {.tv_nsec = 50000};

static struct {
	struct run *r;
	atomic_int ready;
	atomic_int listener;
	atomic_int handed_over;
} shared = {.listener = NO_LISTENER};

/*
 * The second thread: a filter without TSYNC is that of the thread that loads it, so this one stays free.
 * It ends with the process at the latest when the program starts.
 */
static void *hand_over(void *unused)
{
	const struct sched_param normal = {0};
	int32_t pid;
	int fd;

	/*
	 * Under SCHED_FIFO, with one processor, it would never run again while the other does not sleep. For
	 * normal threads the kernel keeps some time. A raw call: musl's is a stub.
	 */
	syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &normal);
	atomic_store(&shared.ready, 1);
	while ((fd = atomic_load(&shared.listener)) == NO_LISTENER)
		nanosleep(&moment, NULL);
	send_message(shared.r, MSG_LISTENER, 0, 0, "", "", fd);
	if (receive_go(shared.r->sock, &pid))
		_exit(1); /* nobody would answer the program's calls */
	close(fd); /* for both threads: whoever holds it decides what the program may do */
	atomic_store(&shared.handed_over, 1);
	return unused;
}

/*
 * Sending the listener takes system calls, and the thread that has the filter can make none: each could be
 * denied, or wait for an agent that has no listener yet. So it only looks at memory until that is done.
 */
void op_seccomp_listen(struct run *r, const struct op *op)
{
	pthread_t thread;
	long fd;

	shared.r = r;
	errno = pthread_create(&thread, NULL, hand_over, NULL);
	if (errno)
		fail(r, "thread", "");
	while (!atomic_load(&shared.ready))
		nanosleep(&moment, NULL);
	fd = load(r, &op->f[F_SECCOMP_LISTEN_PROGRAM], U(op, F_SECCOMP_LISTEN_FLAGS));
	if (fd < 0)
		fail(r, "seccomp", "");
	atomic_store(&shared.listener, (int)fd);
	while (!atomic_load(&shared.handed_over))
		;
}
