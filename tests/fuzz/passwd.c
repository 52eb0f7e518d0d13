/* libFuzzer target: HOME out of an /etc/passwd that the image made, through the op itself. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rt.h"

/* What main.c has, which cannot be linked here. */
int fills_slot(const struct run *r, uint64_t slot)
{
	return r->slots[slot].fd > 0;
}

int slot_fd(struct run *r, uint64_t slot)
{
	return r->slots[slot].fd - 1;
}

void set_slot(struct run *r, uint64_t slot, int fd)
{
	r->slots[slot].fd = fd + 1;
}

void reset_signals(void)
{
}

void unblock_signals(void)
{
}

void await_runtime(struct run *r)
{
	r->index = 0;
}

void clear_run(struct run *r, int sock)
{
	r->sock = sock;
}

void take_plan(struct run *r, uint64_t first)
{
	r->index = (uint32_t)first;
}

void adopt_plan(struct run *r, const unsigned char *bytes, size_t size)
{
	r->end = plan_open(&r->plan, bytes, size) ? 0 : r->plan.count;
}

static struct run state = {.sock = -1};
static char folder[] = "/dev/shm/rt-fuzz-XXXXXX";
static int file = -1;

static void clean(void)
{
	unlinkat(slot_fd(&state, 0), "etc/passwd", 0);
	unlinkat(slot_fd(&state, 0), "etc", AT_REMOVEDIR);
	rmdir(folder);
}

static void set_up(void)
{
	char path[64];

	if (!mkdtemp(folder))
		abort();
	state.proc = open("/proc", O_PATH | O_DIRECTORY);
	set_slot(&state, 0, open(folder, O_PATH | O_DIRECTORY));
	snprintf(path, sizeof path, "%s/etc", folder);
	mkdir(path, 0755);
	snprintf(path, sizeof path, "%s/etc/passwd", folder);
	file = open(path, O_RDWR | O_CREAT, 0644);
	if (file < 0 || state.proc < 0 || slot_fd(&state, 0) < 0)
		abort();
	atexit(clean);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint64_t uids[] = {0, 1000, 4294967295u};
	struct op op;

	if (file < 0)
		set_up();
	if (ftruncate(file, 0) || pwrite(file, data, size, 0) != (ssize_t)size)
		abort();
	for (size_t i = 0; i < sizeof uids / sizeof *uids; i++) {
		memset(&op, 0, sizeof op);
		op.f[F_HOME_UID].u = uids[i];
		memset(state.home, 'x', sizeof state.home);
		op_home(&state, &op);
		/* Always a whole variable, and never a relative directory. */
		if (!memchr(state.home, 0, sizeof state.home) || strncmp(state.home, "HOME=/", 6))
			abort();
		if (strchr(state.home, '\n') || strchr(state.home + 5, ':'))
			abort();
	}
	return 0;
}
