"""What the kernel says of a process's scheduling and I/O priority, asked from outside."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

import pytest

# sched_getattr and ioprio_get
_NUMBERS = {"x86_64": (315, 252), "aarch64": (275, 31)}


def _call(which: int, *args: object) -> int:
    numbers = _NUMBERS.get(platform.machine())
    if numbers is None:
        pytest.skip(f"does not know the numbers of system calls on {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    value = libc.syscall(numbers[which], *args)
    assert value >= 0, os.strerror(ctypes.get_errno())
    return int(value)


def scheduling(pid: int) -> dict[str, int]:
    """The fields of sched_getattr(2)."""
    buffer = ctypes.create_string_buffer(56)
    _call(0, pid, buffer, 56, 0)
    names = ("size", "policy", "flags", "nice", "priority", "runtime", "deadline", "period", "min", "max")
    return dict(zip(names, struct.unpack("=IIQiIQQQII", buffer.raw), strict=True))


def io_priority(pid: int) -> tuple[int, int]:
    """(class, level) of ioprio_get(2)."""
    value = _call(1, 1, pid)
    return value >> 13, value & 7
