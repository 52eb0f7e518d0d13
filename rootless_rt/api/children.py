"""A container's process that is a child of this one: waited for by its pidfd, and by nothing else.

Knows what a program around us can do to its children: ignore SIGCHLD, so that the kernel keeps no status, or
wait for all of them. Must not know containers.
"""

from __future__ import annotations

import fcntl
import os
import posix
import struct

from rootless_rt.api.process import Ending
from rootless_rt.errors import RtError

_INFO_SIZE, _STATUS_AT = 64, 60  # struct pidfd_info
_INFO_EXIT = 1 << 3
_GET_INFO = 0xC000FF0B | _INFO_SIZE << 16  # _IOWR(0xFF, 11, struct pidfd_info)


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


def exit_status(pidfd: int) -> int | None:
    """The wait status that the kernel keeps with a pidfd (PIDFD_INFO_EXIT); None before Linux 6.15."""
    info = bytearray(_INFO_SIZE)
    struct.pack_into("=Q", info, 0, _INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info)
    except OSError:
        return None
    mask, status = struct.unpack_from("=Q", info, 0)[0], struct.unpack_from("=i", info, _STATUS_AT)[0]
    return status if mask & _INFO_EXIT else None


def close(fd: int) -> None:
    """Close a descriptor that may be -1."""
    if fd >= 0:
        os.close(fd)
