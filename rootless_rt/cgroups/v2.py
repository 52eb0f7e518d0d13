"""The driver of one cgroup v2 directory (Documentation/admin-guide/cgroup-v2.rst), written to directly.

Knows the core files of a v2 cgroup. Must not know how the place was chosen, nor controllers' limits.
"""

from __future__ import annotations

import errno
import posix
import time

from rootless_rt.errors import RtError

from . import fs, host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .limits import Limit

FREEZE_SECONDS = 10.0


class V2:
    """The container's cgroup at the directory `path`."""

    __slots__ = ("_made", "_parents", "paths", "reason")
    kind = "v2"
    version = 2

    def __init__(self, path: str, reason: str | None = None) -> None:
        self.paths = [path]
        self.reason = reason
        self._made: list[str] = []
        self._parents: list[str] = []  # as recorded

    @staticmethod
    def from_state(state: dict[str, Any]) -> V2:
        path = state.get("path")
        if not isinstance(path, str) or not path.startswith("/"):
            raise RtError("state: cgroup: path is missing")
        found = V2(path, state.get("reason"))
        found._parents = fs.recorded_parents(state, found.paths)
        return found

    def to_state(self) -> dict[str, Any]:
        state = {"kind": self.kind, "path": self.paths[0], "reason": self.reason}
        parents = self._parents or fs.parents(self._made, self.paths)
        return {**state, "parents": parents} if parents else state

    def create(self) -> None:
        """Raises RtError when it cannot be made, or when processes live there already."""
        path = self.paths[0]
        try:
            fs.make(path, self._made)
            if path not in self._made:
                adopt(path)
            from .controllers import offer

            view = host.view()
            offer(path, view.unified or path, view.own_dir())
        except BaseException:
            self.undo()
            raise

    def undo(self) -> None:
        fs.undo(self._made, self.paths)

    def add(self, pid: int) -> None:
        try:
            fs.put(self.paths[0] + "/cgroup.procs", str(pid))
        except OSError as error:
            raise fs.failure(f"cannot move process {pid} into the cgroup", self.paths[0], error) from error

    def below(self, wanted: dict[str, str]) -> V2:
        from . import below

        if list(wanted) != [""]:
            raise RtError(
                "--cgroup: there are no controllers to choose from on cgroup v2",
                hint="give one path, without a controller",
            )
        return V2(below.place(self.paths[0], wanted[""]))

    def add_beside(self, pid: int, first: int) -> None:
        try:
            fs.put(self.paths[0] + "/cgroup.procs", str(pid))
        except OSError as error:
            # The container has given controllers to cgroups of its own: processes live in those now.
            place = beside(self.paths[0], first) if error.errno in (errno.EBUSY, errno.EOPNOTSUPP) else None
            if place is None:
                self.add(pid)  # in the hope that it was for a moment; else it says what is wrong
            else:
                V2(place).add(pid)

    def open_dir(self) -> int | None:
        try:
            return posix.open(self.paths[0], posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except OSError as error:
            raise fs.failure("cannot open the cgroup", self.paths[0], error) from error

    def freeze(self) -> None:
        freeze(self.paths[0])

    def thaw(self) -> None:
        thaw(self.paths[0])

    def frozen(self) -> bool:
        return frozen(self.paths[0])

    def freezer(self) -> str:
        return freezer(self.paths[0])

    def kill(self, timeout: float = 10.0) -> bool:
        """`cgroup.kill` (Linux 5.14) reaches even what forks; before it, freeze and signal one by one."""
        deadline = time.monotonic() + timeout
        path = self.paths[0]
        if kill_file(path):
            return empty(path, deadline)
        from .tree import kill_all, pids

        try:
            fs.put(path + "/cgroup.freeze", "1")
        except OSError:
            pass
        if not kill_all(lambda: pids(path), deadline, lambda: None):
            return False
        return empty(path, deadline)

    def procs(self) -> list[int]:
        from .tree import pids

        return sorted(pids(self.paths[0]))

    def delete(self, timeout: float = 2.0) -> None:
        fs.remove(self.paths[0], timeout, self._settle)
        fs.remove_parents(self._parents)

    def removal(self) -> tuple[list[str], list[str]]:
        return self.paths, self._parents[::-1]

    def set_devices(self, rules: list[dict[str, Any]]) -> str | None:
        from . import bpf_devices

        return bpf_devices.attach(self.paths[0], rules)

    def lacking(self, controllers: set[str]) -> dict[str, tuple[str, str]]:
        from .controllers import missing

        return missing(self.paths[0], controllers, host.view().unified or self.paths[0])

    def apply(self, limits: list[Limit]) -> None:
        if limits:
            write(self.paths[0], limits)

    def _settle(self, seconds: float) -> None:
        events = fs.read_bytes(self.paths[0] + "/cgroup.events") or b""
        if b"populated 1" in events:
            empty(self.paths[0], time.monotonic() + max(seconds, 0.1))
        else:
            time.sleep(seconds)


def beside(path: str, first: int) -> str | None:
    """The cgroup of process `first`, if it is below `path`."""
    from . import host

    found = host.dir_of(first)
    return found if found is not None and found.startswith(path + "/") else None


def write(path: str, limits: list[Limit]) -> None:
    """Write limits into the v2 cgroup `path`, with their controllers switched on. Raises RtError."""
    from .apply import write_limits
    from .controllers import enable

    view = host.view()
    enable(path, {limit.controller for limit in limits}, view.unified or path, view.own_dir())
    write_limits(limits, lambda controller: path)


def adopt(path: str) -> None:
    """Take over a cgroup that was there before: only an empty one, and not left frozen. Raises RtError."""
    events = fs.read_bytes(path + "/cgroup.events") or b""
    if b"populated 1" in events.split(b"\n"):
        raise occupied(path)
    if frozen(path):
        thaw(path)


def occupied(path: str) -> RtError:
    """The error for a cgroup that others use: taking it would let `delete` kill them."""
    return RtError(
        f"the cgroup is in use already: {path}",
        hint="another container or service has processes there: choose another id or linux.cgroupsPath",
    )


def freeze(path: str) -> None:
    """Freeze and wait until the kernel reports it; thaw and raise RtError when that takes too long."""
    from .tree import wait_event

    try:
        fs.put(path + "/cgroup.freeze", "1")
        if wait_event(path + "/cgroup.events", b"frozen 1", time.monotonic() + FREEZE_SECONDS):
            return
    except OSError as error:
        raise fs.failure("cannot freeze the cgroup", path, error) from error
    thaw(path)
    raise RtError(
        f"cannot freeze the cgroup: {path}: some processes did not stop in {FREEZE_SECONDS:.0f} seconds",
        hint="a process waits inside the kernel (disk, network file system); try again later",
    )


def thaw(path: str) -> None:
    """Thaw; the processes run again as soon as the kernel gets to them. Raises RtError."""
    try:
        fs.put(path + "/cgroup.freeze", "0")
    except OSError as error:
        raise fs.failure("cannot thaw the cgroup", path, error) from error


def frozen(path: str) -> bool:
    """Whether this very cgroup was told to freeze: what `thaw` can take back, whatever its parents do."""
    return fs.says_one(freezer(path))


def freezer(path: str) -> str:
    """The file that tells whether the cgroup was told to freeze."""
    return path + "/cgroup.freeze"


def kill_file(path: str) -> bool:
    """Write `cgroup.kill`; False when the kernel has no such file or it is closed to us."""
    try:
        fs.put(path + "/cgroup.kill", "1")
    except OSError:
        return False
    return True


def empty(path: str, deadline: float) -> bool:
    """Wait until neither this cgroup nor one below holds a live process; False if `deadline` comes first."""
    from .tree import wait_event

    try:
        return wait_event(path + "/cgroup.events", b"populated 0", deadline)
    except OSError:
        return False
