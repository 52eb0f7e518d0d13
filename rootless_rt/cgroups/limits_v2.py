"""`linux.resources` for cgroup v2 (Documentation/admin-guide/cgroup-v2.rst). Pure."""

from __future__ import annotations

from .limits import THROTTLES, Compiled, swap_beside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SHARES_LOW, _SHARES_HIGH = 2, 262144
_DEFAULT_PERIOD = 100000


def weight_of(shares: int) -> int:
    """cpu.weight (1 to 10000, default 100) for cpu.shares (2 to 262144, default 1024).

    A curve through the least, the default and the greatest of both, quadratic in the logarithms, as the other
    runtimes have had it since 2025: engines and their tests count on equal values.
    """
    from math import ceil, log2

    bounded = min(max(shares, _SHARES_LOW), _SHARES_HIGH)
    exponent = log2(bounded)
    # Rounded first: the default must not become 101 by the last bit of a float.
    return ceil(round(10 ** ((exponent * exponent + 125 * exponent) / 612 - 7 / 34), 6))


def io_weight_of(weight: int) -> int:
    """io.weight (1 to 10000) for a blockIO weight (10 to 1000)."""
    return 1 + (weight - 10) * 9999 // 990


def compile_v2(resources: dict[str, Any], root: str) -> Compiled:
    """See `limits.compile_limits`; the values have been checked."""
    made = Compiled()
    _memory(made, resources.get("memory", {}), root + ".memory")
    _cpu(made, resources.get("cpu", {}), root + ".cpu")
    limit = resources.get("pids", {}).get("limit")
    if limit is not None:
        # The first process counts: with none at all it could not even be made.
        text = "max" if limit < 0 else str(max(limit, 1))
        made.add(f"{root}.pids.limit", "pids", ("pids.max", text))
    _block(made, resources.get("blockIO", {}), root + ".blockIO")
    for index, item in enumerate(resources.get("hugepageLimits", [])):
        field, text = f"{root}.hugepageLimits[{index}]", str(item["limit"])
        made.add(field, "hugetlb", (f"hugetlb.{item['pageSize']}.max", text))
        made.add(field, "hugetlb", (f"hugetlb.{item['pageSize']}.rsvd.max", text), optional=True)
    for device, item in resources.get("rdma", {}).items():
        made.add(f'{root}.rdma["{device}"]', "rdma", ("rdma.max", rdma_line(device, item)))
    if any(resources.get("network", {}).values()):
        made.note(f"{root}.network", "has no effect: cgroup v2 has no network controllers")
    for key, text in resources.get("unified", {}).items():
        for line in text.split("\n"):
            made.add(f'{root}.unified["{key}"]', key.partition(".")[0], (key, line))
    return made


def rdma_line(device: str, item: dict[str, Any]) -> str:
    """A line of rdma.max, the same in both versions."""
    words = [device]
    for name, key in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")):
        if item.get(name) is not None:
            words.append(f"{key}={item[name]}")
    return " ".join(words)


def _bytes(number: int) -> str:
    return "max" if number == -1 else str(number)


def _memory(made: Compiled, memory: dict[str, Any], path: str) -> None:
    limit = memory.get("limit", 0)
    swap = swap_beside(memory)
    if limit:
        made.add(f"{path}.limit", "memory", ("memory.max", _bytes(limit)))
    if swap is not None:
        # A kernel without swap has no such file, and need not be told that there is to be none.
        asked = "swap" if memory.get("swap") else "limit"
        made.add(f"{path}.{asked}", "memory", ("memory.swap.max", _bytes(swap)), optional=swap <= 0)
    if memory.get("reservation"):
        made.add(f"{path}.reservation", "memory", ("memory.low", _bytes(memory["reservation"])))
    for name in ("swappiness", "disableOOMKiller"):
        if memory.get(name):
            made.note(f"{path}.{name}", "has no effect: cgroup v2 does not have it")
    for name in ("kernel", "kernelTCP"):
        if memory.get(name, 0) > 0:
            made.note(f"{path}.{name}", "has no effect: kernels no longer limit it by itself")


def _cpu(made: Compiled, cpu: dict[str, Any], path: str) -> None:
    if cpu.get("idle") is not None:
        made.add(f"{path}.idle", "cpu", ("cpu.idle", str(cpu["idle"])), optional=not cpu["idle"])
    if cpu.get("shares") and not cpu.get("idle"):
        made.add(f"{path}.shares", "cpu", ("cpu.weight", str(weight_of(cpu["shares"]))))
    quota, period = cpu.get("quota", 0), cpu.get("period", 0)
    if quota or period:
        text = f"{quota if quota > 0 else 'max'} {period or _DEFAULT_PERIOD}"
        made.add(f"{path}.{'quota' if quota else 'period'}", "cpu", ("cpu.max", text))
    if cpu.get("burst") is not None:
        made.add(f"{path}.burst", "cpu", ("cpu.max.burst", str(cpu["burst"])), optional=not cpu["burst"])
    for name in ("realtimeRuntime", "realtimePeriod"):
        if cpu.get(name):
            made.note(f"{path}.{name}", "has no effect: cgroup v2 does not have it")
    for name in ("cpus", "mems"):
        if cpu.get(name):
            made.add(f"{path}.{name}", "cpuset", (f"cpuset.{name}", cpu[name]))


def _block(made: Compiled, block: dict[str, Any], path: str) -> None:
    if block.get("weight"):
        made.add(f"{path}.weight", "io", *_weights("default", block["weight"]))
    for index, item in enumerate(block.get("weightDevice", [])):
        if item.get("weight"):
            device = f"{item['major']}:{item['minor']}"
            made.add(f"{path}.weightDevice[{index}].weight", "io", *_weights(device, item["weight"]))
    if block.get("leafWeight") or any(item.get("leafWeight") for item in block.get("weightDevice", [])):
        made.note(f"{path}.leafWeight", "has no effect: cgroup v2 does not have it")
    for name, (key, _) in THROTTLES.items():
        for index, item in enumerate(block.get(name, [])):
            text = f"{item['major']}:{item['minor']} {key}={item['rate'] or 'max'}"
            made.add(f"{path}.{name}[{index}]", "io", ("io.max", text))


def _weights(which: str, weight: int) -> tuple[tuple[str, str], ...]:
    """BFQ has a file of its own, with the config's scale; io.weight is that of the io.cost model."""
    return ("io.bfq.weight", f"{which} {weight}"), ("io.weight", f"{which} {io_weight_of(weight)}")
