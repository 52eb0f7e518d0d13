"""The driver of cgroup v1 hierarchies, and of the v2 tree beside them on hybrid hosts.

Knows what v1 needs that v2 does not: one directory in every hierarchy, cpuset values that are not inherited,
a freezer that must be asked again. Must not know how the places were chosen.
"""

from __future__ import annotations

import time

from rootless_rt import paths
from rootless_rt.errors import RtError

from . import fs, host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .limits import Limit

FREEZE_SECONDS = 10.0
UNIFIED = "unified"


class V1:
    """The container's cgroups; `dirs`: hierarchy ("cpu,cpuacct", "name=systemd", "unified") -> directory."""

    __slots__ = ("_made", "_parents", "dirs", "paths", "reason")
    kind = "v1"
    version = 1

    def __init__(self, dirs: dict[str, str], reason: str | None = None) -> None:
        self.dirs = dirs
        self.paths = list(dirs.values())
        self.reason = reason
        self._made: list[str] = []
        self._parents: list[str] = []  # as recorded

    @staticmethod
    def from_state(state: dict[str, Any]) -> V1:
        dirs = state.get("paths")
        if not isinstance(dirs, dict) or not all(
            isinstance(path, str) and path.startswith("/") for path in dirs.values()
        ):
            raise RtError("state: cgroup: paths are missing")
        found = V1(dirs, state.get("reason"))
        found._parents = fs.recorded_parents(state, found.paths)
        return found

    def to_state(self) -> dict[str, Any]:
        state = {"kind": self.kind, "paths": self.dirs, "reason": self.reason}
        parents = self._parents or fs.parents(self._made, self.paths)
        return {**state, "parents": parents} if parents else state

    def dir_of(self, controller: str) -> str | None:
        """The directory in the hierarchy of `controller`, if the container has one."""
        for names, path in self.dirs.items():
            if names == controller or controller in names.split(","):
                return path
        return None

    def create(self) -> None:
        """Raises RtError when one cannot be made, or when processes live there already."""
        try:
            for names, path in self.dirs.items():
                fs.make(path, self._made)
                if path not in self._made:
                    self._adopt(path)
                if "cpuset" in names.split(","):
                    _inherit_cpuset(path)
        except BaseException:
            self.undo()
            raise

    def join(self, pid: int) -> None:
        """Move a process in, with those directories made that are missing: systemd made the others."""
        for names, path in self.dirs.items():
            fs.make(path, self._made)
            if "cpuset" in names.split(","):
                _inherit_cpuset(path)
        self.add(pid)

    def undo(self) -> None:
        fs.undo(self._made, self.paths)

    def add(self, pid: int) -> None:
        for path in self.paths:
            try:
                fs.put(path + "/cgroup.procs", str(pid))
            except OSError as error:
                raise fs.failure(f"cannot move process {pid} into the cgroup", path, error) from error

    def below(self, wanted: dict[str, str]) -> V1:
        from . import below

        left = dict(wanted)
        dirs = {}
        for names, path in self.dirs.items():
            asked = {left.pop(name) for name in names.split(",") if name in left}
            if len(asked) > 1:
                raise RtError(f"--cgroup: {names} are one hierarchy: a process has one place in it")
            dirs[names] = below.place(path, asked.pop() if asked else wanted.get("", ""))
        left.pop("", None)
        if left:
            raise RtError(
                f"--cgroup {next(iter(left))}: the container has no cgroup of this controller",
                hint="it has: " + " ".join(self.dirs),
            )
        return V1(dirs)

    def add_beside(self, pid: int, first: int) -> None:
        for names, path in self.dirs.items():
            if names == UNIFIED:
                from .v2 import V2

                V2(path).add_beside(pid, first)
            else:
                V1({names: path}).add(pid)

    def task_files(self) -> list[str]:
        """The files into which a thread writes 0 to move itself into each v1 hierarchy."""
        return [path + "/tasks" for names, path in self.dirs.items() if names != UNIFIED]

    def beside(self) -> V1 | None:
        """The v2 tree beside them, if there is one."""
        return V1({UNIFIED: self.dirs[UNIFIED]}) if UNIFIED in self.dirs else None

    def open_dir(self) -> int | None:
        """The v2 tree beside, if there is one."""
        if UNIFIED not in self.dirs:
            return None
        from .v2 import V2

        return V2(self.dirs[UNIFIED]).open_dir()

    def freeze(self) -> None:
        path = self._freezer()
        if path is None:
            from . import v2

            v2.freeze(self._unified_or_error("pause"))
            return
        # The kernel freezes those it finds and goes on when asked again (freezer-subsystem.rst): a process
        # that forks meanwhile may need another turn. There is no event to wait for.
        deadline = time.monotonic() + FREEZE_SECONDS
        delay = 0.0005
        try:
            while True:
                fs.put(path + "/freezer.state", "FROZEN")
                if (fs.read_bytes(path + "/freezer.state") or b"").strip() == b"FROZEN":
                    return
                if time.monotonic() >= deadline:
                    break
                time.sleep(delay)
                delay = min(delay * 2, 0.02)
            fs.put(path + "/freezer.state", "THAWED")
        except OSError as error:
            raise fs.failure("cannot freeze the cgroup", path, error) from error
        raise RtError(
            f"cannot freeze the cgroup: {path}: some processes did not stop in {FREEZE_SECONDS:.0f} seconds",
            hint="a process waits inside the kernel (disk, network file system); try again later",
        )

    def thaw(self) -> None:
        path = self._freezer()
        if path is None:
            from . import v2

            v2.thaw(self._unified_or_error("resume"))
            return
        try:
            fs.put(path + "/freezer.state", "THAWED")
        except OSError as error:
            raise fs.failure("cannot thaw the cgroup", path, error) from error

    def frozen(self) -> bool:
        file = self.freezer()
        return file is not None and fs.says_one(file)

    def freezer(self) -> str | None:
        path = self._freezer()
        if path is not None:
            return path + "/freezer.self_freezing"
        if UNIFIED in self.dirs:
            from . import v2

            return v2.freezer(self.dirs[UNIFIED])
        return None

    def kill(self, timeout: float = 10.0) -> bool:
        """Freeze (then nothing forks), signal, thaw (a frozen v1 process cannot die), until all are gone."""
        from .tree import kill_all

        if UNIFIED in self.dirs:
            from .v2 import kill_file

            kill_file(self.dirs[UNIFIED])
        try:
            deadline = time.monotonic() + timeout
            return kill_all(self._frozen_procs, deadline, lambda: self._ask_freezer("THAWED"))
        finally:
            self._ask_freezer("THAWED")

    def procs(self) -> list[int]:
        """From all hierarchies: a process that left one of them is still ours in the others."""
        from .tree import pids

        found: set[int] = set()
        for path in self.paths:
            found.update(pids(path))
        return sorted(found)

    def delete(self, timeout: float = 2.0) -> None:
        deadline = time.monotonic() + timeout
        failed: RtError | None = None
        for path in self.paths:
            try:
                fs.remove(path, max(0.0, deadline - time.monotonic()), time.sleep)
            except RtError as error:
                failed = error
        if failed is not None:
            raise failed
        fs.remove_parents(self._parents)

    def removal(self) -> tuple[list[str], list[str]]:
        return self.paths, self._parents[::-1]

    def set_devices(self, rules: list[dict[str, Any]]) -> str | None:
        path = self.dir_of("devices")
        if path is not None:
            from . import devices

            return devices.write_v1(path, rules)
        if UNIFIED in self.dirs:
            from . import bpf_devices

            return bpf_devices.attach(self.dirs[UNIFIED], rules)
        return "device access is not limited: no devices controller is at hand"

    def lacking(self, controllers: set[str]) -> dict[str, tuple[str, str]]:
        absent = {name for name in controllers if self.dir_of(name) is None}
        if absent and UNIFIED in self.dirs:
            from .controllers import missing

            path = self.dirs[UNIFIED]
            absent &= set(missing(path, absent, host.view().unified or path))
        why = self.reason or "this host has no such controller"
        return {name: (f'controller "{name}" is not at hand: {why}', "") for name in absent}

    def apply(self, limits: list[Limit]) -> None:
        from .apply import write_limits
        from .v2 import write

        write_limits([limit for limit in limits if self.dir_of(limit.controller)], self.dir_of)
        rest = [limit for limit in limits if not self.dir_of(limit.controller)]
        if rest and UNIFIED in self.dirs:
            write(self.dirs[UNIFIED], rest)

    def _freezer(self) -> str | None:
        return self.dir_of("freezer")

    def _frozen_procs(self) -> list[int]:
        self._ask_freezer("FROZEN")
        return self.procs()

    def _ask_freezer(self, state: str) -> None:
        path = self._freezer()
        if path is not None:
            try:
                fs.put(path + "/freezer.state", state)
            except OSError:
                pass

    def _unified_or_error(self, verb: str) -> str:
        path = self.dirs.get(UNIFIED)
        if path is None:
            raise RtError(
                f"cannot {verb}: the container has no freezer cgroup",
                hint="create it where the freezer can be used: as root, or on a host with cgroup v2",
            )
        return path

    def _adopt(self, path: str) -> None:
        """Take over a cgroup that was there before: only an empty one, not left frozen. Raises RtError."""
        from .tree import pids
        from .v2 import occupied

        if pids(path):
            raise occupied(path)
        if path == self._freezer():
            self._ask_freezer("THAWED")


def _inherit_cpuset(path: str) -> None:
    """Give a new v1 cpuset its parent's CPUs and memory nodes: without, no process may enter (cpuset(7)).

    Goes up as far as values are missing, and fills from there down. Raises RtError.
    """
    for name in ("cpuset.cpus", "cpuset.mems"):
        unset: list[str] = []
        here = path
        value = fs.read_bytes(here + "/" + name)
        while value is not None and not value.strip():
            unset.append(here)
            here = paths.dirname(here)
            value = fs.read_bytes(here + "/" + name)
        if value is None:
            continue
        for below in reversed(unset):
            try:
                fs.put(below + "/" + name, value.decode().strip())
            except OSError as error:
                raise fs.failure(f"cannot set {name}", below, error) from error
