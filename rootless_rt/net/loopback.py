"""The loopback device of a network namespace that another process is in."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from socket import AF_INET, SOCK_CLOEXEC, SOCK_DGRAM, socket

from rootless_rt.errors import RtError

_NEWNET = 0x40000000  # linux/sched.h
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1  # netdevice(7): SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
_REQUEST = "16sh22x"  # struct ifreq


def bring_up(pid: int) -> None:
    """Bring `lo` up in the network namespace of a process. Raises RtError."""
    errors: list[str] = []

    def work() -> None:
        import ctypes

        try:
            fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                # This thread's alone, which ends with it.
                if ctypes.CDLL(None, use_errno=True).setns(fd, _NEWNET):
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            finally:
                os.close(fd)
            with socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC) as any_socket:
                found = fcntl.ioctl(any_socket, _GET_FLAGS, struct.pack(_REQUEST, b"lo", 0))
                flags = struct.unpack(_REQUEST, found)[1] | _UP
                fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack(_REQUEST, b"lo", flags))
        except OSError as error:
            errors.append((error.strerror or "").lower())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise RtError(f"cannot bring up the loopback device of the container: {errors[0]}")
