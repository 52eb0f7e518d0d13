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
_DELEGATED = "cpu cpuset io memory pids"
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
    if controller not in _words(mount, "cgroup.controllers"):
        return f'the kernel, or what surrounds this container, has no controller "{controller}" for it', ""
    here = parent
    while not paths.exists(here + "/cgroup.controllers") and here != mount:
        here = paths.dirname(here)  # to be made
    while True:
        highest = here  # that is ours, if the one above is not
        if controller in _words(here, "cgroup.subtree_control"):
            return None
        if controller not in _words(here, "cgroup.controllers"):
            here = paths.dirname(here)
            if controller in _words(here, "cgroup.subtree_control"):
                return None  # appears below by itself
            if _may_enable(here):
                continue
            return f'controller "{controller}" is not delegated to {_shown(highest, mount)}', _fix(
                controller, highest
            )
        if _may_enable(here):
            return None
        return f'controller "{controller}" cannot be switched on in {here}', _fix(controller, highest)


def _may_enable(path: str) -> bool:
    return posix.access(path + "/cgroup.subtree_control", posix.W_OK, effective_ids=True)


def _shown(path: str, mount: str) -> str:
    return path[len(mount) :] or "/"


def _fix(controller: str, level: str) -> str:
    """How systemd is made to delegate a controller to the cgroup `level`."""
    if controller not in _DELEGATED.split():
        return f"systemd delegates only {_DELEGATED}: without root there is no {controller}"
    setting = f"Delegate={_DELEGATED}"
    _, found, rest = level.partition("/user@")
    if not found:
        return f"have what made that cgroup delegate it, as systemd does with {setting} in a unit"
    folder = "/etc/systemd/system/user@.service.d"
    return (
        f"as root: mkdir -p {folder}; printf '[Service]\\n{setting}\\n' > {folder}/delegate.conf; "
        "systemctl daemon-reload; then log out and in again, or: systemctl restart "
        f"user@{rest.partition('/')[0]}"
    )


def enable(path: str, wanted: set[str], mount: str, own: str | None) -> None:
    """Switch controllers on for the cgroup `path` in every level above it. Raises RtError.

    `own` is the cgroup of this process: when it is in the way, all its processes move to a leaf below it.
    """
    for level in _levels(path, mount):
        on = _words(level, "cgroup.subtree_control")
        lacking = sorted((wanted - {CORE} - on) & _words(level, "cgroup.controllers"))
        # Also for those controllers that bear processes beside them (cpu, pids): the cgroups below, which are
        # not threaded, would be invalid. The root of all, which has no type, bears everything.
        if lacking and level == own and _may_enable(level) and paths.exists(level + "/cgroup.type"):
            _evacuate(level)
        for controller in lacking:
            _switch_on(level, controller)


def offer(path: str, mount: str, own: str | None) -> None:
    """Switch on all controllers for the cgroup `path` that can be had without moving anybody. Never raises.

    For statistics: without its controller a cgroup has no file that counts.
    """
    for level in _levels(path, mount):
        if level == own and paths.exists(level + "/cgroup.type"):
            return
        for controller in sorted(
            _words(level, "cgroup.controllers") - _words(level, "cgroup.subtree_control")
        ):
            try:
                fs.put(level + "/cgroup.subtree_control", "+" + controller)
            except OSError:
                continue  # it has processes, or is not ours


def _levels(path: str, mount: str) -> list[str]:
    """The cgroups above `path`, from the mount point down."""
    levels = []
    here = paths.dirname(path)
    while here == mount or here.startswith(mount + "/"):
        levels.append(here)
        if here == mount:
            break
        here = paths.dirname(here)
    levels.reverse()
    return levels


def _switch_on(level: str, controller: str) -> None:
    try:
        fs.put(level + "/cgroup.subtree_control", "+" + controller)
    except OSError as error:
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
