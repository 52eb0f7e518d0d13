"""Checks of the kernel: its version, its system calls, its features.

The calls are made with arguments that no kernel accepts, so that nothing happens; only on the real system.
"""

from __future__ import annotations

import errno
import os

from rootless_rt.host.doctor.fixes import install
from rootless_rt.host.doctor.model import Me, Trouble
from rootless_rt.host.doctor.system import read
from rootless_rt.spec.names import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.host.doctor.model import Check
    from rootless_rt.host.doctor.system import FindProgram

OLDEST = (5, 12)
_ALL = 0xFFFFFFFF
# Number (one for all machines since 5.1), arguments, and whether EPERM is the answer of a good kernel too:
# some calls look at the caller's rights first.
CALLS: dict[str, tuple[int, tuple[int, ...], bool]] = {
    "open_tree": (428, (-1, 0, _ALL), False),
    "move_mount": (429, (-1, 0, -1, 0, _ALL), True),
    "fsopen": (430, (0, _ALL), True),
    "pidfd_open": (434, (-1, 0), False),
    "clone3": (435, (0, 0), False),
    "close_range": (436, (1, 0, 0), False),
    "openat2": (437, (-1, 0, 0, 0), False),
    "mount_setattr": (442, (-1, 0, _ALL, 0, 0), False),
}


class KernelEvidence:
    """release: of uname(2). answers: system call -> errno. namespaces: files of /proc/self/ns. overlay:
    whether the kernel has overlay, or may load it. seccomp: the mode of this process. proc: whether
    /proc/self/status can be read. helper: where fuse-overlayfs is."""

    __slots__ = ("answers", "helper", "namespaces", "overlay", "proc", "release", "seccomp")

    def __init__(self, release: str = "6.1.0") -> None:
        self.release = release
        self.answers: dict[str, int] = dict.fromkeys(CALLS, errno.EINVAL)
        self.namespaces = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"}
        self.overlay = True
        self.seccomp = "0"
        self.proc = True
        self.helper: str | None = None

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor number; (0, 0) when the release has no such form."""
        major, _, rest = self.release.partition(".")
        minor = rest[: next((at for at, char in enumerate(rest) if not char.isdigit()), len(rest))]
        return decimal(major) or 0, decimal(minor) or 0


def gather(root: str, me: Me, find: FindProgram) -> KernelEvidence:
    """Read what the kernel says of itself; below "" also ask it."""
    evidence = KernelEvidence(read(root + "/proc/sys/kernel/osrelease") or "")
    if not root and not evidence.release:
        evidence.release = os.uname().release
    status = read(root + "/proc/self/status")
    evidence.proc = bool(status)
    evidence.seccomp = next(
        (line.split()[1] for line in (status or "").split("\n") if line.startswith("Seccomp:\t")), "0"
    )
    try:
        evidence.namespaces = set(os.listdir(root + "/proc/self/ns"))
    except OSError:
        evidence.namespaces = set()
    known = "\toverlay" in (read(root + "/proc/filesystems") or "")
    module = f"{root}/lib/modules/{evidence.release}/modules.dep"
    evidence.overlay = known or "/overlay.ko" in (read(module) or "")
    evidence.helper = find("fuse-overlayfs")
    if not root:
        evidence.answers = _ask()
    return evidence


def _ask() -> dict[str, int]:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    answers = {}
    for name, (number, arguments, _) in CALLS.items():
        done = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(value) for value in arguments])
        answers[name] = ctypes.get_errno() if done < 0 else 0
    return answers


def check_version(evidence: KernelEvidence, me: Me) -> Trouble | str:
    """Old kernels lack what rt is made of."""
    shown = f"Linux {evidence.release}"
    if evidence.version < OLDEST:
        return Trouble(f"{shown} is older than 5.12", "update the kernel, and reboot")
    return shown


def check_proc(evidence: KernelEvidence, me: Me) -> Trouble | None:
    """Without /proc nothing else can be told."""
    if evidence.proc:
        return None
    fix = "sudo mount -t proc proc /proc"
    return Trouble(
        "/proc/self/status cannot be read", fix, ("mountpoint -q /proc || mount -t proc proc /proc",)
    )


def check_calls(evidence: KernelEvidence, me: Me) -> Trouble | str:
    """The system calls without which nothing works."""
    missing = []
    for name, (_, _, rights) in CALLS.items():
        answer = evidence.answers.get(name, 0)
        if answer == errno.ENOSYS or (answer == errno.EPERM and not rights):
            missing.append(name)
    if not missing:
        return ", ".join(CALLS)
    if evidence.seccomp == "2":
        return Trouble(
            f"a seccomp filter of the surrounding container hides {', '.join(missing)}",
            "run the outer container with --security-opt seccomp=unconfined, or update its engine",
        )
    return Trouble(f"this kernel lacks {', '.join(missing)}", "update the kernel, and reboot")


def check_features(evidence: KernelEvidence, me: Me) -> Trouble | str:
    """What can be done without."""
    lacking = []
    for kind, name in (("cgroup", "cgroup"), ("time", "time"), ("ipc", "ipc"), ("uts", "uts")):
        if kind not in evidence.namespaces:
            lacking.append(f"{name} namespaces")
    if evidence.version < (5, 14):
        lacking.append("cgroup.kill (5.14)")
    if lacking:
        return Trouble(f"without {', '.join(lacking)}", "update the kernel, and reboot")
    return "all namespaces, cgroup.kill"


def check_overlay(evidence: KernelEvidence, me: Me) -> Trouble | str:
    """Overlay in a user namespace, or its substitute."""
    if evidence.overlay and (evidence.version >= (5, 11) or me.privileged):
        return "the kernel's"
    if evidence.helper:
        return f"by {evidence.helper}"
    fix, commands = install("fuse-overlayfs", me.manager)
    return Trouble("the kernel has no overlay for users, and fuse-overlayfs is not installed", fix, commands)


CHECKS: tuple[Check, ...] = (
    ("RT-KERNEL-VERSION", check_version),
    ("RT-PROC-MISSING", check_proc),
    ("RT-KERNEL-CALLS", check_calls),
    ("RT-KERNEL-FEATURES", check_features),
    ("RT-KERNEL-OVERLAY", check_overlay),
)
