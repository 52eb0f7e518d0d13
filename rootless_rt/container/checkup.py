"""Checks of one bundle, for `rt doctor --bundle`: what it needs, and what of that this host gives.

Evidence is the container's plan for this host, made but not performed, and the way to the rootfs. The checks
themselves are pure. Their texts stand in `host.doctor.reasons`.
"""

from __future__ import annotations

import os

from idmap.extents import to_outside
from rootless_rt.container.prepare import prepare
from rootless_rt.errors import RtError
from rootless_rt.host.doctor.access import Step, Who, allowed, denied, steps
from rootless_rt.host.doctor.fixes import quote
from rootless_rt.host.doctor.model import BLOCKED, DEGRADED, Me, Trouble
from rootless_rt.host.doctor.system import FAR, PLAIN, mount_of, mounts
from rootless_rt.host.idmaps import causes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from idmap.errors import IdmapError
    from idmap.extents import Extent
    from rootless_rt.container.prepare import Options
    from rootless_rt.host.doctor.model import Check
    from rootless_rt.host.doctor.system import Mount
    from rootless_rt.plan.model import Degradation
    from rootless_rt.spec.load import Spec

_LIMITS = ("linux.resources",)
_PROCESS = ("process.rlimits", "process.oomScoreAdj", "process.scheduler", "process.ioPriority")
_DEVICES = ("linux.devices", "linux.resources.devices", "default devices")


class BundleEvidence:
    """error: why there is no plan, or None. degradations: of the plan. strict: whether they are errors.
    uid_map, gid_map: of the container, None without a user namespace of its own. path: the directories from
    / to the rootfs. sources: the same to those of bind mounts. user: (uid, gid) of the program, inside.
    mount: what the rootfs lies on, or None. causes: why its maps cannot be written. devices: path -> Step of
    the host, or None where it lacks it."""

    __slots__ = (
        "causes", "degradations", "devices", "error", "gid_map", "mount", "path", "sources", "strict",
        "uid_map", "user",
    )  # fmt: skip

    def __init__(self) -> None:
        self.error: RtError | None = None
        self.degradations: list[Degradation] = []
        self.strict = False
        self.uid_map: list[Extent] | None = [(0, 1000, 1)]
        self.gid_map: list[Extent] | None = [(0, 1000, 1)]
        self.path: list[Step] = []
        self.sources: list[list[Step]] = []
        self.user = (0, 0)
        self.mount: Mount | None = None
        self.causes: list[IdmapError] = []
        self.devices: dict[str, Step | None] = {}


def gather(load: Callable[[], Spec], options: Options, me: Me) -> BundleEvidence:
    """Plan the bundle that `load` reads, and look at its place. Raises nothing of rt's: that is a finding."""
    found = BundleEvidence()
    found.strict = options.strict
    options.strict = False
    try:
        spec = load()
        found.user = _user(spec.data)
        found.path = steps(spec.rootfs)
        if found.path:
            found.mount = mount_of(found.path[-1].path, mounts(""))
        found.sources = [steps(source) for source in _sources(spec.data)]
        found.devices = _devices(spec.data)
        plan = prepare(spec, "rt-doctor", options).plan
    except RtError as error:
        found.error = error
        return found
    found.degradations = plan.degradations
    found.uid_map, found.gid_map = plan.uid_map, plan.gid_map
    if me.euid != 0:
        found.causes = causes(me.uid, me.name, (plan.uid_map, plan.gid_map), (me.euid, me.groups[0]))
    return found


def _user(data: dict[str, Any]) -> tuple[int, int]:
    user = data.get("process", {}).get("user", {})
    return user.get("uid", 0), user.get("gid", 0)


def _sources(data: dict[str, Any]) -> list[str]:
    """The sources of bind mounts."""
    return [
        mount["source"]
        for mount in data.get("mounts", [])
        if mount.get("source") and {"bind", "rbind"} & {mount.get("type"), *mount.get("options", [])}
    ]


def _devices(data: dict[str, Any]) -> dict[str, Step | None]:
    listed = [device["path"] for device in data.get("linux", {}).get("devices", [])]
    listed += [source for source in _sources(data) if source.startswith("/dev/")]
    found: dict[str, Step | None] = {}
    for path in listed:
        try:
            status = os.stat(path)
        except OSError:
            found[path] = None
            continue
        found[path] = Step(path, status.st_mode, status.st_uid, status.st_gid)
    return found


def check_config(found: BundleEvidence, me: Me) -> Trouble | None:
    """Can it be planned at all?"""
    if found.error is None:
        return None
    return Trouble(found.error.message, found.error.hint or "")


def _differs(found: BundleEvidence, items: list[Degradation]) -> Trouble | None:
    """One trouble for several degradations."""
    if not items:
        return None
    lines = [item.line() for item in items]
    fixes = list(dict.fromkeys(item.fix for item in items if item.fix))
    status = BLOCKED if found.strict and not all(item.always for item in items) else DEGRADED
    return Trouble(lines[0], "; ".join(fixes), status=status, details=lines[1:])


def _of(found: BundleEvidence, fields: tuple[str, ...], but: tuple[str, ...] = ()) -> list[Degradation]:
    return [
        item
        for item in found.degradations
        if item.field.startswith(fields) and not (but and item.field.startswith(but))
    ]


def check_limits(found: BundleEvidence, me: Me) -> Trouble | None:
    """linux.resources against cgroups."""
    return _differs(found, _of(found, _LIMITS, _DEVICES))


def check_process(found: BundleEvidence, me: Me) -> Trouble | None:
    """What root alone may raise."""
    return _differs(found, _of(found, _PROCESS))


