"""One child that tries what every container needs, and vanishes with all that it made.

It makes a user namespace, maps its own ids, makes a mount namespace, mounts a tmpfs there, and in a pid
namespace a proc. Nothing of this can be seen outside of the child. Which refusal came from where is
`userns`'s to say.
"""

from __future__ import annotations

import ctypes
import os

NEWNS, NEWUSER, NEWPID = 0x00020000, 0x10000000, 0x20000000  # linux/sched.h
_REC_PRIVATE = 0x4000 | 1 << 18  # linux/mount.h: MS_REC, MS_PRIVATE
USERNS, MAP, MOUNTS, TMPFS, PIDS, PROC = (
    "user namespace",
    "id map",
    "mount namespace",
    "tmpfs",
    "pids",
    "proc",
)


class Probe:
    """How far the child came: `refused` is one of the steps above, or "" when all went well; `errno` its
    error."""

    __slots__ = ("errno", "refused")

    def __init__(self, refused: str = "", errno: int = 0) -> None:
        self.refused = refused
        self.errno = errno


def probe() -> Probe | None:
    """Try it. None when the child could not even be made."""
    try:
        source, sink = os.pipe()
        pid = os.fork()
    except OSError:
        return None
    if pid == 0:
        try:
            _try(sink, os.geteuid(), os.getegid())
        finally:
            os._exit(0)
    os.close(sink)
    with open(source, "rb") as file:
        said = file.read(64).decode("ascii", "replace")
    os.waitpid(pid, 0)
    step, _, number = said.rpartition(":")
    if not number.isascii() or not number.isdigit():
        return None  # killed, by a filter for one
    return Probe(step, int(number))


def _try(sink: int, uid: int, gid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    step = USERNS
    try:
        _check(libc.unshare(NEWUSER))
        step = MAP
        _put("/proc/self/setgroups", "deny")
        _put("/proc/self/uid_map", f"0 {uid} 1")
        _put("/proc/self/gid_map", f"0 {gid} 1")
        step = MOUNTS
        _check(libc.unshare(NEWNS))
        _check(libc.mount(None, b"/", None, _REC_PRIVATE, None))
        step = TMPFS
        _check(libc.mount(b"tmpfs", b"/proc", b"tmpfs", 0, None))
        _check(libc.umount2(b"/proc", 0))
        step = PIDS
        _check(libc.unshare(NEWPID))
        step = PROC
        pid = os.fork()
        if pid == 0:
            failed = libc.mount(b"proc", b"/proc", b"proc", 0, None)
            os._exit(ctypes.get_errno() if failed else 0)
        os.write(sink, _said(step, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    except OSError as error:
        os.write(sink, _said(step, error.errno or 0))


def _said(step: str, number: int) -> bytes:
    return f"{step if number else ''}:{max(number, 0)}".encode()


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "")


def _put(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
