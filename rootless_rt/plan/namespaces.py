"""Namespaces: which are made, which are joined, in what order, and the maps of a new user namespace.

The order is the kernel's: an existing user namespace is joined first, since it gives the privilege to join
those it owns; the others next; all new ones are made by one clone(2), so that they belong to the
new user namespace (user_namespaces(7)). Then comes the time namespace: its offsets can only be set while
nobody is in it (time_namespaces(7)). The cgroup namespace is made last of all, after the process has moved
into its cgroup: its root is the cgroup at that moment (cgroup_namespaces(7)).
"""

from __future__ import annotations

from rootless_rt.errors import SpecError
from rootless_rt.plan.model import Degradation, Draft
from rootless_rt.plan.ops import SYNC_MAPS, Op
from rootless_rt.spec.names import IDMAP, NAMESPACES, sysctl_parts

CLONE_NEWUSER = NAMESPACES["user"][0]
# The order of joining, and the types that a user namespace among them must own.
ORDER = ("user", "ipc", "uts", "network", "pid", "time", "mount", "cgroup")


def namespaces(draft: Draft) -> None:
    """Decide on namespaces and maps: draft.new, draft.joined, the plan's maps. Raises RtError."""
    for entry in draft.linux.get("namespaces", []):
        kind = entry["type"]
        if entry.get("path"):
            draft.joined[kind] = entry["path"]
        else:
            draft.new[kind] = NAMESPACES[kind][0]
    facts = draft.facts
    if "user" not in draft.new and "user" not in draft.joined and facts.euid != 0:
        draft.degrade(
            "linux.namespaces",
            "no user namespace",
            "one that maps only your own ids",
            "an ordinary user can make the others only inside one",
            "rt spec --rootless writes such a config",
            id="RT-BUNDLE-PLAN",
        )
        draft.new["user"] = CLONE_NEWUSER
        draft.plan.uid_map = [(0, facts.euid, 1)]
        draft.plan.gid_map = [(0, facts.egid, 1)]
    elif "user" in draft.new:
        draft.plan.uid_map = _extents(draft, "uidMappings")
        draft.plan.gid_map = _extents(draft, "gidMappings")
        draft.plan.lent = _is_lent(draft)
    if "mount" not in draft.new and "mount" not in draft.joined:
        raise SpecError(
            "linux.namespaces",
            "there is no mount namespace: rt does not mount in the host's",
            hint='add {"type": "mount"}',
        )
    if draft.plan.gid_map is not None:
        alone = draft.plan.gid_map == [(draft.plan.gid_map[0][0], facts.egid, 1)]
        # Denied around us it is denied in every namespace below, whatever is mapped (user_namespaces(7)).
        draft.plan.set_groups = facts.may_set_groups and (facts.can_map_all or not alone)
    draft.in_userns = draft.in_userns or "user" in draft.new or "user" in draft.joined
    draft.plan.own_pid = "pid" in draft.new
    draft.nested = _nested(draft)


def _is_lent(draft: Draft) -> bool:
    """Whether systemd-nsresourced is to choose the ids: 65536 from 0 on, for users and groups alike."""
    asked = draft.config.get("annotations", {}).get(IDMAP)
    if asked is None:
        return False
    maps = (draft.plan.uid_map or [], draft.plan.gid_map or [])
    if asked != "nsresource" or any([(line[0], line[2]) for line in lines] != [(0, 65536)] for lines in maps):
        raise SpecError(
            f'annotations["{IDMAP}"]',
            "takes nsresource alone, with one uid and one gid mapping of size 65536 for containerID 0",
            hint="rt run --idmap nsresource",
        )
    return True


def _nested(draft: Draft) -> tuple[int, int] | None:
    """The process's uid and gid where they are not mapped, but a single uid and gid are, to stand for them.

    Then the process gets a further user namespace, in which its numbers are the caller's ids. While that is
    made the process may be looked at, so not where it shares pids with others.
    """
    user = draft.process.get("user", {})
    uid, gid = user.get("uid", 0), user.get("gid", 0)
    maps = (draft.plan.uid_map, draft.plan.gid_map)
    if any(lines is None or [line[2] for line in lines] != [1] for lines in maps) or "pid" in draft.joined:
        return None
    return None if draft.uid_mapped(uid) and draft.gid_mapped(gid) else (uid, gid)


def nest_ops(draft: Draft) -> list[Op]:
    """Make the user namespace for a process whose ids are not mapped, see `_nested`."""
    uid_map, gid_map = draft.plan.uid_map, draft.plan.gid_map
    if draft.nested is None or not uid_map or not gid_map:
        return []
    uid, gid = draft.nested
    if draft.process.get("capabilities", {}).get("permitted"):
        draft.degrade(
            "process.capabilities",
            "over the container's namespaces",
            "over its own processes and files only",
            f"uid {uid} or gid {gid} is not mapped, so the process gets a further user namespace",
            "map a range of ids (rt spec --rootless --idmap full), or use uid 0",
            id="RT-IDS-UNMAPPED",
        )
    ops = [Op("dumpable", 1)]  # or its own /proc/self would not be its own
    ops.append(Op("nest", uid, uid_map[0][0], gid, gid_map[0][0], label="process.user"))
    return [*ops, Op("dumpable", 0)] if draft.joined else ops


