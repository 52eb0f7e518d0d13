/* Files of /proc that are opened early and written late. */
#include <errno.h>

#include "rt.h"

/*
 * The host's /proc is closed before the image's programs can look at this process (close_others), but
 * a label for the program (self/attr) counts for whatever this process starts, hooks too, from the write
 * on. So the file is opened while /proc is there, and written when nothing but the program is left to
 * start. The kernel takes a write to attr from the memory that opened the file: no `clone` in between.
 */
void op_proc_file(struct run *r, const struct op *op)
{
	int fd = proc_file(r->proc, S(op, F_PROC_FILE_PATH));

	if (fd < 0)
		fail(r, "open", S(op, F_PROC_FILE_PATH));
	set_slot(r, U(op, F_PROC_FILE_SLOT), fd);
}

void op_proc_write(struct run *r, const struct op *op)
{
	uint64_t slot = U(op, F_PROC_WRITE_SLOT);
	int fd = slot_fd(r, slot);

	set_slot(r, slot, -1);
	if (write_whole(fd, S(op, F_PROC_WRITE_TEXT)))
		fail(r, "write", S(op, F_PROC_WRITE_TEXT));
}
