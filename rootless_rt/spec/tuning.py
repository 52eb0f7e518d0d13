"""Scheduling, I/O priority, CPUs, memory policy and personality: names, lists, and what fits together.

Pure, and imported only for configs that have such fields. Whether the caller may set them is the plan's
question. Sources: runtime-spec config.md (scheduler, ioPriority, execCPUAffinity) and config-linux.md
(memoryPolicy, personality); sched_setattr(2), ioprio_set(2), set_mempolicy(2), personality(2).
"""

from __future__ import annotations

from rootless_rt.errors import SpecError
from rootless_rt.spec.jsonio import quote
from rootless_rt.spec.names import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Notes = list[tuple[str, str]]

POLICIES: dict[str, int] = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,  # a number that the kernel keeps for patches of others
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULER_FLAGS: dict[str, int] = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
RESET_ON_FORK, KEEP_POLICY, KEEP_PARAMS = 0x01, 0x08, 0x10
IO_CLASSES: dict[str, int] = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
MEMORY_MODES: dict[str, int] = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS: dict[str, int] = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}
PERSONALITIES: dict[str, int] = {"LINUX": 0x0000, "LINUX32": 0x0008}

MAX_CPUS = 8192  # the most that any architecture's kernel can be built for
MAX_NODES = 1024

_REAL_TIME = ("SCHED_FIFO", "SCHED_RR")
_FAIR = ("SCHED_OTHER", "SCHED_BATCH")
_SHORTEST = 1024  # ns: the kernel counts a deadline's runtime in units of this (__checkparam_dl)


