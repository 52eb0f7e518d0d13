"""`linux.resources` for cgroup v1 (Documentation/admin-guide/cgroup-v1/). Pure."""

from __future__ import annotations

from rootless_rt.errors import SpecError

from .limits import THROTTLES, Compiled
from .limits_v2 import rdma_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def compile_v1(resources: dict[str, Any], root: str) -> Compiled:
    """See `limits.compile_limits`; the values have been checked. Raises SpecError for what is v2's alone."""
    made = Compiled()
    _memory(made, resources.get("memory", {}), root + ".memory")
    _cpu(made, resources.get("cpu", {}), root + ".cpu")
    limit = resources.get("pids", {}).get("limit")
    if limit is not None:
        text = "max" if limit < 0 else str(max(limit, 1))
        made.add(f"{root}.pids.limit", "pids", ("pids.max", text))
    _block(made, resources.get("blockIO", {}), root + ".blockIO")
    for index, item in enumerate(resources.get("hugepageLimits", [])):
        field, size, text = f"{root}.hugepageLimits[{index}]", item["pageSize"], str(item["limit"])
        # On a hybrid host the controller may be on v2.
        files = ((f"hugetlb.{size}.limit_in_bytes", text), (f"hugetlb.{size}.max", text))
        made.add(field, "hugetlb", *files)
        files = ((f"hugetlb.{size}.rsvd.limit_in_bytes", text), (f"hugetlb.{size}.rsvd.max", text))
        made.add(field, "hugetlb", *files, optional=True)
    for device, item in resources.get("rdma", {}).items():
        made.add(f'{root}.rdma["{device}"]', "rdma", ("rdma.max", rdma_line(device, item)))
    network = resources.get("network", {})
    if network.get("classID"):
        made.add(f"{root}.network.classID", "net_cls", ("net_cls.classid", str(network["classID"])))
    for index, item in enumerate(network.get("priorities", [])):
        text = f"{item['name']} {item['priority']}"
        made.add(f"{root}.network.priorities[{index}]", "net_prio", ("net_prio.ifpriomap", text))
    for key in resources.get("unified", {}):
        raise SpecError(
            f'{root}.unified["{key}"]',
            "needs cgroup v2, and this host's controllers are on v1",
            hint="boot with systemd.unified_cgroup_hierarchy=1, or use the fields of linux.resources",
        )
    return made


def _memory(made: Compiled, memory: dict[str, Any], path: str) -> None:
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if limit == -1 and not swap:
        swap = -1  # the limit of both may not stay below that of memory
    values = []
    if limit:
        values.append((f"{path}.limit", "memory.limit_in_bytes", limit, False))
    if swap:
        field = f"{path}.{'swap' if memory.get('swap') else 'limit'}"
        values.append((field, "memory.memsw.limit_in_bytes", swap, swap == -1))
    if limit == -1 or swap == -1:
        values.reverse()  # raising: the outer limit first
    for field, file, number, optional in values:
        made.add(field, "memory", (file, str(number)), optional=optional)
    if memory.get("reservation"):
        field = f"{path}.reservation"
        made.add(field, "memory", ("memory.soft_limit_in_bytes", str(memory["reservation"])))
    if memory.get("swappiness") is not None:
        made.add(f"{path}.swappiness", "memory", ("memory.swappiness", str(memory["swappiness"])))
    if memory.get("disableOOMKiller") is not None:
        text = "1" if memory["disableOOMKiller"] else "0"
        field = f"{path}.disableOOMKiller"
        made.add(field, "memory", ("memory.oom_control", text), optional=text == "0")
    for name in ("kernel", "kernelTCP"):
        if memory.get(name, 0) > 0:
            made.note(f"{path}.{name}", "has no effect: kernels no longer limit it by itself")


def _cpu(made: Compiled, cpu: dict[str, Any], path: str) -> None:
    values = (
        ("idle", "cpu", "cpu.idle"),
        ("shares", "cpu", "cpu.shares"),
        ("period", "cpu", "cpu.cfs_period_us"),
        ("quota", "cpu", "cpu.cfs_quota_us"),
        ("burst", "cpu", "cpu.cfs_burst_us"),
        ("realtimePeriod", "cpu", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu", "cpu.rt_runtime_us"),
        ("cpus", "cpuset", "cpuset.cpus"),
        ("mems", "cpuset", "cpuset.mems"),
    )
    for name, controller, file in values:
        value = cpu.get(name)
        if name == "shares" and cpu.get("idle"):
            continue
        if value or (value is not None and name in ("idle", "burst")):
            text = "-1" if name == "quota" and value < 0 else str(value)
            made.add(f"{path}.{name}", controller, (file, text), optional=not value)


def _block(made: Compiled, block: dict[str, Any], path: str) -> None:
    if block.get("weight"):
        text = str(block["weight"])
        made.add(f"{path}.weight", "blkio", ("blkio.weight", text), ("blkio.bfq.weight", text))
    if block.get("leafWeight"):
        made.add(f"{path}.leafWeight", "blkio", ("blkio.leaf_weight", str(block["leafWeight"])))
    for index, item in enumerate(block.get("weightDevice", [])):
        where, device = f"{path}.weightDevice[{index}]", f"{item['major']}:{item['minor']}"
        if item.get("weight"):
            text = f"{device} {item['weight']}"
            files = (("blkio.weight_device", text), ("blkio.bfq.weight_device", text))
            made.add(f"{where}.weight", "blkio", *files)
        if item.get("leafWeight"):
            text = f"{device} {item['leafWeight']}"
            made.add(f"{where}.leafWeight", "blkio", ("blkio.leaf_weight_device", text))
    for name, (_, file) in THROTTLES.items():
        for index, item in enumerate(block.get(name, [])):
            text = f"{item['major']}:{item['minor']} {item['rate']}"
            made.add(f"{path}.{name}[{index}]", "blkio", (file, text))
