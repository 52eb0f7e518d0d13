"""CVE-2017-5226: a program of the container types commands into the caller's terminal (TIOCSTI)."""

from __future__ import annotations

import os
import pty
import select
from typing import Any

from conftest import Either
from lab.attack import compiled

TYPE = r"""
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

int main(void)
{
	const char *c = "evil\n";
	int typed = 0;

	/* The second form has bits above 32 that a careless filter compares and the kernel ignores. */
	for (; *c; c++)
		if (!ioctl(0, TIOCSTI, c) || !ioctl(0, TIOCSTI | 0x100000000UL, c))
			typed++;
	fprintf(stderr, "typed %d, %s\n", typed, strerror(errno));
	return 0;
}
"""


def test_a_container_cannot_type_into_the_caller_s_terminal(either: Either) -> None:
    rt, bundle = either
    made = bundle(["/type"])
    compiled(TYPE, made.rootfs / "type")
    master, slave = pty.openpty()
    try:
        # The terminal is stdin of a session that has it as its own, as a shell's foreground program has.
        session: dict[str, Any] = {"start_new_session": True, "preexec_fn": _own_terminal}
        done = rt("run", "--bundle", str(made.path), "c", stdin=slave, **session)
        assert done.stderr.startswith("typed 0, "), done
        assert done.returncode == 0
        ready = select.select([slave], [], [], 0.1)[0]
        assert not ready, os.read(slave, 100)
    finally:
        os.close(master)
        os.close(slave)


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 1)