def check_devices(found: BundleEvidence, me: Me) -> Trouble | str | None:
    """Nodes that are there, and open."""
    trouble = _differs(found, _of(found, _DEVICES))
    if trouble is not None:
        return trouble
    who = Who(me.euid, me.groups, powerful=me.privileged)
    own = Who(me.euid, me.groups[:1], powerful=me.privileged)
    by_group = []
    for path, device in found.devices.items():
        if device is None:
            continue  # the plan says what becomes of it
        if not allowed(device, who, 4):
            return Trouble(
                f"{device.shown()} is closed to you, and so to the container",
                f"join its group: sudo usermod -aG GROUP {quote(me.who)}; log in anew, and use --keep-groups",
            )
        if not allowed(device, own, 4):
            by_group.append(path)
    if by_group:
        return f"{', '.join(by_group)} by your groups: use --keep-groups"
    return ", ".join(found.devices) or None


def check_ids(found: BundleEvidence, me: Me) -> Trouble | str | None:
    """Is the map granted?"""
    if found.causes:
        first = found.causes[0]
        return Trouble(str(first), first.hint or "", details=[str(error) for error in found.causes[1:]])
    if found.error is not None:
        return "not planned, see RT-BUNDLE-CONFIG"
    if not found.uid_map:
        return "no user namespace of its own"
    total = sum(count for _, _, count in found.uid_map)
    return f"{total} uid{'' if total == 1 else 's'}"


def check_path(found: BundleEvidence, me: Me) -> Trouble | str | None:
    """Can you come to the rootfs and the bind sources, and the container's root and user into the rootfs?

    rt opens what the container is made of as the caller, so the directories above concern nobody else."""
    mine = Who(me.euid, me.groups, powerful=me.privileged)
    for path in (found.path, *found.sources):
        closed = denied(path, mine)
        if closed is not None:
            return _closed(closed, me.euid, "you")
    if not found.path or (me.privileged and not found.uid_map):
        return None
    maps = found.uid_map or [], found.gid_map or []
    last = found.path[-1]
    for inside in ((0, 0), found.user):
        ids = _outside(maps, inside)
        # Root inside passes whatever belongs to ids of the map.
        if ids is None or (inside[0] == 0 and _inside(last, maps)):
            continue
        groups = me.groups if ids[0] == me.euid else (ids[1],)
        if not allowed(last, Who(ids[0], groups), 1):
            whom = "the container's root" if inside[0] == 0 else f"uid {inside[0]} of the container"
            return _closed(last, ids[0], f"{whom}, which is uid {ids[0]} of the host")
    return None


def _closed(step: Step, uid: int, whom: str) -> Trouble:
    return Trouble(
        f"{step.shown()} cannot be searched by {whom}",
        f"setfacl -m u:{uid}:x {quote(step.path)}, or chmod o+x {quote(step.path)}",
    )


def _outside(maps: tuple[list[Extent], list[Extent]], ids: tuple[int, int]) -> tuple[int, int] | None:
    uid, gid = to_outside(maps[0], ids[0]), to_outside(maps[1], ids[1])
    return None if uid is None or gid is None else (uid, gid)


def _inside(step: Step, maps: tuple[list[Extent], list[Extent]]) -> bool:
    def mapped(extents: list[Extent], number: int) -> bool:
        return any(outside <= number < outside + count for _, outside, count in extents)

    return mapped(maps[0], step.uid) and mapped(maps[1], step.gid)


def check_filesystem(found: BundleEvidence, me: Me) -> Trouble | str | None:
    """Does it know owners?"""
    mount = found.mount
    if mount is None:
        return None
    several = sum(count for _, _, count in found.uid_map or []) > 1
    if mount.kind in FAR:
        if not several or me.privileged:
            return f"{mount.kind}, on which only your own ids can own files"
        return Trouble(
            f"{mount.point} is {mount.kind}: its server does not know your other ids, and refuses them",
            "put the bundle on a local disk, or map only your own ids (--idmap single)",
        )
    if mount.kind in PLAIN:
        return Trouble(
            f"{mount.point} is {mount.kind}, which does not keep owners and modes as Linux does",
            "put the bundle on ext4, xfs, btrfs or tmpfs",
        )
    return mount.kind


def check_flags(found: BundleEvidence, me: Me) -> Trouble | str | None:
    """May programs be executed there?"""
    mount = found.mount
    if mount is None:
        return None
    if "noexec" in mount.flags:
        return Trouble(
            f"{mount.point} is mounted noexec: no program of the rootfs can be executed",
            f"move the bundle, or: sudo mount -o remount,exec {quote(mount.point)}",
            (f"mount -o remount,exec {quote(mount.point)}",),
        )
    if "nosuid" in mount.flags:
        return f"{mount.point} is mounted nosuid: su and sudo inside have no more rights than their caller"
    return None


def check_plan(found: BundleEvidence, me: Me) -> Trouble | None:
    """All else that would differ."""
    named = {id(item) for item in _of(found, (*_LIMITS, *_PROCESS, *_DEVICES))}
    return _differs(found, [item for item in found.degradations if id(item) not in named])


CHECKS: tuple[Check, ...] = (
    ("RT-BUNDLE-CONFIG", check_config),
    ("RT-BUNDLE-LIMITS", check_limits),
    ("RT-BUNDLE-RLIMITS", check_process),
    ("RT-BUNDLE-DEVICES", check_devices),
    ("RT-BUNDLE-IDS", check_ids),
    ("RT-BUNDLE-PATH", check_path),
    ("RT-BUNDLE-FILESYSTEM", check_filesystem),
    ("RT-BUNDLE-MOUNT-FLAGS", check_flags),
    ("RT-BUNDLE-PLAN", check_plan),
)
