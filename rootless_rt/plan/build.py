"""plan(): from a checked config and the facts of the host to the ops of a container. Pure.

The order of the lists below is forced by the kernel; each step says by what.
"""

from __future__ import annotations

from rootless_rt.errors import SpecError
from rootless_rt.plan import devices, hooks, mounts, namespaces, process, rootfs
from rootless_rt.plan.model import Draft, Plan, Policy
from rootless_rt.plan.ops import NO_SLOT, SYNC_HOOKS, Op
from rootless_rt.spec.mountopts import asks_for_map
from rootless_rt.spec.names import RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.host.facts import HostFacts
    from rootless_rt.spec.load import Spec

# Descriptors beside those of mounts: the soft limit of 1024 is raised only where it could be reached.
_SPARE_FDS = 64


def plan(spec: Spec, facts: HostFacts, policy: Policy) -> Plan:
    """Compile a container. Raises RtError for what cannot be done here, and for degradations if strict."""
    draft = Draft(spec, facts, policy)
    for change in spec.changes:
        draft.degrade(**change)
    namespaces.namespaces(draft)
    if draft.linux.get("mountLabel"):
        from rootless_rt.plan import lsm

        lsm.mount_label(draft)  # where nothing is mounted it is wrong all the same
    if draft.linux.get("netDevices") or draft.linux.get("intelRdt"):
        from rootless_rt.plan.outside import outside

        outside(draft)
    joined = namespaces.joins(draft)
    cgroup = draft.fd_slot("into-cgroup") if facts.cgroup.enter_by_clone else NO_SLOT
    tasks = [draft.fd_slot("tasks", path) for path in facts.cgroup.task_files]
    listener = draft.fd_slot("listener") if policy.start_later else NO_SLOT
    kept = [draft.fd_slot("keep", str(3 + index)) for index in range(policy.keep_fds)]
    if any(asks_for_map(mount) for mount in draft.config.get("mounts", [])):
        from rootless_rt.plan.idmapped import take_slots

        take_slots(draft)
    draft.root_slot = draft.new_slot()

    upper = rootfs.upper_slot(draft)
    limits = process.host_ops(draft)
    before, after_clone = namespaces.entry_ops(draft, joined, cgroup, tasks)
    null = draft.source("/dev/null", False) if draft.linux.get("maskedPaths") else NO_SLOT
    mount_ops = mounts.mounts(draft)
    if policy.notify:
        from rootless_rt.plan.notify import notify_op

        mount_ops.append(notify_op(draft))
    device_ops = devices.devices(draft)
    console, console_ops = _console(draft)
    hiding = rootfs.hiding_ops(draft, null)
    _tell_limits(draft)

    ops = [Op("trace")] if policy.trace else []
    room = _room_for_fds(draft, limits)
    entered, *after_clone = after_clone  # where the process is put into its cgroup
    ops += [*limits, *room, *draft.early, *before, entered, *process.cpuset_ops(draft), *after_clone]
    ops += rootfs.first_ops(draft)
    # With the caller's own ids: root of the user namespace may be somebody who cannot search the way there.
    ops += draft.sources
    ops.append(rootfs.root_op(draft))
    ops += namespaces.become_ops(draft)
    if policy.overlay is not None:
        # By root of the user namespace, to whom the new files belong.
        ops.append(rootfs.overlay_op(draft, upper))
    ops += namespaces.identity_ops(draft)
    ops += mount_ops + device_ops + console_ops
    asked = draft.config.get("hooks", {})
    if asked.get("prestart") or asked.get("createRuntime"):
        ops.append(Op("sync", SYNC_HOOKS))
    ops += hooks.hook_ops(draft, "createContainer", "creating")
    # After the hooks: they may mount, and what they mount must not uncover a masked path.
    ops += hiding
    ops += rootfs.pivot_ops(draft)
    ops += process.session_ops(draft, console)
    ops += process.credential_ops(draft, kept if listener == NO_SLOT else [listener, *kept])
    ops += _room_given_back(draft, room)
    ops.append(Op("wait_start", listener))
    ops += hooks.hook_ops(draft, "startContainer", "created")
    ops += process.last_ops(draft, kept)
    return draft.finish(ops)


def _tell_limits(draft: Draft) -> None:
    for field, asked, why, fix in draft.facts.cgroup.unmet:
        draft.degrade(field, asked, "no limit", why, fix, id="RT-BUNDLE-LIMITS")
    for note in draft.facts.cgroup.notes:
        draft.warn(note)


def _console(draft: Draft) -> tuple[int, list[Op]]:
    if not draft.process.get("terminal"):
        return NO_SLOT, []
    if not any(mounts.normal(mount["destination"]) == "/dev/pts" for mount in draft.config.get("mounts", [])):
        raise SpecError(
            "process.terminal",
            "needs a devpts mounted on /dev/pts",
            hint='add {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": '
            '["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]} to mounts',
        )
    slot = draft.new_slot()
    size = draft.process.get("consoleSize") or {}
    rows, cols = size.get("height") or draft.policy.rows, size.get("width") or draft.policy.cols
    return slot, [Op("console", draft.root_slot, slot, rows, cols, 1, label="process.terminal")]


def _room_for_fds(draft: Draft, limits: list[Op]) -> list[Op]:
    """The soft limit on descriptors, raised where the plan needs more; `limits` may raise the hard one."""
    nofile = RLIMITS["RLIMIT_NOFILE"]
    soft, hard = draft.facts.rlimits[nofile]
    if len(draft.sources) + len(draft.plan.fds) + draft.spare_fds + _SPARE_FDS <= soft:
        return []
    hard = max([hard, *(op.args[2] for op in limits if op.name == "rlimit" and op.args[0] == nofile)])
    return [Op("rlimit", nofile, hard, hard)]


def _room_given_back(draft: Draft, room: list[Op]) -> list[Op]:
    """The caller's soft limit again, unless the config sets its own."""
    asked = any(limit["type"] == "RLIMIT_NOFILE" for limit in draft.process.get("rlimits", []))
    if not room or asked:
        return []
    nofile = RLIMITS["RLIMIT_NOFILE"]
    return [Op("rlimit", nofile, *draft.facts.rlimits[nofile])]
