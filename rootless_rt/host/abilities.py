"""What this kernel can do that a features document tells: asked of it, never guessed from its version.

Reads /proc and /sys, and asks seccomp(2); changes nothing. Must not know what rt makes of the answers.
"""

from __future__ import annotations

import ctypes
import errno
import os

from rootless_rt.host.seccomp import NEW_LISTENER
from rootless_rt.spec import names

# seccomp(2): operations and numbers of linux/seccomp.h.
_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2
SECCOMP_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1 << 0,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 1 << 5,
}
_ACTIONS = {
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
# __NR_seccomp, per machine of uname(2); those with the generic table of system calls share one.
_NUMBERS = {"x86_64": 317, "i686": 354, "armv7l": 383, "ppc64le": 358, "ppc64": 358, "s390x": 348}
_GENERIC = 277
_LANDLOCK_CREATE_RULESET = 444  # newer than all tables but alpha's


def namespaces() -> tuple[str, ...]:
    """The kinds of namespace, by their names in config.json, that the kernel has."""
    return tuple(
        kind for kind, (_, file) in names.NAMESPACES.items() if os.path.exists(f"/proc/self/ns/{file}")
    )


def seccomp_flags() -> tuple[str, ...]:
    """The SECCOMP_FILTER_FLAG_* that the kernel knows.

    With a known flag and no filter the kernel reads from address 0 (EFAULT); an unknown one is EINVAL before.
    """
    known = []
    for name, bit in SECCOMP_FLAGS.items():
        # The kernel takes it together with a listener only.
        extra = NEW_LISTENER if name == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" else 0
        if _seccomp(_SET_MODE_FILTER, bit | extra, None) == errno.EFAULT:
            known.append(name)
    return tuple(known)


def seccomp_actions() -> tuple[str, ...]:
    """The SCMP_ACT_* that the kernel can take (SECCOMP_GET_ACTION_AVAIL, Linux 4.14)."""
    return tuple(
        name
        for name in names.SECCOMP_ACTIONS
        if _seccomp(_GET_ACTION_AVAIL, 0, ctypes.byref(ctypes.c_uint32(_ACTIONS[name]))) == 0
    )


def _seccomp(operation: int, flags: int, argument: object) -> int:
    """The errno that seccomp(2) answers with, 0 when it succeeds."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = _NUMBERS.get(os.uname().machine, _GENERIC)
    done = libc.syscall(ctypes.c_long(number), ctypes.c_uint(operation), ctypes.c_uint(flags), argument)
    return 0 if done == 0 else ctypes.get_errno()


def security_modules() -> tuple[str, ...]:
    """The security modules that are active; from the directories of AppArmor and SELinux where the list of
    /sys/kernel/security is not mounted."""
    try:
        with open("/sys/kernel/security/lsm", encoding="ascii", errors="replace") as file:
            return tuple(word for word in file.read().strip().split(",") if word)
    except OSError:
        places = {"apparmor": "/sys/module/apparmor/parameters/enabled", "selinux": "/sys/fs/selinux/enforce"}
        return tuple(name for name, place in places.items() if os.path.exists(place))


def landlock_version() -> int:
    """The version of the kernel's Landlock (landlock_create_ruleset(2)), 0 without."""
    libc = ctypes.CDLL(None, use_errno=True)
    version: int = libc.syscall(ctypes.c_long(_LANDLOCK_CREATE_RULESET), None, ctypes.c_size_t(0), 1)
    return max(version, 0)


def resource_control() -> bool:
    """Whether the kernel has the file system of Intel RDT and its kin (resctrl)."""
    try:
        with open("/proc/filesystems", encoding="ascii", errors="replace") as file:
            return "nodev\tresctrl\n" in file.readlines()
    except OSError:
        return False
