"""The process: limits, ids, groups, capabilities, environment, working directory, seccomp, program.

Capabilities, no_new_privs and seccomp never degrade. The filter is loaded as the very last step but exec, so
that nothing of ours runs under it; without no_new_privs loading needs CAP_SYS_ADMIN, which is then kept up to
that point and dropped right behind it.
"""

from __future__ import annotations

from rootless_rt.errors import SpecError
from rootless_rt.plan.model import Degradation, Draft
from rootless_rt.plan.namespaces import nest_ops
from rootless_rt.plan.ops import ALWAYS, IF_ALLOWED, NEVER, NO_SLOT, Op
from rootless_rt.spec.names import CAPABILITIES, LANDLOCK, RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.host.seccomp import SeccompFilter

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CAP_SYS_ADMIN = 1 << CAPABILITIES["CAP_SYS_ADMIN"]
CAP_SYS_RESOURCE = 1 << CAPABILITIES["CAP_SYS_RESOURCE"]
_NO_LIMIT = 0xFFFFFFFFFFFFFFFF


def host_ops(draft: Draft) -> list[Op]:
    """What must be done with the caller's own privileges, before the user namespace."""
    ops = []
    for number, _, hard, where in _rlimits(draft):
        # Raised here, where CAP_SYS_RESOURCE may count; the final values are set inside.
        if hard > draft.facts.rlimits[number][1]:
            ops.append(Op("rlimit", number, draft.facts.rlimits[number][0], hard, label=where))
    score = draft.process.get("oomScoreAdj")
    if score is not None:
        ops += _oom_score_adj(draft, score)
    return ops


def cpuset_ops(draft: Draft) -> list[Op]:
    """Once in its cgroup the process may use all CPUs of that: not only those that its caller is tied to.

    Since Linux 6.2 a cpuset only narrows what sched_setaffinity(2) has asked for before.
    """
    field = "linux.resources.cpu.cpus"
    cpus = draft.linux.get("resources", {}).get("cpu", {}).get("cpus")
    if not cpus or any(unmet[0] == field for unmet in draft.facts.cgroup.unmet):
        return []
    return [Op("affinity", [], label=field)]


def _privileged(draft: Draft) -> bool:
    return draft.facts.initial_userns and bool(draft.facts.capabilities & CAP_SYS_RESOURCE)


def _rlimits(draft: Draft) -> list[tuple[int, int, int, str]]:
    """(resource, soft, hard, JSON path), with values that this caller may set."""
    limits = []
    for index, limit in enumerate(draft.process.get("rlimits", [])):
        where = f"process.rlimits[{index}]"
        number = RLIMITS[limit["type"]]
        soft, hard = limit["soft"], limit["hard"]
        most = draft.facts.rlimits[number][1]
        if hard > most and not _privileged(draft):
            draft.degrade(
                where,
                f"{limit['type']} {_limit(hard)}",
                _limit(most),
                f"the hard limit here is {_limit(most)}",
                "an admin can raise it in /etc/security/limits.d or with systemctl edit user@.service",
                id="RT-BUNDLE-RLIMITS",
            )
            soft, hard = min(soft, most), most
        limits.append((number, soft, hard, where))
    return limits


def _limit(value: int) -> str:
    return "unlimited" if value == _NO_LIMIT else str(value)


def _oom_score_adj(draft: Draft, score: int) -> list[Op]:
    now = draft.facts.oom_score_adj
    if score == now:
        return []
    where = "process.oomScoreAdj"
    op = Op("oom_score_adj", str(score), label=where)
    if score < now and not _privileged(draft):
        # Going back to where the score was last set with that capability is allowed (engines raise their
        # shims' by one and want containers at 0); where that is, only trying tells.
        why = f"only CAP_SYS_RESOURCE may go below the current {now}"
        draft.tolerate(op, Degradation(where, str(score), str(now), why, id="RT-BUNDLE-RLIMITS"))
    return [op]


def session_ops(draft: Draft, console_slot: int) -> list[Op]:
    """A session of its own (no TIOCSTI into the caller's terminal), stdio, keyring."""
    user = draft.process.get("user", {})
    uid, gid = user.get("uid", 0), user.get("gid", 0)
    if draft.nested:
        uid = gid = 0  # its own are not known yet where this is done
    ops = [Op("session", console_slot)]
    if uid or console_slot != NO_SLOT:
        ops.append(Op("chown_stdio", uid, gid))
    if draft.policy.new_keyring:
        name = f"_ses.{draft.policy.container_id}"
        why = "the kernel gives no more keys to this user, or none at all"
        fix = "more keys: sysctl kernel.keys.maxkeys; none wanted: --no-new-keyring"
        degradation = Degradation(
            "session keyring", "a new one", "the caller's", why, fix, id="RT-QUOTA-KEYS"
        )
        keyring = draft.tolerate(Op("keyring", name), degradation)
        if draft.process.get("selinuxLabel"):
            from rootless_rt.plan import lsm

            ops += lsm.keyring_ops(draft, keyring)
        else:
            ops.append(keyring)
    return ops


