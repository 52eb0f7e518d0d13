"""Why no user namespace can be had here: evidence, and a pure diagnosis. Only loaded after a failure."""

from __future__ import annotations

import errno
import os

from rootless_rt.errors import RtError

CLONE_NEWUSER = 0x10000000


class UsernsEvidence:
    """The gates of user namespaces: file contents as found (None: no such file) and facts of this process.

    unprivileged_clone  kernel.unprivileged_userns_clone
    apparmor            kernel.apparmor_restrict_unprivileged_userns
    maximum             user.max_user_namespaces
    supported           whether the kernel has user namespaces
    seccomp             the Seccomp mode of this process
    chrooted            whether it seems to be in a chroot
    """

    __slots__ = ("apparmor", "chrooted", "maximum", "seccomp", "supported", "unprivileged_clone")

    def __init__(self, root: str = "/") -> None:
        base = root.rstrip("/")
        self.unprivileged_clone = _read(base + "/proc/sys/kernel/unprivileged_userns_clone")
        self.apparmor = _read(base + "/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
        self.maximum = _read(base + "/proc/sys/user/max_user_namespaces")
        self.supported = os.path.exists(base + "/proc/self/ns/user")
        status = _read(base + "/proc/self/status") or ""
        self.seccomp = next(
            (line.split()[1] for line in status.split("\n") if line.startswith("Seccomp:")), "0"
        )
        mounts = _read(base + "/proc/self/mountinfo") or ""
        points = [line.split(" ")[4] for line in mounts.split("\n") if line.count(" ") > 5]
        self.chrooted = bool(points) and "/" not in points


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def diagnose(evidence: UsernsEvidence, number: int) -> tuple[str, str | None]:
    """(cause, fix) of a refused user namespace, from evidence and the errno of clone3(2). Pure."""
    if not evidence.supported:
        return "this kernel was built without user namespaces (CONFIG_USER_NS)", None
    if evidence.unprivileged_clone == "0":
        return (
            "user namespaces are switched off for users (kernel.unprivileged_userns_clone is 0)",
            "ask an admin for: sudo sysctl kernel.unprivileged_userns_clone=1",
        )
    if number in (errno.ENOSPC, errno.EUSERS) and evidence.maximum == "0":
        return (
            "user namespaces are switched off (user.max_user_namespaces is 0)",
            "ask an admin for: sudo sysctl user.max_user_namespaces=28633",
        )
    if number in (errno.ENOSPC, errno.EUSERS):
        return (
            "too many namespaces exist, or they are nested too deep",
            "end some containers, or raise the limits in /proc/sys/user",
        )
    if number in (errno.EPERM, errno.EACCES) and (fix := apparmor_fix(evidence)):
        return "AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1)", fix
    if evidence.chrooted and number == errno.EPERM:
        return (
            "this process is in a chroot, where the kernel makes no user namespaces",
            "run rt outside of the chroot, or enter that system with pivot_root (systemd-nspawn, bwrap)",
        )
    if evidence.seccomp == "2" and number in (errno.EPERM, errno.ENOSYS):
        return (
            "a seccomp filter of the surrounding container forbids it",
            "run the outer container with a profile that allows it (--security-opt seccomp=unconfined)",
        )
    return os.strerror(number).lower(), None


def apparmor_fix(evidence: UsernsEvidence) -> str | None:
    """What mends Ubuntu's restriction, where it is on: namespaces are made then, but without capabilities."""
    if evidence.apparmor != "1":
        return None
    return (
        "ask an admin for a profile that allows rt `userns,`, or for: "
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    )


def clone_failure(number: int, flags: int, root: str = "/") -> RtError:
    """The error for a container's process that could not be made with these CLONE_NEW* flags."""
    if not flags & CLONE_NEWUSER and os.geteuid() != 0:
        return RtError(f"cannot make the namespaces: {os.strerror(number).lower()}")
    if not flags & CLONE_NEWUSER:
        cause, fix = os.strerror(number).lower(), None
        if number == errno.EPERM:
            fix = "rt lacks CAP_SYS_ADMIN here: give the config a user namespace (rt spec --rootless)"
        return RtError(f"cannot make the namespaces: {cause}", hint=fix)
    cause, fix = diagnose(UsernsEvidence(root), number)
    return RtError(f"cannot make a user namespace: {cause}", hint=fix)
