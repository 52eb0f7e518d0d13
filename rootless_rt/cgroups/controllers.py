"""Which v2 controllers a cgroup can have, and switching them on for it level by level.

A controller serves a cgroup when its parent lists it in cgroup.subtree_control, which the parent can when its
own parent does so, and so on (Documentation/admin-guide/cgroup-v2.rst, "Controlling Controllers"). A cgroup
that holds processes cannot give controllers to children. Must not know limits.
"""

from __future__ import annotations

import errno
import posix

from rootless_rt import paths
from rootless_rt.errors import RtError

from . import fs

CORE = "cgroup"  # its files are in every cgroup
LEAF = "init"
"""Where processes go that are in the way, as other tools call it, for they look for it."""


def missing(path: str, wanted: set[str], mount: str) -> dict[str, tuple[str, str]]:
    """Controllers of `wanted` that the cgroup `path` cannot have: name -> (why, fix).

    The cgroup need not exist yet. `mount` is where the v2 tree is mounted. Changes nothing.
    """
    found: dict[str, tuple[str, str]] = {}
    for controller in sorted(wanted - {CORE}):
        reason = _missing(paths.dirname(path), controller, mount)
        if reason:
            found[controller] = reason
    return found


def _missing(parent: str, controller: str, mount: str) -> tuple[str, str] | None:
    """Goes up from the parent to the level that has the controller on already."""
    here = parent
    while not paths.exists(here + "/cgroup.controllers") and here != mount:
        here = paths.dirname(here)  # to be made
    while True:
        if controller in _words(here, "cgroup.subtree_control"):
            return None
        if controller not in _words(here, "cgroup.controllers"):
            if here == mount:
                return (
                    f'the kernel, or what surrounds this container, has no controller "{controller}" for it',
                    "",
                )
            here = paths.dirname(here)
            if controller in _words(here, "cgroup.subtree_control"):
                return None  # appears below by itself
            if _may_enable(here):
                continue
            return f'controller "{controller}" is not delegated to {_shown(parent, mount)}', _fix(controller)
        if _may_enable(here):
            return None
        return f'controller "{controller}" cannot be switched on in {here}', _fix(controller)


def _may_enable(path: str) -> bool:
    return posix.access(path + "/cgroup.subtree_control", posix.W_OK, effective_ids=True)


def _shown(path: str, mount: str) -> str:
    return path[len(mount) :] or "/"


def _fix(controller: str) -> str:
    names = "cpu cpuset io memory pids"
    if controller not in names.split():
        names += " " + controller
    return (
        "as root: mkdir -p /etc/systemd/system/user@.service.d; "
        f"printf '[Service]\\nDelegate={names}\\n' > /etc/systemd/system/user@.service.d/delegate.conf; "
        "systemctl daemon-reload; then log in again"
    )


def enable(path: str, wanted: set[str], mount: str, own: str | None) -> None:
    """Switch controllers on for the cgroup `path` in every level above it. Raises RtError.

    `own` is the cgroup of this process: when it is in the way, all its processes move to a leaf below it.
    """
    levels = []
    here = paths.dirname(path)
    while here == mount or here.startswith(mount + "/"):
        levels.append(here)
        if here == mount:
            break
        here = paths.dirname(here)
    for level in reversed(levels):
        on = _words(level, "cgroup.subtree_control")
        for controller in sorted(wanted - {CORE} - on):
            if controller in _words(level, "cgroup.controllers"):
                _switch_on(level, controller, own)


def _switch_on(level: str, controller: str, own: str | None) -> None:
    for attempt in range(2):
        try:
            fs.put(level + "/cgroup.subtree_control", "+" + controller)
            return
        except OSError as error:
            if error.errno == errno.EBUSY and level == own and not attempt:
                _evacuate(level)
                continue
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                return  # a level of others: what it lacks was told as missing
            raise fs.failure(f"cannot switch on the controller {controller}", level, error) from error


def _evacuate(path: str) -> None:
    """Move the processes of a cgroup to a leaf below it. Raises RtError."""
    leaf = path + "/" + LEAF
    fs.make(leaf, [])
    for _ in range(16):  # one that forks meanwhile may leave a child behind
        numbers = (fs.read_bytes(path + "/cgroup.procs") or b"").split()
        if not numbers:
            return
        for number in numbers:
            try:
                fs.put(leaf + "/cgroup.procs", number.decode())
            except OSError as error:
                if error.errno not in (errno.ESRCH, errno.EINVAL):
                    raise fs.failure("cannot move processes out of the way", path, error) from error
    raise RtError(f"cannot empty {path}: new processes appear in it", hint="end the program that forks there")


def _words(path: str, name: str) -> set[str]:
    return set((fs.read_bytes(f"{path}/{name}") or b"").decode("ascii", "replace").split())
