"""Kernels with Landlock, and a command that meets one without."""

from __future__ import annotations

import ctypes
import sys

from lab.runtime import Runtime
from lab.wrapped import Wrapped

_CREATE_RULESET = 444  # on every architecture but alpha

# Has the kernel answer ENOSYS to landlock_create_ruleset(2), then goes on with the command: prctl(2), bpf.
_WITHOUT = f"""
import ctypes, os, struct, sys
code = [(0x20, 0, 0, 0), (0x15, 0, 1, {_CREATE_RULESET}), (6, 0, 0, 0x50000 | 38), (6, 0, 0, 0x7fff0000)]
program = b"".join(struct.pack("=HBBI", *line) for line in code)
held = ctypes.create_string_buffer(program)
filter = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(held)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, filter, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


def version() -> int:
    """The version of the kernel's Landlock, 0 without."""
    return max(0, int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)))


def without_landlock(rt: Runtime) -> Runtime:
    """The same command on a kernel that has none."""
    return Wrapped(rt, sys.executable, "-c", _WITHOUT)
