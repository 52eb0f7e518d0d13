"""What a container's cgroups have measured, in the shape that `runc events` has given it.

Reads files of cgroup v1 and v2 (Documentation/admin-guide/cgroup-v1/, cgroup-v2.rst) and understands them;
`collect` is all that callers need. A file that is missing, or says something unknown, counts as nothing:
which files there are depends on the kernel. As in Go's JSON, most zeros are left out. Times are in
nanoseconds, sizes in bytes. Must not know containers.
"""

from __future__ import annotations

from rootless_rt.spec.names import decimal

from . import fs
from .change import folder_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from . import Manager

_MOST = (1 << 64) - 1  # "max", as Go's programs print it
_TICK = 10_000_000  # nanoseconds: cpuacct counts in USER_HZ, which is 100 on every Linux
_MOST_CPUS = 1 << 16
_AVERAGES = ("avg10", "avg60", "avg300")
_CPUSET_FLAGS = (
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
)


def collect(manager: Manager) -> dict[str, Any]:
    """One set of statistics, but for intel_rdt, which the cgroups do not know."""
    folder = folder_of(manager)
    made = _collect_v2 if manager.version == 2 else _collect_v1
    return {**made(folder), "intel_rdt": {}, "network_interfaces": None}


def lines_of(data: bytes | None) -> list[list[str]]:
    """The words of each line of a file; what is not ASCII is no word that is known."""
    return [line.split() for line in (data or b"").decode("ascii", "replace").split("\n")]


def flat(data: bytes | None) -> dict[str, int]:
    """A flat keyed file: lines of a name and a number; other lines are left out."""
    found = {}
    for words in sorted(lines_of(data)):  # as Go prints maps
        if len(words) == 2 and (number := value(words[1])) is not None:
            found[words[0]] = number
    return found


def value(text: str) -> int | None:
    """A number of 64 bits, "max" being the greatest; None for anything else."""
    if text == "max":
        return _MOST
    number = decimal(text)
    return number if number is None or number <= _MOST else None


def single(data: bytes | None) -> int:
    """The number that a file holds; 0 where it holds none. -1 is the only negative one."""
    text = (data or b"").decode("ascii", "replace").strip()
    return -1 if text == "-1" else value(text) or 0


def numbers(data: bytes | None) -> list[int]:
    """A list of CPUs or memory nodes such as "0-3,7" (cpuset(7)), written out."""
    found: list[int] = []
    for part in (data or b"").decode("ascii", "replace").strip().split(","):
        first, dash, last = part.partition("-")
        low = decimal(first)
        high = decimal(last) if dash else low
        if low is not None and high is not None and low <= high < _MOST_CPUS:
            found += range(low, high + 1)
    return found


def pressure(data: bytes | None) -> dict[str, Any] | None:
    """A file of pressure stall information (Documentation/accounting/psi.rst); None without one."""
    found: dict[str, Any] = {}
    for words in lines_of(data):
        if not words or words[0] not in ("some", "full"):
            continue
        fields = dict(word.partition("=")[::2] for word in words[1:])
        entry: dict[str, Any] = {name: _percent(fields.get(name, "")) for name in _AVERAGES}
        entry["total"] = value(fields.get("total", "")) or 0
        found[words[0]] = entry
    if not found:
        return None
    nothing = dict.fromkeys((*_AVERAGES, "total"), 0)
    return {name: found.get(name, nothing) for name in ("some", "full")}


