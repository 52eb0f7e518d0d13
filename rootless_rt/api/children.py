"""A container's process that is a child of this one: waited for by its pidfd, and by nothing else.

Knows what a program around us can do to its children: ignore SIGCHLD, so that the kernel keeps no status, or
wait for all of them. Must not know containers.
"""

from __future__ import annotations

import posix

from rootless_rt.api.process import Ending
from rootless_rt.errors import RtError
from rootless_rt.host.pidfd import exit_status


def reap(pid: int, pidfd: int) -> Ending:
    """How the child `pid`, which has ended, did so. Raises RtError when somebody else has asked already."""
    try:
        posix.waitid(posix.P_PIDFD, pidfd, posix.WEXITED | posix.WNOWAIT)  # only if it is still that one
        _, status, rusage = posix.wait4(pid, 0)
        return Ending(status, rusage)
    except ChildProcessError:
        pass
    status_of = exit_status(pidfd)
    if status_of is not None:
        return Ending(status_of, None)
    raise RtError(
        "nobody can tell how the process ended: this program ignores SIGCHLD, or waits for every child",
        hint="signal.signal(SIGCHLD, SIG_DFL), or use a Sandbox, which has a process of its own to wait",
    )
