"""Checks of cgroups, for `rt doctor`: which there are, where containers would go, and with which controllers.

Evidence is read below an injectable root, and the place is the one that `choice` would take; nothing is made.
The checks themselves are pure. Their texts stand in `host.doctor.reasons`.
"""

from __future__ import annotations

import posix
import sys

from rootless_rt import paths
from rootless_rt.cgroups.choice import choose
from rootless_rt.cgroups.fs import read_bytes
from rootless_rt.cgroups.host import view
from rootless_rt.host.doctor.model import Me, Trouble
from rootless_rt.spec.names import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.cgroups.host import CgroupView
    from rootless_rt.host.doctor.model import Check

WANTED = ("cpu", "memory", "pids")
_MORE = ("cpuset", "io")
_CONF = "/etc/systemd/system/user@.service.d/delegate.conf"
_DELEGATE = "Delegate=cpu cpuset io memory pids"
DELEGATE = (
    "mkdir -p /etc/systemd/system/user@.service.d",
    f"printf '[Service]\\n{_DELEGATE}\\n' > {_CONF}",
    "systemctl daemon-reload",
)
_TIGHT_MEMORY, _TIGHT_PIDS = 256 << 20, 256


class CgroupEvidence:
    """mode: of CgroupView. own: path of the own v2 cgroup. refused: why `choice` finds no place without
    systemd, or "". levels: (path, its controllers) from the top to where containers go. limits: (path, file,
    value) of memory.max and pids.max that are set. bus: the user bus, or None. client: whether jeepney is
    there to speak to it. systemd: its version, or 0."""

    __slots__ = ("bus", "client", "levels", "limits", "mode", "own", "refused", "systemd")

    def __init__(self, mode: str = "v2", bus: str | None = "/run/user/1000/bus") -> None:
        self.mode = mode
        self.own = "/"
        self.refused = ""
        self.levels: list[tuple[str, frozenset[str]]] = [("/", frozenset((*WANTED, *_MORE)))]
        self.limits: list[tuple[str, str, int]] = []
        self.bus = bus
        self.client = True
        self.systemd = 0


def gather(root: str, me: Me, bus: str | None, client: bool) -> CgroupEvidence:
    """Look at the cgroups of the system below `root`."""
    seen = view(root or "/")
    found = CgroupEvidence(seen.mode, bus)
    found.client = client
    found.own = seen.own.get("", "/")
    manager = choose(
        seen,
        manager="cgroupfs",
        cgroups_path=None,
        container_id="rt-doctor",
        euid=me.euid,
        strict=False,
        rootless=not me.privileged,
    )
    found.refused = (manager.reason or "no place") if manager.kind == "none" else ""
    found.levels = []
    found.systemd = _systemd(root)
    own = seen.own_dir()
    if seen.mode == "v2" and own is not None and seen.unified is not None:
        managed = f"{seen.unified}/user.slice/user-{me.uid}.slice/user@{me.uid}.service"
        last = managed if bus and paths.exists(managed) else own
        for path in _down(seen.unified, last):
            text = paths.fsdecode(read_bytes(path + "/cgroup.controllers") or b"")
            found.levels.append((path[len(seen.unified) :] or "/", frozenset(text.split())))
        found.limits = _limits(seen.unified, own)
    elif seen.mode != "none":
        for controller, file in (("memory", "memory.limit_in_bytes"), ("pids", "pids.max")):
            found.limits += _limit_v1(seen, controller, file)
    return found


def _systemd(root: str) -> int:
    """The version of systemd by the name of its library: asking it would take a connection. 0 without one."""
    triplet = getattr(sys.implementation, "_multiarch", "")
    for place in (f"/usr/lib/{triplet}/systemd", "/usr/lib/systemd", "/usr/lib64/systemd", "/lib/systemd"):
        try:
            names = posix.listdir(root + place)
        except OSError:
            continue
        for name in names:
            if name.startswith("libsystemd-shared-"):
                version = name[len("libsystemd-shared-") :]
                digits = next((at for at, char in enumerate(version) if not char.isdigit()), len(version))
                return decimal(version[:digits]) or 0
    return 0


def _down(top: str, last: str) -> list[str]:
    found = [last]
    while last != top and last.startswith(top + "/"):
        last = paths.dirname(last)
        found.append(last)
    return found[::-1]


def _limits(top: str, own: str) -> list[tuple[str, str, int]]:
    found = []
    for path in _down(top, own):
        for file in ("memory.max", "pids.max"):
            value = decimal(paths.fsdecode((read_bytes(f"{path}/{file}") or b"").strip()))
            if value is not None:
                found.append((path[len(top) :] or "/", file, value))
    return found