def _percent(text: str) -> int | float:
    before, _, behind = text.partition(".")
    if decimal(before) is None or decimal(behind or "0") is None:
        return 0
    number = float(text)
    return int(number // 1) if number == number // 1 else number


def _without_zeros(entry: dict[str, Any], *kept: str) -> dict[str, Any]:
    return {name: item for name, item in entry.items() if item or name in kept}


def _reader(folder: Callable[[str], str | None], controller: str) -> Callable[[str], bytes | None]:
    base = folder(controller)
    return lambda file: fs.read_bytes(f"{base}/{file}") if base is not None else None


def _collect_v1(folder: Callable[[str], str | None]) -> dict[str, Any]:
    def read(controller: str) -> Callable[[str], bytes | None]:
        return _reader(folder, controller)

    return {
        "cpu": _cpu_v1(read("cpu"), read("cpuacct")),
        "cpuset": cpuset(read("cpuset"), "cpuset.cpus", "cpuset.mems"),
        "memory": _memory_v1(read("memory")),
        "pids": pids(read("pids")),
        "blkio": _blkio_v1(read("blkio")),
        "hugetlb": _hugetlb(folder),
    }


def _collect_v2(folder: Callable[[str], str | None]) -> dict[str, Any]:
    read = _reader(folder, "")
    return {
        "cpu": _cpu_v2(read),
        "cpuset": cpuset(read, "cpuset.cpus.effective", "cpuset.mems.effective"),
        "memory": _memory_v2(read),
        "pids": pids(read),
        "blkio": _io_v2(read),
        "hugetlb": _hugetlb(folder),
    }


def _cpu_v1(cpu: Callable[[str], bytes | None], account: Callable[[str], bytes | None]) -> dict[str, Any]:
    by_mode = flat(account("cpuacct.stat"))
    rows = [words for words in lines_of(account("cpuacct.usage_all"))[1:] if len(words) == 3]
    each = [value(word) or 0 for words in lines_of(account("cpuacct.usage_percpu")) for word in words]
    usage = {
        "total": single(account("cpuacct.usage")),
        "percpu": each,
        "percpu_kernel": [value(words[2]) or 0 for words in rows],
        "percpu_user": [value(words[1]) or 0 for words in rows],
        "kernel": by_mode.get("system", 0) * _TICK,
        "user": by_mode.get("user", 0) * _TICK,
    }
    found = flat(cpu("cpu.stat"))
    throttling = {
        "periods": found.get("nr_periods", 0),
        "throttledPeriods": found.get("nr_throttled", 0),
        "throttledTime": found.get("throttled_time", 0),
    }
    return {"usage": _without_zeros(usage, "kernel", "user"), "throttling": _without_zeros(throttling)}


def _cpu_v2(read: Callable[[str], bytes | None]) -> dict[str, Any]:
    found = flat(read("cpu.stat"))
    usage = {
        "total": found.get("usage_usec", 0) * 1000,
        "kernel": found.get("system_usec", 0) * 1000,
        "user": found.get("user_usec", 0) * 1000,
    }
    throttling = {
        "periods": found.get("nr_periods", 0),
        "throttledPeriods": found.get("nr_throttled", 0),
        "throttledTime": found.get("throttled_usec", 0) * 1000,
    }
    made = {"usage": _without_zeros(usage, "kernel", "user"), "throttling": _without_zeros(throttling)}
    return _with_pressure(made, read("cpu.pressure"))


def _with_pressure(made: dict[str, Any], data: bytes | None) -> dict[str, Any]:
    found = pressure(data)
    return {**made, "psi": found} if found is not None else made


def cpuset(read: Callable[[str], bytes | None], cpus: str, mems: str) -> dict[str, Any]:
    """The part "cpuset"; the flags are v1's alone, and 0 elsewhere."""
    made: dict[str, Any] = {}
    if found := numbers(read(cpus)):
        made["cpus"] = found
    made["cpu_exclusive"] = single(read("cpuset.cpu_exclusive"))
    if found := numbers(read(mems)):
        made["mems"] = found
    for name in _CPUSET_FLAGS:
        made[name] = single(read(f"cpuset.{name}"))
    return made


def _entry(limit: int, usage: int, most: int, failures: int) -> dict[str, Any]:
    """A count of memory: its limit (0: unknown), what is used, what was at most, how often it was hit."""
    made = {"limit": limit, "usage": usage, "max": most, "failcnt": failures}
    return _without_zeros(made, "limit", "failcnt")


def _memory_v1(read: Callable[[str], bytes | None]) -> dict[str, Any]:
    raw = flat(read("memory.stat"))
    made: dict[str, Any] = {"cache": raw["cache"]} if raw.get("cache") else {}
    for key, name in (
        ("usage", "memory"),
        ("swap", "memory.memsw"),
        ("kernel", "memory.kmem"),
        ("kernelTCP", "memory.kmem.tcp"),
    ):
        made[key] = _entry(
            single(read(name + ".limit_in_bytes")),
            single(read(name + ".usage_in_bytes")),
            single(read(name + ".max_usage_in_bytes")),
            single(read(name + ".failcnt")),
        )
    return {**made, "raw": raw} if raw else made


def _memory_v2(read: Callable[[str], bytes | None]) -> dict[str, Any]:
    raw = flat(read("memory.stat"))
    events = flat(read("memory.events"))
    made: dict[str, Any] = {"cache": raw["file"]} if raw.get("file") else {}
    limit, usage = single(read("memory.max")), single(read("memory.current"))
    made["usage"] = _entry(limit, usage, single(read("memory.peak")), events.get("max", 0))
    # Counted together, as on v1.
    both = min(limit + single(read("memory.swap.max")), _MOST)
    failures = flat(read("memory.swap.events")).get("max", 0)
    made["swap"] = _entry(both, usage + single(read("memory.swap.current")), 0, failures)
    made["kernel"] = _entry(0, raw.get("kernel", 0), 0, 0)
    made["kernelTCP"] = _entry(0, raw.get("sock", 0), 0, 0)
    return _with_pressure({**made, "raw": raw} if raw else made, read("memory.pressure"))


def pids(read: Callable[[str], bytes | None]) -> dict[str, Any]:
    """The part "pids": tasks now, and the limit unless there is none."""
    limit = single(read("pids.max"))
    made = {"current": single(read("pids.current")), "limit": 0 if limit == _MOST else limit}
    if not made["current"]:
        made["current"] = len((read("cgroup.procs") or b"").split())
    return _without_zeros(made)


def _hugetlb(folder: Callable[[str], str | None]) -> dict[str, Any]:
    """Huge pages by size; on hybrid hosts their controller may be on either version."""
    import posix

    base = folder("hugetlb")
    made: dict[str, Any] = {}
    try:
        names = sorted(posix.listdir(base)) if base is not None else []
    except OSError:
        names = []
    for name in names:
        parts = name.split(".")
        if len(parts) != 3 or parts[0] != "hugetlb":
            continue
        prefix = f"{base}/hugetlb.{parts[1]}."
        if parts[2] == "usage_in_bytes":
            entry = {
                "usage": single(fs.read_bytes(prefix + "usage_in_bytes")),
                "max": single(fs.read_bytes(prefix + "max_usage_in_bytes")),
                "failcnt": single(fs.read_bytes(prefix + "failcnt")),
            }
        elif parts[2] == "current":
            entry = {
                "usage": single(fs.read_bytes(prefix + "current")),
                "failcnt": flat(fs.read_bytes(prefix + "events")).get("max", 0),
            }
        else:
            continue
        made[parts[1]] = _without_zeros(entry, "failcnt")
    return made


# key of the output -> files of v1 that may have it, the best first
_BLKIO_V1 = {
    "ioServiceBytesRecursive": ("blkio.bfq.io_service_bytes_recursive", "blkio.io_service_bytes_recursive",
                                "blkio.throttle.io_service_bytes_recursive"),
    "ioServicedRecursive": ("blkio.bfq.io_serviced_recursive", "blkio.io_serviced_recursive",
                            "blkio.throttle.io_serviced_recursive"),
    "ioQueueRecursive": ("blkio.bfq.io_queued_recursive", "blkio.io_queued_recursive"),
    "ioServiceTimeRecursive": ("blkio.bfq.io_service_time_recursive", "blkio.io_service_time_recursive"),
    "ioWaitTimeRecursive": ("blkio.bfq.io_wait_time_recursive", "blkio.io_wait_time_recursive"),
    "ioMergedRecursive": ("blkio.bfq.io_merged_recursive", "blkio.io_merged_recursive"),
    "ioTimeRecursive": ("blkio.bfq.time_recursive", "blkio.time_recursive"),
    "sectorsRecursive": ("blkio.bfq.sectors_recursive", "blkio.sectors_recursive"),
}  # fmt: skip


def _blkio_v1(read: Callable[[str], bytes | None]) -> dict[str, Any]:
    made = {}
    for key, files in _BLKIO_V1.items():
        for file in files:
            if found := block_entries(read(file)):
                made[key] = found
                break
    return made


def block_entries(data: bytes | None) -> list[dict[str, Any]]:
    """Lines of "8:0 Read 4096", or without an operation; totals over all devices are left out."""
    found = []
    for words in lines_of(data):
        device = _device(words[0]) if len(words) in (2, 3) else None
        number = value(words[-1]) if device else None
        if device is not None and number is not None:
            found.append(_block_entry(device, words[1] if len(words) == 3 else "", number))
    return found


def _device(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(":")
    first, second = decimal(major), decimal(minor)
    return None if first is None or second is None else (first, second)


def _block_entry(device: tuple[int, int], operation: str, number: int) -> dict[str, Any]:
    entry = {"major": device[0], "minor": device[1], "op": operation, "value": number}
    return _without_zeros(entry)


# key of io.stat -> (key of the output, operation)
_IO_STAT = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}


def _io_v2(read: Callable[[str], bytes | None]) -> dict[str, Any]:
    return _with_pressure(io_stat(read("io.stat")), read("io.pressure"))


def io_stat(data: bytes | None) -> dict[str, Any]:
    """Lines of "8:0 rbytes=4096 wbytes=0 ...", as v1 would have them; of other keys there is no such form."""
    made: dict[str, Any] = {}
    for words in lines_of(data):
        device = _device(words[0]) if words else None
        if device is None:
            continue
        for word in words[1:]:
            name, _, text = word.partition("=")
            number = value(text)
            if name in _IO_STAT and number is not None:
                key, operation = _IO_STAT[name]
                made.setdefault(key, []).append(_block_entry(device, operation, number))
    return made
