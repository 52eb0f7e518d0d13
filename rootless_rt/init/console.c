/* The container's terminal: a pty of its own devpts, never one of the host's. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "kernel.h"
#include "rt.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif
#define PTMX_DEVICE makedev(5, 2)
#define PTS_MAJOR 136

/*
 * The other end comes from the open master (TIOCGPTPEER), not from a path that the image could
 * exchange (CVE-2025-52565); both are checked to be what they should.
 */
void op_console(struct run *r, const struct op *op)
{
	static const struct field none;
	uint64_t root = U(op, F_CONSOLE_ROOT);
	int unlock = 0, master, peer, mount;
	struct place at;
	struct winsize size = {.ws_row = (unsigned short)U(op, F_CONSOLE_ROWS),
			       .ws_col = (unsigned short)U(op, F_CONSOLE_COLS)};
	struct statfs fs;
	struct stat st;

	master = in_root(slot_fd(r, root), "dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW, 0);
	if (master < 0)
		fail(r, "open", "/dev/pts/ptmx");
	if (fstatfs(master, &fs) || fs.f_type != DEVPTS_SUPER_MAGIC || fstat(master, &st) ||
	    !S_ISCHR(st.st_mode) || st.st_rdev != PTMX_DEVICE) {
		errno = ENODEV;
		fail(r, "device", "/dev/pts/ptmx");
	}
	if (ioctl(master, TIOCSPTLCK, &unlock))
		fail(r, "TIOCSPTLCK", "/dev/pts/ptmx");
	peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (peer < 0)
		fail(r, "TIOCGPTPEER", "/dev/pts/ptmx");
	if (fstat(peer, &st) || !S_ISCHR(st.st_mode) || major(st.st_rdev) != PTS_MAJOR) {
		errno = ENODEV;
		fail(r, "device", "/dev/pts");
	}
	if (size.ws_row && ioctl(peer, TIOCSWINSZ, &size))
		fail(r, "TIOCSWINSZ", "/dev/pts");
	set_slot(r, U(op, F_CONSOLE_SLOT), peer);
	send_message(r, MSG_CONSOLE, 0, 0, "", "", master);
	close(master);
	if (!U(op, F_CONSOLE_BIND))
		return;
	at = destination(r, root, "/dev/console", 0, 0, 0);
	mount = k_open_tree(peer, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
	if (mount < 0)
		fail(r, "open_tree", "/dev/console");
	attach(r, mount, &at, &none);
	close(mount);
}
