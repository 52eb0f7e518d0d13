"""All processes of a container: which they are, and a signal for each of them.

They are told by the cgroup where the container has one of its own, else by its pid namespace
(pid_namespaces(7)) and those nested in it. Without either only the first process is known. Loaded by what
asks for all of them (`ps`, `kill --all`), by no other command.
"""

from __future__ import annotations

import fcntl
import posix

from rootless_rt.container import processes
from rootless_rt.container.record import has_cgroup, manager
from rootless_rt.spec.names import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_NS_GET_PARENT = 0xB702  # ioctl_ns(2)
_BATCH = 256  # pidfds held at once: well below the usual limit of 1024 descriptors


def members(state: dict[str, Any]) -> list[int]:
    """The container's live processes, as numbered in our pid namespace, sorted. Raises RtError.

    `state` is that of a container whose first process runs.
    """
    if has_cgroup(state):
        found = manager(state).procs()
        if found:
            return found
    if state["ownPid"]:
        found = _of_namespace(state["pid"])
        # Only now: the numbers are its processes' if it had its namespace all the time.
        if found and processes.is_alive(state):
            return found
    return [state["pid"]] if processes.is_alive(state) else []


def _of_namespace(first: int) -> list[int]:
    """The processes in the pid namespace of the process `first`, and in namespaces below it."""
    own = _namespace(first)
    if own is None:
        return []
    inside: dict[tuple[int, int], bool] = {own: True}
    found = []
    for name in posix.listdir("/proc"):
        pid = decimal(name)
        if pid is None:
            continue
        identity = _namespace(pid)
        if identity is None:
            continue
        if identity not in inside:
            inside[identity] = _descends(pid, own)
        if inside[identity]:
            found.append(pid)
    return sorted(found)


def _namespace(pid: int) -> tuple[int, int] | None:
    """What tells the pid namespace of a process from others; None where it has ended or is closed to us."""
    try:
        status = posix.stat(f"/proc/{pid}/ns/pid")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _descends(pid: int, own: tuple[int, int]) -> bool:
    """Whether the pid namespace of `pid` lies somewhere below the one that is `own`."""
    try:
        fd = posix.open(f"/proc/{pid}/ns/pid", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return False
    while True:
        try:
            parent = fcntl.ioctl(fd, _NS_GET_PARENT)
        except OSError:  # EPERM: the parent is no namespace that we may see
            return False
        finally:
            posix.close(fd)
        fd = parent
        status = posix.fstat(fd)
        if (status.st_dev, status.st_ino) == own:
            posix.close(fd)
            return True


def signal_members(state: dict[str, Any], number: int) -> None:
    """Send a signal to every process of a container whose first process runs. Raises RtError."""
    _signal(lambda: members(state), number)


def signal_left(state: dict[str, Any], number: int) -> None:
    """Send a signal to what its cgroup still holds of a container whose first process has ended."""
    if has_cgroup(state):
        _signal(manager(state).procs, number)


def _signal(listed: Callable[[], list[int]], number: int) -> None:
    wanted = listed()
    for start in range(0, len(wanted), _BATCH):
        pinned: list[tuple[int, int]] = []
        try:
            for pid in wanted[start : start + _BATCH]:
                try:
                    pinned.append((pid, posix.pidfd_open(pid)))
                except OSError:
                    continue  # has ended
            # A number may be somebody else's by now: what is listed still, once it is held, is not.
            still = set(listed())
            for pid, pidfd in pinned:
                if pid in still:
                    processes.send_signal(pidfd, number)
        finally:
            for _, pidfd in pinned:
                posix.close(pidfd)