def credential_ops(draft: Draft, open_slots: list[int], *, make_cwd: bool = True) -> list[Op]:
    """Working directory, HOME, limits, ids and capabilities: all but what waits for start.

    `open_slots` are the descriptors that what follows needs; `make_cwd` makes a missing working directory.
    """
    process = draft.process
    user = process.get("user", {})
    uid, gid = user.get("uid", 0), user.get("gid", 0)
    _check_mapped(draft, uid, gid)
    groups, set_groups = _groups(draft, user.get("additionalGids", []), gid)
    sets = capability_sets(draft)
    effective, permitted, inheritable = sets["effective"], sets["permitted"], sets["inheritable"]
    if draft.facts.emulation is not None and _emulation(draft) is None:
        draft.warn(
            "--uid-emulation has no effect: more ids than one are mapped, or no user namespace is made"
        )
    late_filter = _filter_needs_admin(draft)
    ops = [Op("chdir", process.get("cwd", "/"), 1 if make_cwd else 0, label="process.cwd")]
    if not any(item.startswith("HOME=") for item in process.get("env", [])):
        ops.append(Op("home", draft.root_slot, uid))
    ops += nest_ops(draft)
    if process.get("apparmorProfile") or process.get("selinuxLabel"):
        from rootless_rt.plan import lsm

        label_ops, label_slots = lsm.program_label(draft)
        ops += label_ops
        open_slots = [*open_slots, *label_slots]
    # Before anything of the image can run, and before RLIMIT_NOFILE counts what is open.
    ops.append(Op("close_others", open_slots))
    if LANDLOCK in draft.config.get("annotations", {}):
        from rootless_rt.plan import landlock

        ops += landlock.rule_ops(draft)
    ops += [
        Op("rlimit", number, soft, hard, label=where) for number, soft, hard, where in _rlimits_done(draft)
    ]
    ops += _tuning_ops(draft)
    ops.append(Op("bounding", sets["bounding"], label="process.capabilities.bounding"))
    ids = Op("ids", uid, gid, groups, set_groups, user.get("umask", 0o022), label="process.user")
    ops.append(draft.tolerate(ids, _groups_denied(groups)) if groups and set_groups == IF_ALLOWED else ids)
    extra = CAP_SYS_ADMIN if late_filter else 0
    ops.append(Op("caps", effective | extra, permitted | extra, inheritable, label="process.capabilities"))
    # The kernel raises only what is permitted and inheritable too (capabilities(7)); many configs name more.
    ambient = sets["ambient"] & permitted & inheritable
    ops.append(Op("ambient", ambient, label="process.capabilities.ambient"))
    if process.get("noNewPrivileges"):
        ops.append(Op("no_new_privs"))
    # As long as it is alone engines may look at /proc/PID/ns of a created container.
    ops.append(Op("dumpable", 0 if draft.joined else 1))
    ops.append(Op("find", process["args"][0], _path(process.get("env", [])), label="process.args[0]"))
    return ops


def _tuning_ops(draft: Draft) -> list[Op]:
    """Scheduling, I/O priority, memory policy and personality, which few configs ask for."""
    asked = [draft.process.get(key) for key in ("scheduler", "ioPriority")]
    if not any([*asked, *[draft.linux.get(key) for key in ("memoryPolicy", "personality")]]):
        return []
    from rootless_rt.plan.tuning import tuning_ops

    return tuning_ops(draft)


def last_ops(draft: Draft, kept: list[int]) -> list[Op]:
    """What comes after start and its hooks: files, filter, program."""
    process = draft.process
    # Before keep_fds: it may give their numbers to others.
    ops = [*draft.last_writes, Op("keep_fds", kept)]
    env = list(process.get("env", []))
    if draft.policy.listen_fds:
        env += [f"LISTEN_FDS={draft.policy.listen_fds}", "LISTEN_PID=1"]
        if draft.policy.listen_names:
            env.append(f"LISTEN_FDNAMES={draft.policy.listen_names}")
        if "pid" not in draft.new:
            ops.append(Op("listen_pid"))
    if draft.policy.notify:
        from rootless_rt.plan.notify import VARIABLE

        env.append(VARIABLE)
    emulated = _emulation(draft)
    if emulated is not None:
        # Before the config's own, which may deny loading another; the kernel goes by the stricter answer.
        ops.append(Op("seccomp", emulated.flags, emulated.program, label="--uid-emulation"))
    if draft.facts.filter is not None:
        found = draft.facts.filter
        name = "seccomp_listen" if found.notifies else "seccomp"
        ops.append(Op(name, found.flags, found.program, label="linux.seccomp"))
    if _filter_needs_admin(draft):
        sets = capability_sets(draft, quiet=True)
        masks = (sets["effective"], sets["permitted"], sets["inheritable"])
        ops.append(Op("caps", *masks, label="linux.seccomp"))
    ops.append(Op("exec", process["args"], environment(env), label="process.args[0]"))
    return ops


