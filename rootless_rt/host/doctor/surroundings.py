"""Checks of the container around: which it is, and what it hides of /proc and /sys."""

from __future__ import annotations

from rootless_rt.host import outer
from rootless_rt.host.doctor.model import Me, Trouble
from rootless_rt.host.doctor.probe import PROC
from rootless_rt.host.doctor.system import mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.host.doctor.model import Check
    from rootless_rt.host.doctor.probe import Probe
    from rootless_rt.host.doctor.system import Mount

# What a system mounts there itself; a directory that is always empty does not hide anything.
_PROC_OWN = ("/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd", "/proc/fs/nfs", "/proc/bus/usb", "/proc/xen")
_SYS_OWN = ("/sys/fs/", "/sys/kernel/", "/sys/firmware/efi/efivars")


class Surroundings:
    """platform: see `host.outer`. hidden: mount points over parts of
    /proc. sys_hidden: the same of /sys. probe: of user namespaces."""

    __slots__ = ("hidden", "platform", "probe", "sys_hidden")

    def __init__(self, platform: str = "", probe: Probe | None = None) -> None:
        self.platform = platform
        self.probe = probe
        self.hidden: list[str] = []
        self.sys_hidden: list[str] = []


def gather(root: str, me: Me, probe: Probe | None) -> Surroundings:
    """Look around. The probe is that of `userns`."""
    found = Surroundings(outer.platform(root, me.environ), probe)
    listed = mounts(root)
    found.hidden = _over(listed, "/proc", _PROC_OWN)
    found.sys_hidden = _over(listed, "/sys", _SYS_OWN)
    return found


def _over(mounts: list[Mount], where: str, own: tuple[str, ...]) -> list[str]:
    found = []
    for mount in mounts:
        if mount.point.startswith(where + "/") and not mount.point.startswith(own):
            found.append(mount.point)
        elif mount.point == where and "ro" in mount.flags:
            found.append(f"{where} (read-only)")
    return found


def check_nested(found: Surroundings, me: Me) -> str:
    """Where we are: no trouble by itself."""
    if not found.platform:
        return "none" if me.initial else "a user namespace"
    return outer.NAMES.get(found.platform, "a container")


def check_proc(found: Surroundings, me: Me) -> Trouble | str | None:
    """Whether the kernel gives a user namespace a new proc."""
    if me.privileged:
        return "not needed by root" if found.hidden else None
    refused = found.probe is not None and found.probe.refused == PROC
    if found.probe is not None and found.probe.refused == "":
        return "tried, and a new one can be mounted"
    if not found.hidden and not refused:
        return None
    shown = ", ".join(found.hidden[:4]) + (f" and {len(found.hidden) - 4} more" if found.hidden[4:] else "")
    why = f"parts of it are hidden or read-only: {shown}" if shown else "the kernel refuses a new one"
    return Trouble(why, outer.fix("proc", found.platform), details=found.hidden[4:])


def check_sys(found: Surroundings, me: Me) -> Trouble | str | None:
    """The same for sysfs."""
    if not found.sys_hidden or me.privileged:
        return None
    return Trouble(
        f"parts of it are hidden or read-only: {', '.join(found.sys_hidden[:4])}",
        "have the config bind /sys, as rt spec --rootless does, or: " + outer.fix("proc", found.platform),
    )


CHECKS: tuple[Check, ...] = (
    ("RT-NESTED", check_nested),
    ("RT-PROC-MASKED", check_proc),
    ("RT-SYS-MASKED", check_sys),
)
