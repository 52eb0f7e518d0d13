"""What a process outside of the container sets on the container's own: scheduling and I/O priority.

A second rt-init does it, started with the caller's privileges in the caller's namespaces; it knows the
process by the number that it is told, which is safe while that is a child not waited for. See `plan.tuning`
for why.
"""

from __future__ import annotations

import errno
import posix

from rootless_rt.container import processes
from rootless_rt.container.create import Container, receive
from rootless_rt.container.report import failure
from rootless_rt.errors import RtError
from rootless_rt.init import launch
from rootless_rt.plan.model import Degradation, Plan
from rootless_rt.plan.ops import SYNC_CREATED, SYNC_MAPS, Op, encode


def set_from_outside(container: Container) -> None:
    """Perform the plan's `tuning` on the container's process. Raises RtError.

    A refusal that the facts did not tell of (a filter or a security module around this process, a cgroup
    without real-time share) is a degradation, unless the policy is strict.
    """
    plan = Plan()
    # It takes the number with "go on" at the first stop, and has done all when it comes to the second.
    plan.ops = [Op("sync", SYNC_MAPS), *container.plan.tuning, Op("sync", SYNC_CREATED)]
    sock, starter = launch.start(encode(plan.ops), [])
    try:
        while True:
            message = receive(sock)
            if message.type == launch.MSG_SYNC and message.value == SYNC_CREATED:
                return
            if message.type == launch.MSG_SYNC:
                launch.go_on(sock, container.pid)
            elif message.type == launch.MSG_NOTE and not container.options.strict:
                label = plan.ops[message.op].label
                why = f"{message.call}: {posix.strerror(message.err).lower()}"
                fix = hint(plan.ops[message.op], message.err) or ""
                asked = plan.ops[message.op].describe()
                found = Degradation(label, asked, "the caller's", why, fix, id="RT-BUNDLE-RLIMITS")
                container.plan.degradations.append(found)
            elif message.type in (launch.MSG_ERROR, launch.MSG_NOTE):
                raise failure(plan, message)
            else:
                raise RtError("rt-init ended before it had set the scheduling", hint="was it killed?")
    finally:
        sock.close()  # which ends it
        processes.reap(starter)


def hint(op: Op, number: int) -> str | None:
    """What mends a failure of one of the ops of `plan.tuning`, by errno."""
    if op.name == "scheduler":
        if number == errno.EPERM and op.args[0] == 6:
            return "SCHED_DEADLINE needs all CPUs of its root domain: no smaller cpuset, no affinity"
        if number == errno.EPERM:
            return (
                "real-time policies need a share of the cgroup (linux.resources.cpu.realtimeRuntime), "
                "and no seccomp filter around rt that forbids them"
            )
        if number == errno.EINVAL and op.args[0] == 4:
            return "Linux keeps the number of SCHED_ISO, but has no such policy"
        if number == errno.EBUSY:
            return "the CPUs are promised to other SCHED_DEADLINE processes: ask for less runtime in a period"
        if number == errno.EOPNOTSUPP:
            return "this kernel has no utilization clamps (CONFIG_UCLAMP_TASK)"
        if number == errno.EINVAL and op.args[0] == 6:
            return "is the period within kernel.sched_deadline_period_min_us and _max_us?"
    if op.name == "affinity" and number == errno.EINVAL:
        return "none of these CPUs is online and in the cpuset of the cgroup"
    if op.name == "affinity" and number == errno.EBUSY:
        return "a SCHED_DEADLINE process must be able to run on all CPUs of its root domain"
    if op.name == "memory_policy" and number == errno.EINVAL:
        return "has a node memory that the cpuset allows, and is the kernel new enough for mode and flags?"
    if op.name == "personality" and number == errno.EINVAL:
        return "this processor, or its kernel, runs no 32-bit programs"
    return None
