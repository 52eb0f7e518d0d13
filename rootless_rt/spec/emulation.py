"""`--uid-emulation=noop`: with one id there is nobody to give a file to, and most programs can live so.

The kernel answers EINVAL to every id that is not mapped, and package managers and archivers stop there. A
filter answers instead that it has been done. Knows the system calls; where it is used, the plan decides.
"""

from __future__ import annotations

from rootless_rt.errors import SpecError
from rootless_rt.spec.jsonio import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UID_EMULATION = "org.rootless-rt.uid-emulation"

# All that give a file or the process another owner, the 16-bit and 32-bit variants of other machines too.
_CHANGES = (
    *("chown", "fchown", "lchown", "fchownat", "chown32", "fchown32", "lchown32"),
    *("setgroups", "setgroups32", "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid"),
    *("setuid32", "setgid32", "setreuid32", "setregid32", "setresuid32", "setresgid32"),
    *("setfsuid", "setfsgid", "setfsuid32", "setfsgid32"),
)
# Of a machine by its name in uname(2): what else its kernel may run. Calls of an architecture that a profile
# does not name would be killed.
_X86, _ARM = ("X86_64", "X86", "X32"), ("AARCH64", "ARM")
_ARCHITECTURES = {
    "x86_64": _X86,
    "i686": _X86,
    "aarch64": _ARM,
    "armv8l": _ARM,
    "s390x": ("S390X", "S390"),
    "ppc64": ("PPC64", "PPC"),
}


def noop_profile(asked: str, machine: str) -> dict[str, Any]:
    """The seccomp profile for a value of the annotation that is not "off"; `machine` is uname(2)'s.

    Raises SpecError for values other than "noop".
    """
    if asked != "noop":
        raise SpecError(f"annotations[{quote(UID_EMULATION)}]", f"expected off or noop, got {quote(asked)}")
    done = {"names": list(_CHANGES), "action": "SCMP_ACT_ERRNO", "errnoRet": 0}
    archs = [f"SCMP_ARCH_{name}" for name in _ARCHITECTURES.get(machine, ())]
    return {"defaultAction": "SCMP_ACT_ALLOW", "architectures": archs, "syscalls": [done]}
