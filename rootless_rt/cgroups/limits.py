"""`linux.resources` as values for the kernel's files: what both cgroup versions have in common.

Source: runtime-spec config-linux.md "Control groups", Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
`limits_v2` and `limits_v1` compile; the drivers write. A value that no kernel takes is an error with its JSON
path here, before anything exists. Pure; must not know directories.
"""

from __future__ import annotations

from rootless_rt.errors import SpecError
from rootless_rt.spec.jsonio import quote
from rootless_rt.spec.names import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROOT = "linux.resources"
_PERIOD_LOW, _PERIOD_HIGH = 1000, 1000000  # microseconds, of the CPU bandwidth controller
_QUOTA_LOW, _QUOTA_HIGH = 1000, (1 << 44) - 1
WEIGHT_LOW, WEIGHT_HIGH = 10, 1000  # of blockIO


class Limit:
    """One value of the config, for one file of one controller.

    field       its JSON path
    controller  the kernel's name of it, such as "memory"
    writes      (file, text) alternatives: the first file that exists is written
    optional    whether a kernel that has none of the files may do without
    """

    __slots__ = ("controller", "field", "optional", "writes")

    def __init__(self, field: str, controller: str, *writes: tuple[str, str], optional: bool = False) -> None:
        self.field = field
        self.controller = controller
        self.writes = writes
        self.optional = optional

    @property
    def asked(self) -> str:
        """What was asked, for messages: the first file and its value."""
        file, text = self.writes[0]
        return f"{file}={text}"

    def __repr__(self) -> str:
        return f"Limit({self.field!r}, {self.controller!r}, {self.writes!r})"


class Compiled:
    """The limits of a container in the order of writing, and (JSON path, text) of what has no effect."""

    __slots__ = ("limits", "notes")

    def __init__(self) -> None:
        self.limits: list[Limit] = []
        self.notes: list[tuple[str, str]] = []

    def add(self, field: str, controller: str, *writes: tuple[str, str], optional: bool = False) -> None:
        """Append a limit."""
        self.limits.append(Limit(field, controller, *writes, optional=optional))

    def note(self, field: str, text: str) -> None:
        """Say that a field has no effect."""
        self.notes.append((field, text))


def compile_limits(resources: dict[str, Any], version: int, root: str = ROOT) -> Compiled:
    """The limits of a `linux.resources` object that the schema accepted, for cgroup v1 or v2.

    `root` is its JSON path. Raises SpecError with the path of the value that no kernel takes.
    """
    check(resources, root)
    if version == 1:
        from . import limits_v1

        return limits_v1.compile_v1(resources, root)
    from . import limits_v2

    return limits_v2.compile_v2(resources, root)


def check(resources: dict[str, Any], root: str = ROOT) -> None:
    """Refuse values that neither version of cgroups has a meaning for. Raises SpecError."""
    memory = resources.get("memory", {})
    for name in ("limit", "reservation", "swap", "kernel", "kernelTCP"):
        if memory.get(name, 0) < -1:
            raise SpecError(
                f"{root}.memory.{name}", f"expected bytes, or -1 for no limit, got {memory[name]}"
            )
    if memory.get("swappiness", 0) > 200:
        raise SpecError(f"{root}.memory.swappiness", f"expected 0 to 200, got {memory['swappiness']}")
    _check_swap(memory, root)
    _check_cpu(resources.get("cpu", {}), root + ".cpu")
    _check_block(resources.get("blockIO", {}), root + ".blockIO")
    for index, item in enumerate(resources.get("hugepageLimits", [])):
        if not _is_page_size(item["pageSize"]):
            where = f"{root}.hugepageLimits[{index}].pageSize"
            raise SpecError(where, f"expected a size such as 2MB or 1GB, got {quote(item['pageSize'])}")
    for name in resources.get("rdma", {}):
        _check_name(name, f"{root}.rdma[{quote(name)}]", "a device")
    for item in resources.get("network", {}).get("priorities", []):
        _check_name(item["name"], f"{root}.network.priorities", "a network interface")
    for key in resources.get("unified", {}):
        _check_unified(key, f"{root}.unified[{quote(key)}]")


def _check_swap(memory: dict[str, Any], root: str) -> None:
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if swap <= 0:
        return
    if limit <= 0:
        raise SpecError(
            f"{root}.memory.swap", "needs memory.limit: it is the limit of memory and swap together"
        )
    if swap < limit:
        raise SpecError(
            f"{root}.memory.swap",
            f"{swap} is below memory.limit {limit}: it is the limit of memory and swap together",
        )


