"""Whether a seccomp filter around this process forbids a system call. Only loaded after a refusal.

EPERM has many causes. In a user namespace of its own a child has the rights that these calls ask for, and
with arguments that no kernel accepts they do nothing: then EPERM and ENOSYS are a filter's words.
"""

from __future__ import annotations

import ctypes
import errno
import os

from rootless_rt.host.doctor.kernel import CALLS

_ALL = 0xFFFFFFFF
_NUMBERS = {
    **{name: (number, arguments) for name, (number, arguments, _) in CALLS.items()},
    "fsconfig": (431, (-1, _ALL, 0, 0, 0)),
    "fsmount": (432, (-1, _ALL, 0)),
}
_NEWUSER, _NEWNS = 0x10000000, 0x00020000
# Numbers of the older calls differ by machine: these go by their C functions, with arguments as senseless.
_FUNCTIONS: dict[str, tuple[object, ...]] = {
    "unshare": (ctypes.c_int(-1),),
    "setns": (ctypes.c_int(-1), ctypes.c_int(0)),
    "umount2": (b"", ctypes.c_int(-1)),
    "pivot_root": (b"", b""),
}


def filtered(call: str) -> bool:
    """Whether a filter is there, and it is what forbids this call (a name of rt-init's reports)."""
    name = call.split("-")[0]  # fsconfig-create
    if (name not in _NUMBERS and name not in _FUNCTIONS) or not is_filtered():
        return False
    try:
        pid = os.fork()
    except OSError:
        return False
    if pid == 0:
        status = 0
        try:
            status = int(_refused(name))
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0


def is_filtered() -> bool:
    """Whether there is a filter around this process (Seccomp in proc_pid_status(5))."""
    try:
        with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
            return any(line.split() == ["Seccomp:", "2"] for line in file)
    except OSError:
        return False


def _refused(name: str) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if name != "unshare" and libc.unshare(_NEWUSER | _NEWNS):
        return False  # another gate is closed
    ctypes.set_errno(0)
    if name in _NUMBERS:
        number, arguments = _NUMBERS[name]
        libc.syscall(ctypes.c_long(number), *[ctypes.c_long(value) for value in arguments])
    else:
        getattr(libc, name)(*_FUNCTIONS[name])
    return ctypes.get_errno() in (errno.EPERM, errno.ENOSYS)