def _extents(draft: Draft, field: str) -> list[tuple[int, int, int]]:
    return [(line["containerID"], line["hostID"], line["size"]) for line in draft.linux[field]]


def joins(draft: Draft) -> list[tuple[str, int]]:
    """Take a slot for every joined namespace, in the order of joining."""
    steps = draft.facts.join_order or [
        (kind, "", draft.joined[kind]) for kind in ORDER if kind in draft.joined
    ]
    return [(kind, draft.fd_slot(how or kind, path)) for kind, how, path in steps]


def entry_ops(
    draft: Draft, joined: list[tuple[str, int]], cgroup_slot: int, task_slots: list[int]
) -> tuple[list[Op], list[Op]]:
    """The ops around the clone: (those up to it, those right after it)."""
    opened, offsets = _time_ops(draft)
    ops = []
    if "user" in draft.joined:
        ops += opened  # inside, its own /proc/self would not be its own
    if joined:
        # What is joined may hold processes that would look into ours.
        ops.append(Op("dumpable", 0))
        ops += [Op("join", slot, NAMESPACES[kind][0], kind) for kind, slot in joined]
        ops.append(Op("dumpable", 0))  # joining a user namespace leaves what fs.suid_dumpable says
        if "user" in draft.new and not draft.facts.can_map_all:
            ops.append(Op("dumpable", 1))  # the helpers must be able to write our maps
    flags = 0
    for kind, flag in draft.new.items():
        if kind not in ("cgroup", "time"):
            flags |= flag
    if "user" in draft.joined:
        ops += offsets  # the clone is born into it
    ops.append(Op("clone", flags, cgroup_slot))
    after = [Op("enter_cgroups", task_slots, label="the container's cgroup")] if task_slots else []
    after.append(Op("sync", SYNC_MAPS))
    if "time" in draft.new and "user" not in draft.joined:
        after += opened + offsets + [Op("enter_own", "time_for_children", draft.new["time"])]
    if joined:
        after.append(Op("dumpable", 0))
    if "cgroup" in draft.new:
        after.append(Op("unshare", draft.new["cgroup"]))
    return ops, after


def _time_ops(draft: Draft) -> tuple[list[Op], list[Op]]:
    """A new time namespace for the children: (opening its offsets, making it and writing them)."""
    if "time" not in draft.new:
        return [], []
    made = Op("unshare", draft.new["time"], label="linux.namespaces (time)")
    lines = [
        f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}\n"
        for clock, offset in draft.linux.get("timeOffsets", {}).items()
    ]
    if not lines:
        return [], [made]
    slot = draft.new_slot()
    opened = Op("proc_file", slot, "self/timens_offsets", label="linux.timeOffsets")
    return [opened], [made, Op("proc_write", slot, "".join(lines), label="linux.timeOffsets")]


def become_ops(draft: Draft) -> list[Op]:
    """Become root of the user namespace, when it has one, for the work to come."""
    if "user" not in draft.new and "user" not in draft.joined:
        return []
    if not (draft.uid_mapped(0) and draft.gid_mapped(0)):
        return []
    drop = "user" in draft.new and draft.plan.set_groups and not draft.keeps_groups
    ops = [Op("become", 0, 0, int(drop))]
    # A change of uid leaves what fs.suid_dumpable says, which may be anything.
    # Alone in fresh namespaces: hooks of the user may look at /proc/PID/ns, which a changed uid forbids.
    ops.append(Op("dumpable", 0 if draft.joined else 1))
    return ops


def _name_kept(draft: Draft, field: str, name: str) -> Degradation:
    """A uts namespace of its own gives that right: then only a filter can take it, as those of engines do."""
    if "uts" not in draft.new:
        why = "the uts namespace belongs to another user namespace"
        fix = f"add a uts namespace, or leave out {field}"
        return Degradation(field, name, "that of the joined namespace", why, fix, id="RT-MOUNT-OWNER")
    why = f"set{field}(2) is denied here, as by the seccomp filter of a surrounding container"
    fix = "run that with a profile that allows it, or leave the name out"
    return Degradation(field, name, "the caller's", why, fix, id="RT-SECCOMP-CALLS")


def identity_ops(draft: Draft) -> list[Op]:
    """Host name, domain name, loopback and sysctls."""
    ops = []
    for field in ("hostname", "domainname"):
        if name := draft.config.get(field):
            ops.append(draft.tolerate(Op(field, name), _name_kept(draft, field, name)))
    if "network" in draft.new:
        ops.append(Op("loopback"))
    for key, value in draft.linux.get("sysctl", {}).items():
        ops.append(Op("sysctl", "/".join(sysctl_parts(key) or ()), value, label=f"linux.sysctl.{key}"))
    return ops
