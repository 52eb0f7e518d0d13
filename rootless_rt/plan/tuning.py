"""Scheduling, I/O priority, CPUs, memory policy, personality. Pure; imported only where they are asked for.

CAP_SYS_NICE counts for these only in the initial user namespace (the kernel asks capable(), not ns_capable),
and SCHED_DEADLINE and SCHED_FLAG_RESET_ON_FORK do not outlive a fork. So neither the container's process,
once in a user namespace, nor the one it comes from can set the scheduler: a process outside does, with the
caller's privileges, when the new one is in its cgroup (`Plan.tuning`). The rest needs no privilege: the
process sets it itself, before hooks and programs of the container, which inherit it.
"""

from __future__ import annotations

from rootless_rt.plan.model import Degradation, Draft
from rootless_rt.plan.ops import Op
from rootless_rt.spec import tuning
from rootless_rt.spec.names import CAPABILITIES, RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CAP_SYS_NICE = 1 << CAPABILITIES["CAP_SYS_NICE"]
_CAP_SYS_ADMIN = 1 << CAPABILITIES["CAP_SYS_ADMIN"]
_OTHER, _FIFO, _RR, _BATCH, _IDLE, _DEADLINE = (
    tuning.POLICIES[f"SCHED_{name}"] for name in ("OTHER", "FIFO", "RR", "BATCH", "IDLE", "DEADLINE")
)
_ID = "RT-BUNDLE-RLIMITS"
_WHO = "only CAP_SYS_NICE outside of every user namespace may"


def tuning_ops(draft: Draft) -> list[Op]:
    """Fill the plan's `tuning`; the ops that the container's process performs itself. Raises RtError."""
    if scheduler := draft.process.get("scheduler"):
        draft.plan.tuning += _scheduler(draft, scheduler)
    if io_priority := draft.process.get("ioPriority"):
        draft.plan.tuning.append(_io_priority(draft, io_priority))
    draft.plan.outside += [(op.label, op.describe()) for op in draft.plan.tuning]
    ops = []
    if policy := draft.linux.get("memoryPolicy"):
        ops.append(_memory_policy(draft, policy))
    if personality := draft.linux.get("personality"):
        domain = tuning.PERSONALITIES[personality["domain"]]
        ops.append(Op("personality", domain, label="linux.personality"))
    return ops


def affinity_ops(draft: Draft) -> tuple[list[Op], list[Op]]:
    """The ops of execCPUAffinity: (before the container's namespaces and cgroup, once inside)."""
    made: list[list[Op]] = []
    for key in ("initial", "final"):
        where = f"process.execCPUAffinity.{key}"
        text = draft.process["execCPUAffinity"].get(key)
        cpus = tuning.number_list(text, where, tuning.MAX_CPUS) if text else []
        made.append([Op("affinity", cpus, label=where)] if cpus else [])
    return made[0], made[1]


def _may(draft: Draft, capabilities: int) -> bool:
    return draft.facts.initial_userns and bool(draft.facts.capabilities & capabilities)


def _scheduler(draft: Draft, asked: dict[str, Any]) -> list[Op]:
    where = "process.scheduler"
    policy = tuning.POLICIES[asked["policy"]]
    flags = tuning.flags_of(asked.get("flags", []), tuning.SCHEDULER_FLAGS, f"{where}.flags")
    nice, priority = asked.get("nice", 0), asked.get("priority", 0)
    if not _may(draft, _CAP_SYS_NICE):
        now, _, priority_now = draft.facts.scheduling
        kept = tuning.KEEP_POLICY | tuning.KEEP_PARAMS
        wanted = now if flags & tuning.KEEP_POLICY else policy
        if flags & kept != kept and not _policy_allowed(draft, wanted):
            draft.degrade(
                where,
                asked["policy"],
                "the caller's scheduling",
                f"{_WHO}, or what RLIMIT_RTPRIO and RLIMIT_NICE allow",
                _fix("rtprio" if wanted in (_FIFO, _RR) else "nice") if wanted != _DEADLINE else "",
                id=_ID,
            )
            return []
        if not flags & tuning.KEEP_PARAMS and wanted in (_FIFO, _RR):
            priority = _clamp_priority(draft, priority, priority_now if now == wanted else 0)
        if not flags & tuning.KEEP_PARAMS and wanted in (_OTHER, _BATCH):
            nice = _clamp_nice(draft, nice)
    times = (asked.get(key, 0) for key in ("runtime", "deadline", "period"))
    return [Op("scheduler", policy, flags, str(nice), priority, *times, label=where)]


