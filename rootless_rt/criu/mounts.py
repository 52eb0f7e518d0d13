"""A root for CRIU to restore onto: it has to be a mount point, which nobody else needs to see.

The mount namespace is made in a thread, so it is there only for that thread and for what it starts; with
criu's end it is gone, and so it is when this process is killed.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Callable
from typing import TypeVar

from rootless_rt.errors import RtError

_NEWNS = 0x00020000  # linux/sched.h
_BIND, _REC, _SLAVE = 0x1000, 0x4000, 1 << 19  # linux/mount.h
_OPEN_TREE, _MOUNT_SETATTR = 428, 442  # the same on every architecture
_AT_FDCWD, _EMPTY_PATH, _CLONE, _IDMAP = -100, 0x1000, 1, 0x00100000  # fcntl.h, linux/mount.h

Made = TypeVar("Made")


def with_root(directory: str, point: str, action: Callable[[], Made]) -> Made:
    """Run `action` where `directory`, with all mounts in it, is also mounted at `point`, an empty directory.

    Raises RtError, and what the action raises.
    """
    done: list[Made] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            _check(libc.unshare(_NEWNS), "make a mount namespace")
            _check(libc.mount(None, b"/", None, _REC | _SLAVE, None), "make mounts private")
            place, target = os.fsencode(directory), os.fsencode(point)
            _check(libc.mount(place, target, None, _BIND | _REC, None), f"mount {directory}")
            done.append(action())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return done[0]


def with_ids(directory: str, userns: int) -> int:
    """A descriptor of `directory` in which root's files belong to root of a user namespace.

    CRIU opens images from within that namespace as well (mount_setattr(2), MOUNT_ATTR_IDMAP). -1 where the
    file system cannot do that.
    """
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    tree: int = syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(directory), _CLONE | os.O_CLOEXEC)
    if tree < 0:
        return -1
    attributes = struct.pack("=4Q", _IDMAP, 0, 0, userns)
    if syscall(_MOUNT_SETATTR, tree, b"", _EMPTY_PATH, attributes, len(attributes)):
        os.close(tree)
        return -1
    return tree


def _check(failed: int, what: str) -> None:
    if failed:
        raise RtError(f"cannot {what}: {os.strerror(ctypes.get_errno()).lower()}")