def _limit_v1(seen: CgroupView, controller: str, file: str) -> list[tuple[str, str, int]]:
    own = seen.own_dir(controller)
    value = decimal(paths.fsdecode((read_bytes(f"{own}/{file}") or b"").strip())) if own else None
    # Without a limit memory says the largest number of pages.
    return [(seen.own[controller], file, value)] if value is not None and value < 1 << 60 else []


def check_mount(found: CgroupEvidence, me: Me) -> Trouble | None:
    """Are there any?"""
    if found.mode != "none":
        return None
    return Trouble(
        "no cgroup file system is mounted: no limits, no pause",
        "sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup; in a container: have its engine mount it",
        ("mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup",),
    )


def check_version(found: CgroupEvidence, me: Me) -> Trouble | str | None:
    """v2 alone can be left to users."""
    if found.mode in ("v2", "none"):
        return "v2" if found.mode == "v2" else "none"
    shown = "v1" if found.mode == "v1" else "v1 with a v2 tree beside it (hybrid)"
    if me.privileged:
        return shown
    return Trouble(
        f"{shown}: no controllers for users, so that limits are not set",
        "boot with the kernel parameter systemd.unified_cgroup_hierarchy=1",
    )


def _by_systemd(found: CgroupEvidence, me: Me) -> bool:
    return found.mode == "v2" and found.bus is not None and found.client and not me.privileged


def check_delegated(found: CgroupEvidence, me: Me) -> Trouble | str | None:
    """Is there a place for a container?"""
    if found.mode == "none":
        return "no cgroups"
    if _by_systemd(found, me):
        return "a scope of the systemd user manager"
    if not found.refused:
        return f"below {found.own}"
    if found.mode != "v2" and not me.privileged:
        return "not for users, see RT-CGROUP-VERSION"
    if me.privileged:
        return Trouble(found.refused, "mount the cgroup file system writable in the container around")
    if found.bus is not None:
        return Trouble("systemd would make one, but Python's jeepney is missing", "see RT-SYSTEMD-CLIENT")
    return Trouble(
        f"{found.refused}: containers stay in the cgroup of their caller, without limits",
        "start rt where systemd delegates a cgroup: systemd-run --user --scope -p Delegate=yes COMMAND",
    )


def check_controllers(found: CgroupEvidence, me: Me) -> Trouble | str | None:
    """Do the controllers reach it?"""
    if found.mode != "v2" or not found.levels:
        return "not of cgroup v2" if found.mode != "none" else "no cgroups"
    path, last = found.levels[-1]
    missing = [name for name in WANTED if name not in last]
    more = [name for name in _MORE if name not in last]
    details = [f"{level}: {' '.join(sorted(there)) or 'none'}" for level, there in found.levels]
    if not missing:
        rest = (
            f"; not {', '.join(more)}: sudo systemctl edit user@.service, with [Service] {_DELEGATE}"
            if more
            else ""
        )
        return " ".join(sorted(last)) + rest
    lost = next((level for level, there in found.levels if missing[0] not in there), path)
    if lost == found.levels[0][0]:
        return Trouble(
            f"{', '.join(missing)} not in the whole tree: the kernel has them switched off, or on cgroup v1",
            "boot without cgroup_disable=, with cgroup_enable=memory where memory is missing (Raspberry Pi),"
            " and with systemd.unified_cgroup_hierarchy=1",
            details=details,
        )
    commands = DELEGATE if "/user@" in path or _by_systemd(found, me) else ()
    fix = f"sudo systemctl edit user@.service, with [Service] {_DELEGATE}; then log in anew"
    return Trouble(
        f"{', '.join(missing)} not delegated to {path}"
        + (f" (lost at {lost})" if lost != path else "")
        + (f": systemd {found.systemd} does not by default" if commands and found.systemd else ""),
        fix if commands else f"have who made {path} enable them in the cgroup.subtree_control above it",
        commands,
        details=details,
    )


def check_limits(found: CgroupEvidence, me: Me) -> Trouble | str:
    """Is there room in the own cgroup?"""
    tight = [
        (path, file, value)
        for path, file, value in found.limits
        if value < (_TIGHT_PIDS if file == "pids.max" else _TIGHT_MEMORY)
    ]
    if tight:
        path, file, value = tight[0]
        return Trouble(
            f"{file} of {path} is {value}, for all of your containers together",
            f"sudo systemctl set-property user-{me.uid}.slice TasksMax=infinity MemoryMax=infinity;"
            " in a container: raise its limits",
        )
    return ", ".join(f"{file} {value} of {path}" for path, file, value in found.limits[:3]) or "none"


CHECKS: tuple[Check, ...] = (
    ("RT-CGROUP-MOUNT", check_mount),
    ("RT-CGROUP-VERSION", check_version),
    ("RT-CGROUP-DELEGATED", check_delegated),
    ("RT-CGROUP-CONTROLLERS", check_controllers),
    ("RT-CGROUP-LIMITS", check_limits),
)