def _policy_allowed(draft: Draft, policy: int) -> bool:
    """Whether the kernel lets this caller have the policy at all (user_check_sched_setscheduler())."""
    now, nice, priority = draft.facts.scheduling
    if policy in (_FIFO, _RR):
        most = draft.facts.rlimits[RLIMITS["RLIMIT_RTPRIO"]][0]
        return most > 0 or (policy == now and priority > 0)
    if policy == _DEADLINE:
        return False
    return now != _IDLE or policy == _IDLE or nice >= _least_nice(draft)


def _least_nice(draft: Draft) -> int:
    """The lowest nice value that RLIMIT_NICE allows: 20 minus the limit (getrlimit(2))."""
    return 20 - min(draft.facts.rlimits[RLIMITS["RLIMIT_NICE"]][0], 40)


def _clamp_priority(draft: Draft, asked: int, now: int) -> int:
    most = max(draft.facts.rlimits[RLIMITS["RLIMIT_RTPRIO"]][0], now)
    if asked > most:
        why = f"RLIMIT_RTPRIO here is {most}"
        draft.degrade("process.scheduler.priority", str(asked), str(most), why, _fix("rtprio"), id=_ID)
    return min(asked, most)


def _clamp_nice(draft: Draft, asked: int) -> int:
    least = min(draft.facts.scheduling[1], _least_nice(draft))
    if asked < least:
        why = f"{_WHO} go below {least}"
        draft.degrade("process.scheduler.nice", str(asked), str(least), why, _fix("nice"), id=_ID)
    return max(asked, least)


def _fix(item: str) -> str:
    return (
        f"an admin can allow it: {item} in /etc/security/limits.d, "
        f"or Limit{item.upper()}= of user@.service in systemd"
    )


def _io_priority(draft: Draft, asked: dict[str, Any]) -> Op:
    kind, level = tuning.IO_CLASSES[asked["class"]], asked.get("priority", 0)
    if kind == tuning.IO_CLASSES["IOPRIO_CLASS_RT"] and not _may(draft, _CAP_SYS_NICE | _CAP_SYS_ADMIN):
        draft.degrade(
            "process.ioPriority",
            f"IOPRIO_CLASS_RT {level}",
            "IOPRIO_CLASS_BE 0, the best there is without it",
            f"{_WHO} set the real-time class",
            id=_ID,
        )
        kind, level = tuning.IO_CLASSES["IOPRIO_CLASS_BE"], 0
    return Op("io_priority", kind, level, label="process.ioPriority")


def _memory_policy(draft: Draft, asked: dict[str, Any]) -> Op:
    where = "linux.memoryPolicy"
    mode = tuning.MEMORY_MODES[asked["mode"]]
    flags = tuning.flags_of(asked.get("flags", []), tuning.MEMORY_FLAGS, f"{where}.flags")
    text = asked.get("nodes")
    nodes = tuning.number_list(text, f"{where}.nodes", tuning.MAX_NODES) if text else []
    why = "set_mempolicy(2) is not there, or denied, as Docker does without CAP_SYS_NICE"
    degradation = Degradation(where, asked["mode"], "the caller's", why, id="RT-SECCOMP-CALLS")
    return draft.tolerate(Op("memory_policy", mode | flags, nodes, label=where), degradation)
