"""Checks of the container around: which it is, and what it hides of /proc and /sys."""

from __future__ import annotations

import os

from rootless_rt.host.doctor.model import Me, Trouble
from rootless_rt.host.doctor.probe import PROC
from rootless_rt.host.doctor.system import mounts, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootless_rt.host.doctor.model import Check
    from rootless_rt.host.doctor.probe import Probe
    from rootless_rt.host.doctor.system import Mount

_UNMASK = {
    "docker": "docker run --security-opt systempaths=unconfined",
    "podman": "podman run --security-opt unmask=ALL",
    "kubernetes": "in the pod: hostUsers: false, and securityContext.procMount: Unmasked",
    "github": "run the job without container:, or with options: --privileged",
    "gitlab": 'give the runner `privileged = true`, or security_opt = ["systempaths=unconfined"]',
}
_ELSE = "run the outer container with unmasked paths (Docker, Podman: --security-opt systempaths=unconfined)"
# In the order in which they are looked for: a job in a container is best mended in the job.
_WORDS = {
    "github": "GitHub Actions",
    "gitlab": "GitLab CI",
    "kubernetes": "Kubernetes",
    "podman": "Podman",
    "docker": "Docker",
}
# What a system mounts there itself; a directory that is always empty does not hide anything.
_PROC_OWN = ("/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd", "/proc/fs/nfs", "/proc/bus/usb", "/proc/xen")
_SYS_OWN = ("/sys/fs/", "/sys/kernel/", "/sys/firmware/efi/efivars")


class Surroundings:
    """platform: a key of _WORDS, "other" for another container, or "". hidden: mount points over parts of
    /proc. sys_hidden: the same of /sys. probe: of user namespaces."""

    __slots__ = ("hidden", "platform", "probe", "sys_hidden")

    def __init__(self, platform: str = "", probe: Probe | None = None) -> None:
        self.platform = platform
        self.probe = probe
        self.hidden: list[str] = []
        self.sys_hidden: list[str] = []


def gather(root: str, me: Me, probe: Probe | None) -> Surroundings:
    """Look around. The probe is that of `userns`."""
    found = Surroundings(_platform(root, me.environ), probe)
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


def _platform(root: str, environ: Mapping[str, str]) -> str:
    groups = read(root + "/proc/1/cgroup") or ""
    dockerenv, containerenv = (
        os.path.exists(root + "/.dockerenv"),
        os.path.exists(root + "/run/.containerenv"),
    )
    docker = dockerenv or "/docker" in groups
    inside = docker or containerenv or bool(environ.get("container"))
    if environ.get("GITHUB_ACTIONS") == "true" and inside:
        return "github"
    if environ.get("GITLAB_CI") == "true" and inside:
        return "gitlab"
    if environ.get("KUBERNETES_SERVICE_HOST") or "/kubepods" in groups:
        return "kubernetes"
    if containerenv or environ.get("container") == "podman":
        return "podman"
    if docker:
        return "docker"
    return "other" if environ.get("container") else ""


def check_nested(found: Surroundings, me: Me) -> str:
    """Where we are: no trouble by itself."""
    if not found.platform:
        return "none" if me.initial else "a user namespace"
    return _WORDS.get(found.platform, "a container")


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
    return Trouble(why, _UNMASK.get(found.platform, _ELSE), details=found.hidden[4:])


def check_sys(found: Surroundings, me: Me) -> Trouble | str | None:
    """The same for sysfs."""
    if not found.sys_hidden or me.privileged:
        return None
    return Trouble(
        f"parts of it are hidden or read-only: {', '.join(found.sys_hidden[:4])}",
        "have the config bind /sys, as rt spec --rootless does, or: " + _UNMASK.get(found.platform, _ELSE),
    )


CHECKS: tuple[Check, ...] = (
    ("RT-NESTED", check_nested),
    ("RT-PROC-MASKED", check_proc),
    ("RT-SYS-MASKED", check_sys),
)
