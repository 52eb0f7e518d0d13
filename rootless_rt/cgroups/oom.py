"""Memory that ran out: how often a cgroup says so, and hearing of it without looking again and again.

Source: Documentation/admin-guide/cgroup-v2.rst (memory.events), cgroup-v1/memory.rst (memory.oom_control,
cgroup.event_control). Must not know containers.
"""

from __future__ import annotations

import posix
import select

from . import fs
from .change import folder_of
from .stats import flat, single

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import Manager

_REMOVAL_MS = 1000
_NEAR = 16  # a peak nearer to the limit than this part of it has met it


class Watch:
    """Waits for the container's memory to run out; `fd` is to be polled for `mask`."""

    __slots__ = ("_counted", "_file", "_v1", "fd", "mask")

    def __init__(self, folder: str) -> None:
        """Begin. Raises OSError where the kernel does not tell."""
        self._v1 = False
        try:
            self._file = posix.open(f"{folder}/memory.events", posix.O_RDONLY | posix.O_CLOEXEC)
        except FileNotFoundError:
            self._file = posix.open(f"{folder}/memory.oom_control", posix.O_RDONLY | posix.O_CLOEXEC)
            self._v1 = True
        self.fd, self.mask = self._file, select.POLLPRI
        if self._v1:
            self.fd, self.mask = _register(folder, self._file), select.POLLIN
        self._counted = self._kills() or 0

    def _kills(self) -> int | None:
        """How many processes were killed; None when the cgroup is gone."""
        try:
            return flat(posix.pread(self._file, 4096, 0)).get("oom_kill", 0)
        except OSError:
            return None

    def _signals(self) -> int:
        try:
            return posix.eventfd_read(self.fd)
        except BlockingIOError:
            return 0

    def fresh(self) -> int:
        """How often memory has run out since the last call, while the container lives."""
        if self._v1:
            # Told before the kernel kills: its count of the killed is not to be asked yet.
            found = self._signals()
            self._counted += found
            return found
        kills = self._kills() or 0
        found = max(0, kills - self._counted)
        self._counted = max(kills, self._counted)
        return found

    def last(self) -> int:
        """The same once the container has ended, when its cgroup may be gone."""
        if not self._v1:
            return self.fresh()
        found = self._signals()
        kills = self._kills()
        if kills is not None:
            return max(found, kills - self._counted, 0)
        # Removing the cgroup is signalled like running out of memory, a little later: take one off.
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        while found < 2 and poll.poll(_REMOVAL_MS if not found else _REMOVAL_MS // 10):
            found += self._signals()
        return max(0, found - 1)

    def close(self) -> None:
        """Let go of the descriptors."""
        posix.close(self._file)
        if self._v1:
            posix.close(self.fd)


def _register(folder: str, file: int) -> int:
    fd = posix.eventfd(0, posix.EFD_CLOEXEC | posix.EFD_NONBLOCK)
    try:
        fs.put(f"{folder}/cgroup.event_control", f"{fd} {file}")
    except OSError:
        posix.close(fd)
        posix.close(file)
        raise
    return fd


def watch(manager: Manager) -> Watch | None:
    """A Watch of the container's cgroup; None where no memory controller serves it."""
    folder = folder_of(manager)("memory")
    if folder is None:
        return None
    try:
        return Watch(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise fs.failure("cannot watch for memory running out", folder, error) from error


def explanation(manager: Manager) -> str | None:
    """Why SIGKILL has ended a container, if memory had run out; None if it had not, or nobody knows."""
    folder = folder_of(manager)("memory")
    if folder is None:
        return None
    told, version = fs.read_bytes(f"{folder}/memory.events"), 2
    if told is None:
        told, version = fs.read_bytes(f"{folder}/memory.oom_control"), 1
    name = "memory.max" if version == 2 else "memory.limit_in_bytes"
    limit = fs.read_bytes(f"{folder}/{name}")
    if manager.kind == "systemd" and (told is None or limit is None):
        return _explanation_without(manager)
    events, most = flat(told), single(limit)
    if not events.get("oom_kill"):
        return None
    if version == 2:
        own = bool(events.get("oom"))
    else:
        # No count tells the own limit from others' (failcnt stays 0 on newer kernels), but the peak does.
        own = single(fs.read_bytes(f"{folder}/memory.max_usage_in_bytes")) >= most - most // _NEAR
    if own:
        return f"the container ran out of memory ({name}={most})"
    return "the kernel killed the container for lack of memory in a cgroup above it, or on the host"


def _explanation_without(scope: Any) -> str | None:
    """The same when the cgroup has gone: systemd removes a scope's as soon as nothing runs in it."""
    if scope.killed_since() <= 0:
        return None
    return f"the container most likely ran out of memory: the kernel has killed for that in {scope.slice}"