def _check_cpu(cpu: dict[str, Any], path: str) -> None:
    period, quota = cpu.get("period", 0), cpu.get("quota", 0)
    if period and not _PERIOD_LOW <= period <= _PERIOD_HIGH:
        raise SpecError(
            f"{path}.period", f"expected {_PERIOD_LOW} to {_PERIOD_HIGH} microseconds, got {period}"
        )
    if 0 < quota < _QUOTA_LOW:
        raise SpecError(f"{path}.quota", f"expected at least {_QUOTA_LOW} microseconds, got {quota}")
    if quota > _QUOTA_HIGH:
        raise SpecError(
            f"{path}.quota", f"expected at most {_QUOTA_HIGH} microseconds, or -1 for no limit, got {quota}"
        )
    if cpu.get("burst", 0) and 0 < quota < cpu["burst"]:
        raise SpecError(f"{path}.burst", f"{cpu['burst']} is above the quota {quota}")
    for name in ("cpus", "mems"):
        if not is_number_list(cpu.get(name, "")):
            raise SpecError(f"{path}.{name}", f"expected a list such as 0-3,7, got {quote(cpu[name])}")


def _check_block(block: dict[str, Any], path: str) -> None:
    _check_weight(block.get("weight", 0), f"{path}.weight")
    _check_weight(block.get("leafWeight", 0), f"{path}.leafWeight")
    for index, item in enumerate(block.get("weightDevice", [])):
        where = f"{path}.weightDevice[{index}]"
        _check_weight(item.get("weight", 0), f"{where}.weight")
        _check_weight(item.get("leafWeight", 0), f"{where}.leafWeight")
        _check_device(item, where)
    for name in THROTTLES:
        for index, item in enumerate(block.get(name, [])):
            _check_device(item, f"{path}.{name}[{index}]")


# field of blockIO -> (key in io.max of v2, file of v1)
THROTTLES = {
    "throttleReadBpsDevice": ("rbps", "blkio.throttle.read_bps_device"),
    "throttleWriteBpsDevice": ("wbps", "blkio.throttle.write_bps_device"),
    "throttleReadIOPSDevice": ("riops", "blkio.throttle.read_iops_device"),
    "throttleWriteIOPSDevice": ("wiops", "blkio.throttle.write_iops_device"),
}


def _check_weight(weight: int, path: str) -> None:
    if weight and not WEIGHT_LOW <= weight <= WEIGHT_HIGH:
        raise SpecError(path, f"expected {WEIGHT_LOW} to {WEIGHT_HIGH}, got {weight}")


def _check_device(item: dict[str, Any], path: str) -> None:
    for name in ("major", "minor"):
        if not 0 <= item[name] < 1 << 32:
            raise SpecError(f"{path}.{name}", f"expected a device number, got {item[name]}")


def _is_page_size(text: str) -> bool:
    number = decimal(text[:-2])
    return text[-2:] in ("KB", "MB", "GB") and bool(number) and not text.startswith("0")


def is_number_list(text: str) -> bool:
    """Whether a text is a list of CPUs or memory nodes as cpuset(7) writes it, or empty."""
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        low, high = decimal(first), decimal(last) if dash else 0
        if low is None or high is None or (dash and high < low):
            return False
    return True


def _check_name(name: str, path: str, what: str) -> None:
    if not name or not name.isprintable() or " " in name or "/" in name:
        raise SpecError(path, f"{quote(name)} is not the name of {what}")


# Files of the cgroup core whose meaning is the runtime's to give, not the config's.
_CORE = ("procs", "threads", "type", "subtree_control", "kill", "freeze", "controllers", "events", "stat")


def _check_unified(key: str, path: str) -> None:
    controller, dot, rest = key.partition(".")
    plain = all(char.isascii() and (char.isalnum() or char in "._-") for char in key)
    if not (controller and dot and rest and plain) or ".." in key:
        raise SpecError(path, "expected the name of a cgroup v2 file, such as memory.high")
    if controller == "cgroup" and rest in _CORE:
        raise SpecError(path, f"{key} is the runtime's to write")


def swap_beside(memory: dict[str, Any]) -> int | None:
    """The limit of swap alone that cgroup v2 takes: bytes, -1 for none, None when it is not asked for.

    `memory.swap` of the config counts memory and swap together, as v1 does.
    """
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if swap == -1 or (limit == -1 and not swap):
        return -1
    return int(swap - limit) if swap > 0 else None
