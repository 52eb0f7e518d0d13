"""What the kernel keeps with a pidfd about a process that has ended, whoever has waited for it."""

from __future__ import annotations

import fcntl
import sys

_INFO_SIZE, _STATUS_AT = 64, 60  # struct pidfd_info
_INFO_EXIT = 1 << 3
_GET_INFO = 0xC000FF0B | _INFO_SIZE << 16  # _IOWR(0xFF, 11, struct pidfd_info)


def exit_status(pidfd: int) -> int | None:
    """The wait status (PIDFD_INFO_EXIT); None before Linux 6.15, or while nobody has waited for it."""
    info = bytearray(_INFO_EXIT.to_bytes(8, sys.byteorder) + bytes(_INFO_SIZE - 8))
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info)
    except OSError:
        return None
    if not int.from_bytes(info[:8], sys.byteorder) & _INFO_EXIT:
        return None
    return int.from_bytes(info[_STATUS_AT : _STATUS_AT + 4], sys.byteorder, signed=True)
