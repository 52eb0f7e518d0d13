"""Changing limits of a cgroup that is in use: in an order that the kernel takes, and all of them or none.

Knows files and what to write into one to have its old value back. Must not know where limits come from. While
a container runs, a limit may not pass another on its way (memory and memory with swap, quota and burst), nor
those of the cgroups above: what is refused is tried again once others have been written.
"""

from __future__ import annotations

from rootless_rt import paths
from rootless_rt.errors import RtError
from rootless_rt.spec.names import decimal

from . import fs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from . import Manager
    from .limits import Limit

# Written before the others when raised: then nothing is killed or refused that fits into the new limits.
_FIRST_WHEN_RAISED = ("memory.swap.max", "memory.memsw.limit_in_bytes")
_FIRST_WHEN_LOWERED = ("cpu.max.burst", "cpu.cfs_burst_us")
# Files of one line a device or name; what a line that was not there before has to become again.
_KEYED = {
    "io.max": "rbps=max wbps=max riops=max wiops=max",
    "misc.max": "max",
    "rdma.max": "hca_handle=max hca_object=max",
    "io.weight": "default",
    "io.bfq.weight": "default",
    "net_prio.ifpriomap": "0",
    "blkio.weight_device": "0",
    "blkio.bfq.weight_device": "0",
    "blkio.leaf_weight_device": "0",
    "blkio.throttle.read_bps_device": "0",
    "blkio.throttle.write_bps_device": "0",
    "blkio.throttle.read_iops_device": "0",
    "blkio.throttle.write_iops_device": "0",
}


def folder_of(manager: Manager) -> Callable[[str], str | None]:
    """Where a container's cgroup has the files of a controller; None where it has not."""
    inner: Any = getattr(manager, "inner", manager)
    if inner.version == 0:
        return lambda controller: None
    dir_of = getattr(inner, "dir_of", None)
    if dir_of is None:
        return lambda controller: str(inner.paths[0])
    return lambda controller: dir_of(controller) or inner.dirs.get("unified")


class Change:
    """Limits of one cgroup to be written; `make` does it, `undo` back to when this was made."""

    __slots__ = ("_folder", "_limits", "_manager", "_old")

    def __init__(self, manager: Manager, limits: list[Limit]) -> None:
        self._manager = manager
        self._limits = limits
        self._folder = folder_of(manager)
        self._old = [_before(limit, self._folder) for limit in limits]

    def make(self) -> None:
        """Write all limits. Raises RtError with the JSON path of the first that is refused."""
        early: list[Limit] = []
        late: list[Limit] = []
        for limit in self._limits:
            (early if _comes_first(limit, self._folder) else late).append(limit)
        pending = early + late
        while pending:
            refused: list[Limit] = []
            problem: RtError | None = None
            for limit in pending:
                try:
                    self._manager.apply([limit])
                except RtError as error:
                    refused.append(limit)
                    problem = problem or error
            if problem is not None and len(refused) == len(pending):
                raise problem
            pending = refused

    def undo(self) -> list[str]:
        """Write the old values again; the paths where that was not possible. Never raises."""
        pending: list[tuple[str, str]] = []
        for limit, old in zip(self._limits, self._old, strict=True):
            if _before(limit, self._folder) != old:
                pending += old
        pending.reverse()
        while pending:
            refused = []
            for path, text in pending:
                try:
                    fs.put(path, text)
                except OSError:
                    refused.append((path, text))
            if len(refused) == len(pending):
                return [path for path, _ in refused]
            pending = refused
        return []


def _place(limit: Limit, folder: Callable[[str], str | None]) -> tuple[str, str, str] | None:
    """(path, file, text) of the alternative that will be written."""
    base = folder(limit.controller)
    for file, text in limit.writes:
        if base is not None and paths.exists(f"{base}/{file}"):
            return f"{base}/{file}", file, text
    return None


def _comes_first(limit: Limit, folder: Callable[[str], str | None]) -> bool:
    place = _place(limit, folder)
    if place is None:
        return False
    path, file, text = place
    old, new = _amount((fs.read_bytes(path) or b"").decode("ascii", "replace")), _amount(text)
    return (file in _FIRST_WHEN_RAISED and new > old) or (file in _FIRST_WHEN_LOWERED and new < old)


def _amount(text: str) -> int:
    number = decimal(text.strip())
    return 1 << 64 if number is None else number  # "max" and -1: no limit


def _before(limit: Limit, folder: Callable[[str], str | None]) -> list[tuple[str, str]]:
    place = _place(limit, folder)
    if place is None:
        return []
    path, file, text = place
    data = fs.read_bytes(path)
    if data is None:
        return []  # a file that can only be written
    old = restoring(file, text, data.decode("utf-8", "replace"))
    saved = [] if old is None else [(path, old)]
    if file == "cpu.idle" and old == "0":
        # An idle cgroup forgets its share; written back behind this.
        for other in ("cpu.weight", "cpu.shares"):
            share = fs.read_bytes(path.removesuffix(file) + other)
            if share is not None:
                saved.insert(0, (path.removesuffix(file) + other, share.decode("ascii", "replace").strip()))
    return saved


def restoring(file: str, text: str, content: str) -> str | None:
    """What to write into `file`, which holds `content`, to take back the writing of `text`; None: nothing."""
    lines = content.split("\n")
    if file in _KEYED:
        key = text.partition(" ")[0]
        for line in lines:
            if line.partition(" ")[0] == key:
                return line
        return f"{key} {_KEYED[file]}"
    if file == "memory.oom_control":
        return lines[0].rpartition(" ")[2] or None
    return lines[0] or "\n"
