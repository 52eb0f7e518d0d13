"""A seccomp filter around a command, as a surrounding container has one."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

from lab.runtime import Runtime
from lab.wrapped import Wrapped
from rootless_rt.host.seccomp import filter_for

# Loads the program in the file argv[1], and goes on with the rest. For root: no_new_privs stays as it is.
_LOADER = """
import ctypes, os, sys
program = open(sys.argv[1], "rb").read()
held = ctypes.create_string_buffer(program, len(program))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
made = Program(len(program) // 8, ctypes.addressof(held))
if ctypes.CDLL(None, use_errno=True).prctl(22, 2, ctypes.byref(made), 0, 0):
    sys.exit(f"cannot load the filter: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def denying(*calls: str, with_errno: int = errno.EPERM) -> dict[str, Any]:
    """A profile that answers these system calls with an errno, and lets all others pass."""
    rule = {"names": list(calls), "action": "SCMP_ACT_ERRNO", "errnoRet": with_errno}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}


def filtering(place: Path, profile: dict[str, Any]) -> list[str]:
    """The beginning of a command line that runs, as root, the rest of it under a profile."""
    file = place / f"filter{len(list(place.glob('filter*')))}"
    file.write_bytes(filter_for(profile, cache_dir=None).program)
    file.chmod(0o644)
    return [sys.executable, "-I", "-S", "-c", _LOADER, str(file)]


def behind_filter(rt: Runtime, place: Path, profile: dict[str, Any]) -> Wrapped:
    """`rt` as its user, each time under a profile."""
    return Wrapped(rt, *filtering(place, profile), as_root=True)