def number_list(text: str, path: str, count: int) -> list[int]:
    """The numbers below `count` that a list such as "0-3,7" names, in order. Raises SpecError."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        low = decimal(first)
        high = decimal(last) if dash else low
        if low is None or high is None:
            raise SpecError(path, f"expected a list such as 0-3,7, got {quote(text[:80])}")
        if low > high:
            raise SpecError(path, f"the range {low}-{high} runs backwards")
        if high >= count:
            raise SpecError(path, f"{high} is above {count - 1}, the highest number that Linux has")
        found.update(range(low, high + 1))
    return sorted(found)


def flags_of(listed: list[str], known: dict[str, int], path: str) -> int:
    """The mask that these names make. Raises SpecError for one that is not `known`."""
    mask = 0
    for index, name in enumerate(listed):
        mask |= _number(name, known, f"{path}[{index}]")
    return mask


def _number(name: str | None, known: dict[str, int], path: str) -> int:
    if name is None:
        raise SpecError(path, "required, but missing")
    if name not in known:
        raise SpecError(path, f"unknown name {quote(name)}", hint=f"one of {', '.join(known)}")
    return known[name]


def check_process(process: dict[str, Any], path: str, notes: Notes) -> None:
    """Check these fields of a process object, adding to `notes` what has no effect. Raises SpecError."""
    if scheduler := process.get("scheduler"):
        _check_scheduler(scheduler, f"{path}.scheduler", notes)
    if io_priority := process.get("ioPriority"):
        where = f"{path}.ioPriority"
        kind = _number(io_priority.get("class"), IO_CLASSES, f"{where}.class")
        if "priority" not in io_priority and kind != IO_CLASSES["IOPRIO_CLASS_IDLE"]:
            raise SpecError(f"{where}.priority", "required, but missing")
    affinity = process.get("execCPUAffinity") or {}
    for key in ("initial", "final"):
        if affinity.get(key):
            number_list(affinity[key], f"{path}.execCPUAffinity.{key}", MAX_CPUS)


def _check_scheduler(scheduler: dict[str, Any], path: str, notes: Notes) -> None:
    policy = scheduler.get("policy")
    _number(policy, POLICIES, f"{path}.policy")
    flags = flags_of(scheduler.get("flags", []), SCHEDULER_FLAGS, f"{path}.flags")
    nice, priority = scheduler.get("nice", 0), scheduler.get("priority", 0)
    if not -20 <= nice <= 19:
        raise SpecError(f"{path}.nice", f"expected an integer from -20 to 19, got {nice}")
    if nice and policy not in _FAIR:
        notes.append((f"{path}.nice", f"has no effect with {policy}"))
    if policy not in _REAL_TIME and priority:
        raise SpecError(f"{path}.priority", f"is for SCHED_FIFO and SCHED_RR, not for {policy}")
    if policy in _REAL_TIME and not flags & KEEP_PARAMS and not 1 <= priority <= 99:
        raise SpecError(f"{path}.priority", f"expected an integer from 1 to 99 with {policy}, got {priority}")
    if policy == "SCHED_DEADLINE":
        if not flags & KEEP_PARAMS:
            _check_deadline(scheduler, path)
        return
    for key in ("runtime", "deadline", "period"):
        if scheduler.get(key):
            raise SpecError(f"{path}.{key}", f"is for SCHED_DEADLINE, not for {policy}")
    for index, name in enumerate(scheduler.get("flags", [])):
        if name in ("SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"):
            notes.append((f"{path}.flags[{index}]", f"{name} has no effect with {policy}"))


def _check_deadline(scheduler: dict[str, Any], path: str) -> None:
    """In nanoseconds: 1024 <= runtime <= deadline <= period; a period of 0 is the deadline."""
    runtime, deadline = scheduler.get("runtime", 0), scheduler.get("deadline", 0)
    period = scheduler.get("period", 0) or deadline
    if runtime < _SHORTEST:
        raise SpecError(f"{path}.runtime", f"expected at least {_SHORTEST} nanoseconds, got {runtime}")
    if deadline < runtime:
        raise SpecError(f"{path}.deadline", f"{deadline} is shorter than the runtime {runtime}")
    if period < deadline:
        raise SpecError(f"{path}.period", f"{period} is shorter than the deadline {deadline}")
    for key, value in (("deadline", deadline), ("period", period)):
        if value >> 63:
            raise SpecError(f"{path}.{key}", f"expected less than {1 << 63} nanoseconds, got {value}")


def check_config(config: dict[str, Any], notes: Notes) -> None:
    """Check memoryPolicy and personality, and the scheduler against the hooks. Raises SpecError."""
    linux = config.get("linux", {})
    if policy := linux.get("memoryPolicy"):
        _check_memory_policy(policy, "linux.memoryPolicy")
    if personality := linux.get("personality"):
        _number(personality.get("domain"), PERSONALITIES, "linux.personality.domain")
        if personality.get("flags"):
            notes.append(("linux.personality.flags", "the runtime-spec defines no flags: ignored"))
    scheduler = config["process"].get("scheduler") or {}
    if scheduler.get("policy") != "SCHED_DEADLINE" or "SCHED_FLAG_RESET_ON_FORK" in scheduler.get(
        "flags", []
    ):
        return
    for kind in ("createContainer", "startContainer"):
        if config.get("hooks", {}).get(kind):
            raise SpecError(
                f"hooks.{kind}",
                "a process under SCHED_DEADLINE cannot start another one",
                hint="add SCHED_FLAG_RESET_ON_FORK to process.scheduler.flags, or remove the hooks",
            )


def _check_memory_policy(policy: dict[str, Any], path: str) -> None:
    """What the kernel's sanitize_mpol_flags() and mpol_new() demand of the three fields together."""
    mode = policy.get("mode")
    _number(mode, MEMORY_MODES, f"{path}.mode")
    flags = flags_of(policy.get("flags", []), MEMORY_FLAGS, f"{path}.flags")
    nodes = bool(policy.get("nodes"))
    if nodes:
        number_list(policy["nodes"], f"{path}.nodes", MAX_NODES)
    static_or_relative = flags & (MEMORY_FLAGS["MPOL_F_STATIC_NODES"] | MEMORY_FLAGS["MPOL_F_RELATIVE_NODES"])
    if nodes and mode in ("MPOL_DEFAULT", "MPOL_LOCAL"):
        raise SpecError(f"{path}.nodes", f"{mode} takes no nodes")
    if not nodes and (
        mode not in ("MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED")
        or (mode == "MPOL_PREFERRED" and static_or_relative)
    ):
        raise SpecError(f"{path}.nodes", f"{mode} needs at least one node here", hint='such as "0-3,5"')
    if static_or_relative.bit_count() > 1:
        raise SpecError(f"{path}.flags", "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other")
    if static_or_relative and mode == "MPOL_LOCAL":
        raise SpecError(f"{path}.flags", "MPOL_LOCAL has no nodes that could be static or relative")
    if flags & MEMORY_FLAGS["MPOL_F_NUMA_BALANCING"] and mode not in ("MPOL_BIND", "MPOL_PREFERRED_MANY"):
        raise SpecError(
            f"{path}.flags", f"MPOL_F_NUMA_BALANCING is for MPOL_BIND and MPOL_PREFERRED_MANY, not for {mode}"
        )