def _filter_needs_admin(draft: Draft) -> bool:
    filtered = draft.facts.filter is not None or _emulation(draft) is not None
    return filtered and not draft.process.get("noNewPrivileges")


def _emulation(draft: Draft) -> SeccompFilter | None:
    """The filter that lets changes of ids come to nothing: only where there is a single one."""
    maps = draft.facts.joined_maps if "user" in draft.joined else (draft.plan.uid_map, draft.plan.gid_map)
    single = maps is not None and all(lines and sum(line[2] for line in lines) == 1 for lines in maps)
    return draft.facts.emulation if single else None


def _rlimits_done(draft: Draft) -> list[tuple[int, int, int, str]]:
    """The final limits; what had to be degraded was said by host_ops."""
    limits = []
    for index, limit in enumerate(draft.process.get("rlimits", [])):
        number, soft, hard = RLIMITS[limit["type"]], limit["soft"], limit["hard"]
        if not _privileged(draft):
            most = draft.facts.rlimits[number][1]
            soft, hard = min(soft, most), min(hard, most)
        limits.append((number, soft, hard, f"process.rlimits[{index}]"))
    return limits


def _check_mapped(draft: Draft, uid: int, gid: int) -> None:
    if draft.nested:
        return
    for name, number, mapped in (("uid", uid, draft.uid_mapped(uid)), ("gid", gid, draft.gid_mapped(gid))):
        if not mapped and "user" in draft.joined:
            raise SpecError(
                f"process.user.{name}",
                f"{name} {number} is not mapped in the user namespace that was joined",
                hint="/proc/self/uid_map and gid_map in the container say which ids it has",
            )
        if not mapped:
            raise SpecError(
                f"process.user.{name}",
                f"cannot set {name} to unmapped user: {number} is not in linux.{name}Mappings",
                hint=f"map {name} {number} (rt spec --rootless --idmap full), or use {name} 0",
            )


def _groups_denied(groups: list[int]) -> Degradation:
    return Degradation(
        "process.user.additionalGids",
        ", ".join(map(str, groups)),
        "the caller's own groups",
        "setgroups(2) is denied in the joined user namespace",
        id="RT-IDS-GROUPS",
    )


def _groups(draft: Draft, asked: list[int], gid: int) -> tuple[list[int], int]:
    """The supplementary groups to set, and whether setgroups(2) is to be called (ALWAYS ...)."""
    if draft.keeps_groups:
        lost = [number for number in asked if number != gid]
        if lost:
            draft.degrade(
                "process.user.additionalGids",
                ", ".join(map(str, lost)),
                "the caller's own groups",
                "those are to be kept, and can only be kept or replaced as a whole",
                "leave out additionalGids, or what asks to keep the groups",
                id="RT-IDS-GROUPS",
            )
        return [], NEVER
    if "user" in draft.new and (draft.nested or not draft.plan.set_groups):
        lost = [number for number in asked if number != gid]
        if lost:
            draft.degrade(
                "process.user.additionalGids",
                ", ".join(map(str, lost)),
                "the caller's own groups",
                "setgroups(2) is denied where only the own group is mapped",
                "map a range of groups: rt spec --rootless --idmap full; or keep yours: --keep-groups",
                id="RT-IDS-GROUPS",
            )
        return [], NEVER
    unmapped = [number for number in asked if not draft.gid_mapped(number)]
    if unmapped:
        draft.degrade(
            "process.user.additionalGids",
            ", ".join(map(str, unmapped)),
            "without them",
            "they are not in linux.gidMappings",
            "map them, or remove them; those that you have yourself: --keep-groups",
            id="RT-IDS-GROUPS",
        )
    if not ("user" in draft.new or "user" in draft.joined or draft.facts.may_set_groups):
        return [], NEVER
    groups = [number for number in asked if number not in unmapped]
    if "user" in draft.joined and not (groups and draft.policy.strict):
        return groups, IF_ALLOWED  # whether it may be called there is only known once it has been joined
    return groups, ALWAYS


def capability_sets(draft: Draft, quiet: bool = False) -> dict[str, int]:
    """The five sets as masks. A name that the kernel's list does not have is left out with a warning."""
    asked = draft.process.get("capabilities", {})
    masks = {}
    for name in ("bounding", "effective", "inheritable", "permitted", "ambient"):
        mask = 0
        for capability in asked.get(name, []):
            bit = CAPABILITIES.get(capability)
            if bit is None:
                continue  # said by `spec` as it read the config
            if bit <= draft.facts.last_capability:
                mask |= 1 << bit
            elif not quiet:
                draft.warn(f"process.capabilities.{name}: this kernel has no {capability}: left out")
        masks[name] = mask
    return masks


def environment(items: list[str]) -> list[str]:
    """Without duplicates: the last value of a name wins, at the place of the first."""
    values: dict[str, str] = {}
    for item in items:
        name = item.partition("=")[0]
        values[name] = item
    return list(values.values())


def _path(items: list[str]) -> str:
    for item in reversed(items):
        if item.startswith("PATH="):
            return item[5:]
    return DEFAULT_PATH
