"""Why no namespaces can be had here: evidence, and a pure diagnosis. Only loaded after a failure."""

from __future__ import annotations

import errno
import os

from rootless_rt.errors import RtError
from rootless_rt.host import outer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

CLONE_NEWUSER = 0x10000000
_MANY = "28633"  # what RHEL's documents set
# Flag of clone(2) -> the word in user.max_WORD_namespaces (namespaces(7)), in the order of trying.
KINDS = {
    CLONE_NEWUSER: "user",
    0x00020000: "mnt",
    0x20000000: "pid",
    0x40000000: "net",
    0x08000000: "ipc",
    0x04000000: "uts",
    0x02000000: "cgroup",
    0x00000080: "time",
}


class UsernsEvidence:
    """The gates of namespaces: file contents as found (None: no such file) and facts of this process.

    unprivileged_clone  kernel.unprivileged_userns_clone
    apparmor            kernel.apparmor_restrict_unprivileged_userns
    maximum             user.max_user_namespaces
    limits              user.max_*_namespaces, by the word for *
    supported           whether the kernel has user namespaces
    seccomp             the Seccomp mode of this process
    chrooted            whether its mounts show that it is in a chroot
    confined            whether AppArmor or SELinux confine it
    unmapped            which of its own ids its user namespace lacks: "uid 5", or ""
    short               the kind of namespace of which a child could get none (word of `limits`), or ""
    platform            who made the container around: see `outer`
    """

    __slots__ = (
        "apparmor", "chrooted", "confined", "limits", "maximum", "platform", "seccomp", "short", "supported",
        "unmapped", "unprivileged_clone",
    )  # fmt: skip

    def __init__(self, root: str = "/") -> None:
        base = root.rstrip("/")
        self.unprivileged_clone = _read(base + "/proc/sys/kernel/unprivileged_userns_clone")
        self.apparmor = _read(base + "/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
        self.limits = {
            kind: limit
            for kind in KINDS.values()
            if (limit := _read(f"{base}/proc/sys/user/max_{kind}_namespaces")) is not None
        }
        self.maximum = self.limits.get("user")
        self.supported = os.path.exists(base + "/proc/self/ns/user")
        status = _read(base + "/proc/self/status") or ""
        self.seccomp = next(
            (line.split()[1] for line in status.split("\n") if line.startswith("Seccomp:")), "0"
        )
        mounts = _read(base + "/proc/self/mountinfo") or ""
        points = [line.split(" ")[4] for line in mounts.split("\n") if line.count(" ") > 5]
        self.chrooted = bool(points) and "/" not in points
        label = (_read(base + "/proc/self/attr/apparmor/current") or "").rstrip("\0")
        enforcing = _read(base + "/sys/fs/selinux/enforce") == "1"
        domain = _read(base + "/proc/self/attr/current") or ""
        self.confined = label.endswith("(enforce)") or (enforcing and ":unconfined_" not in domain)
        self.unmapped = _unmapped(base)
        self.short = ""
        self.platform = outer.platform(base, os.environ)


def _unmapped(base: str) -> str:
    from idmap.extents import to_outside
    from idmap.userns import own_map

    try:
        for kind, number in (("uid", os.geteuid()), ("gid", os.getegid())):
            if to_outside(own_map(kind, base + "/proc/self"), number) is None:
                return f"{kind} {number}"
    except OSError:
        pass  # no /proc: said elsewhere
    return ""


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


class Cause:
    """Why, the fix or None, and the id of `rt explain` or ""."""

    __slots__ = ("fix", "id", "why")

    def __init__(self, why: str, fix: str | None = None, id: str = "") -> None:
        self.why = why
        self.fix = fix
        self.id = id


def diagnose(evidence: UsernsEvidence, number: int) -> Cause:
    """The cause of a refused user namespace, from evidence and the errno of clone3(2). Pure."""
    shortage = number in (errno.ENOSPC, errno.EUSERS)
    denied = number in (errno.EPERM, errno.EACCES)
    if not evidence.supported:
        why = "this kernel was built without user namespaces (CONFIG_USER_NS)"
        return Cause(why, "use another kernel: no setting helps", "RT-USERNS-KERNEL")
    if evidence.unprivileged_clone == "0":
        return Cause(
            "user namespaces are switched off for users (kernel.unprivileged_userns_clone is 0)",
            "ask an admin for: sudo sysctl kernel.unprivileged_userns_clone=1",
            "RT-USERNS-CLONE",
        )
    if shortage and evidence.maximum == "0":
        return Cause(
            "user namespaces are switched off (user.max_user_namespaces is 0)",
            f"ask an admin for: sudo sysctl user.max_user_namespaces={_MANY}",
            "RT-USERNS-MAX",
        )
    if shortage:
        return Cause(
            "too many namespaces exist, or they are nested too deep",
            "end some containers, or raise the limits in /proc/sys/user",
            "RT-USERNS-REFUSED",
        )
    if denied and evidence.unmapped:
        return Cause(
            f"{evidence.unmapped}, which this process has, does not exist in its user namespace",
            "map it in the surrounding container, or run as one of its users that is mapped",
            "RT-USERNS-UNMAPPED",
        )
    if denied and (fix := apparmor_fix(evidence)):
        why = "AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1)"
        return Cause(why, fix, "RT-USERNS-APPARMOR")
    only_chroot = evidence.seccomp != "2" and not evidence.confined
    if number == errno.EPERM and (evidence.chrooted or only_chroot):
        # A chroot onto a mount point shows in nothing but that it is refused.
        seen = "" if evidence.chrooted else ", as far as one can tell"
        return Cause(
            f"this process is in a chroot, where the kernel makes no user namespaces{seen}",
            "run rt outside of the chroot, or enter that system with pivot_root (systemd-nspawn, bwrap)",
            "RT-USERNS-CHROOT",
        )
    if evidence.seccomp == "2" and number in (errno.EPERM, errno.ENOSYS):
        return Cause(
            "a seccomp filter of the surrounding container forbids it",
            outer.fix("seccomp", evidence.platform),
            "RT-USERNS-SECCOMP",
        )
    why = os.strerror(number).lower()
    if denied:
        fix = "the kernel's log (dmesg, ausearch -m avc) may say who forbade it"
        return Cause(why, fix, "RT-USERNS-REFUSED")
    return Cause(why)


def apparmor_fix(evidence: UsernsEvidence) -> str | None:
    """What mends Ubuntu's restriction, where it is on: namespaces are made then, but without capabilities."""
    if evidence.apparmor != "1":
        return None
    return (
        "ask an admin for a profile that allows rt `userns,`, or for: "
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    )


def shortage(evidence: UsernsEvidence, kinds: Iterable[str]) -> tuple[str, Cause] | None:
    """Which of these kinds of namespace, but for "user", is used up or switched off, and why. Pure."""
    for kind in kinds:
        limit = evidence.limits.get(kind)
        if kind == "user" or not (limit == "0" or evidence.short == kind):
            continue
        name = f"user.max_{kind}_namespaces"
        fix = f"ask an admin for: sudo sysctl {name}={_MANY}"
        if limit == "0":
            return kind, Cause(f"they are switched off ({name} is 0)", fix, "RT-NAMESPACES-MAX")
        why = f"you have as many as are allowed ({name} is {limit} here)"
        return kind, Cause(why, f"end some containers, or {fix}", "RT-NAMESPACES-MAX")
    return None


def short_of(flags: int) -> str:
    """The kind (see KINDS) of namespace that the kernel does not have left (ENOSPC), or "".

    A child makes those of these flags one by one; nothing of that outlives it.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()
    if pid == 0:
        status = 0
        try:
            for index, flag in enumerate(KINDS):
                if flag & flags and libc.unshare(flag):
                    status = index + 1 if ctypes.get_errno() == errno.ENOSPC else 0
                    break
        finally:
            os._exit(status)
    found = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return list(KINDS.values())[found - 1] if found > 0 else ""


def clone_failure(number: int, flags: int, root: str = "/") -> RtError:
    """The error for a process that could not get into new namespaces of these CLONE_NEW* flags."""
    evidence = UsernsEvidence(root)
    if number == errno.ENOSPC and evidence.maximum != "0":
        evidence.short = short_of(flags) if root == "/" else ""
        kinds = [kind for flag, kind in KINDS.items() if flag & flags]
        if evidence.short != "user" and (found := shortage(evidence, kinds)):
            kind, cause = found
            return RtError(f"cannot make a {kind} namespace: {cause.why}", hint=cause.fix, id=cause.id)
    if not flags & CLONE_NEWUSER:
        fix = None
        if number == errno.EPERM and os.geteuid() == 0:
            fix = "rt lacks CAP_SYS_ADMIN here: give the config a user namespace (rt spec --rootless)"
        return RtError(f"cannot make the namespaces: {os.strerror(number).lower()}", hint=fix)
    cause = diagnose(evidence, number)
    return RtError(f"cannot make a user namespace: {cause.why}", hint=cause.fix, id=cause.id)
