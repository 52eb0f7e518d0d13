"""The user namespace that this process lives in, as /proc/self shows it. Changes nothing."""

from __future__ import annotations

import posix

from idmap.extents import IDENTITY, parse_map

_OVERFLOW = 65534  # the default of /proc/sys/kernel/overflowuid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idmap.extents import Extent


def own_map(kind: str, proc: str = "/proc/self") -> list[Extent]:
    """The lines of the own `kind` ("uid" or "gid") map; the inside ids are those that exist here.

    The initial namespace has the one line (0, 0, 4294967295). Raises OSError when the file cannot be read.
    """
    fd = posix.open(f"{proc}/{kind}_map", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        text = b""
        while chunk := posix.read(fd, 65536):
            text += chunk
    finally:
        posix.close(fd)
    return parse_map(text)


def is_foreign(uid: int, proc: str = "/proc/self") -> bool:
    """Whether an owner that stat(2) shows is none of this user namespace's: whose the file is cannot be told
    (user_namespaces(7), "Unmapped user and group IDs")."""
    if uid != _OVERFLOW:
        return False
    try:
        lines = own_map("uid", proc)
    except OSError:
        return False
    return not any(inside <= uid < inside + count for inside, _, count in lines)


def in_user_namespace(proc: str = "/proc/self") -> bool:
    """Whether the own uid map is other than the initial namespace's. A child namespace that maps every id to
    itself looks like the initial one; for mapping ids it is the same."""
    return own_map("uid", proc) != [IDENTITY]
