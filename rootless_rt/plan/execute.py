"""The plan of `rt exec`: one more process in a container that runs. Pure.

It is the end of the plan of `rt create` behind another beginning: nothing is made, the container's namespaces
are joined. The container's root may be hostile: from before the first join until the program starts, the
process is not dumpable: it cannot be traced, nor its descriptors or program opened (CVE-2016-9962). And
before the image's program runs it holds no descriptor but what it needs.
"""

from __future__ import annotations

from rootless_rt.plan import namespaces, process
from rootless_rt.plan.model import Draft, Plan, Policy
from rootless_rt.plan.ops import NO_SLOT, Op
from rootless_rt.spec.names import CAPABILITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.host.facts import HostFacts
    from rootless_rt.spec.load import Spec

CAP_SETGID = 1 << CAPABILITIES["CAP_SETGID"]


def exec_plan(spec: Spec, facts: HostFacts, policy: Policy, joined: dict[str, str]) -> Plan:
    """Compile a further process. `spec.data` is the container's config with the new process in it.

    `joined` are the namespaces to join, type -> path of the file. Raises RtError as `plan`.
    """
    draft = Draft(spec, facts, policy)
    draft.joined = dict(joined)
    draft.in_userns = draft.in_userns or "user" in joined
    slots = namespaces.joins(draft)
    tasks = [draft.fd_slot("tasks", path) for path in facts.cgroup.task_files]
    kept = [draft.fd_slot("keep", str(3 + index)) for index in range(policy.keep_fds)]
    draft.root_slot = draft.new_slot()
    ops = [Op("trace")] if policy.trace else []
    ops += process.host_ops(draft)
    initial, final = _affinity_ops(draft)
    ops += initial
    may_drop = facts.may_set_groups and facts.capabilities & CAP_SETGID
    if "user" in joined and may_drop and not draft.keeps_groups:
        # Inside it may be denied for good: the groups of the host's root would be the container's.
        ops.append(Op("become", facts.euid, facts.egid, 1))
    before, after_clone = namespaces.entry_ops(draft, slots, NO_SLOT, tasks)
    ops += before + after_clone + final
    ops += namespaces.become_ops(draft)
    ops += [Op("dumpable", 0), Op("here", draft.root_slot)]
    console = NO_SLOT
    if draft.process.get("terminal"):
        console = draft.new_slot()
        size = draft.process.get("consoleSize") or {}
        rows, cols = size.get("height") or policy.rows, size.get("width") or policy.cols
        ops.append(Op("console", draft.root_slot, console, rows, cols, 0, label="process.terminal"))
    ops += process.session_ops(draft, console)
    ops += process.credential_ops(draft, kept, make_cwd=False)
    ops += [Op("dumpable", 0), Op("wait_start", NO_SLOT)]
    ops += process.last_ops(draft, kept)
    return draft.finish(ops)


def _affinity_ops(draft: Draft) -> tuple[list[Op], list[Op]]:
    """The CPUs (up to the container's cgroup, inside it); without the latter the kernel decides there."""
    whole = process.cpuset_ops(draft)
    if not draft.process.get("execCPUAffinity"):
        return [], whole
    from rootless_rt.plan.tuning import affinity_ops

    initial, final = affinity_ops(draft)
    return initial, final or whole
