"""Who may pass through a directory or open a file: by owner, mode and access control list. `steps` reads, the
rest is pure.

For ids that are not this process's own, such as those of a container: access(2) cannot be asked for them.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_USER, _GROUP_OBJ, _GROUP, _MASK = 2, 4, 8, 16  # tags of linux/posix_acl.h


class Who:
    """uid and groups as the host knows them; `powerful` is the host's root, whom nothing stops."""

    __slots__ = ("gids", "powerful", "uid")

    def __init__(self, uid: int, gids: Sequence[int], *, powerful: bool = False) -> None:
        self.uid = uid
        self.gids = frozenset(gids)
        self.powerful = powerful


class Step:
    """A directory on a path, or the file at its end. `acl`: (tag, permissions, id), if it has a list."""

    __slots__ = ("acl", "gid", "mode", "path", "uid")

    def __init__(
        self, path: str, mode: int, uid: int = 0, gid: int = 0, acl: Sequence[tuple[int, int, int]] = ()
    ) -> None:
        self.path = path
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.acl = tuple(acl)

    def shown(self) -> str:
        """As in messages: /srv/data (0750 root:ops)."""
        owner, group = _name(self.uid, "uid"), _name(self.gid, "gid")
        return f"{self.path} ({self.mode & 0o7777:04o} {owner}:{group})"


def _name(number: int, kind: str) -> str:
    try:
        if kind == "uid":
            import pwd

            return pwd.getpwuid(number).pw_name
        import grp

        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def steps(path: str, root: str = "") -> list[Step]:
    """From / to the path, links followed; as far as can be seen. [] for a path that is not absolute."""
    if not path.startswith("/"):
        return []
    real = os.path.realpath(path) if not root else os.path.normpath(path)
    parts = [part for part in real.split("/") if part]
    found = []
    for count in range(len(parts) + 1):
        here = "/" + "/".join(parts[:count])
        try:
            status = os.stat(root + here)
        except OSError:
            break
        found.append(Step(here, status.st_mode, status.st_uid, status.st_gid, _acl(root + here)))
    return found


def _acl(path: str) -> list[tuple[int, int, int]]:
    try:
        return parse_acl(os.getxattr(path, "system.posix_acl_access"))
    except OSError:
        return []


def parse_acl(data: bytes) -> list[tuple[int, int, int]]:
    """The entries (tag, permissions, id) of the attribute system.posix_acl_access (linux/posix_acl_xattr.h).

    >>> parse_acl(bytes.fromhex("02000000" "02000100e8030000"))
    [(2, 1, 1000)]
    """
    if data[:4] != b"\x02\0\0\0":
        return []
    words = [int.from_bytes(data[at : at + 2], "little") for at in range(4, len(data) - 7, 2)]
    return [
        (words[at], words[at + 1], words[at + 2] | words[at + 3] << 16) for at in range(0, len(words) - 2, 4)
    ]


def allowed(step: Step, who: Who, wanted: int) -> bool:
    """Whether all of `wanted` (4 read, 2 write, 1 search) is given; acl(5), "Access check algorithm"."""
    if who.powerful:
        return True
    mode = step.mode
    if not step.acl:
        if who.uid == step.uid:
            given = mode >> 6
        elif step.gid in who.gids:
            given = mode >> 3
        else:
            given = mode
        return given & 7 & wanted == wanted
    if who.uid == step.uid:
        return mode >> 6 & 7 & wanted == wanted
    mask = next((perms for tag, perms, _ in step.acl if tag == _MASK), 7)
    for tag, perms, number in step.acl:
        if tag == _USER and number == who.uid:
            return perms & mask & wanted == wanted
    groups = [
        perms
        for tag, perms, number in step.acl
        if (tag == _GROUP_OBJ and step.gid in who.gids) or (tag == _GROUP and number in who.gids)
    ]
    if groups:
        return any(perms & mask & wanted == wanted for perms in groups)
    return mode & 7 & wanted == wanted


def denied(path: Sequence[Step], who: Who) -> Step | None:
    """The first directory of a path that `who` may not search, or None."""
    return next((step for step in path if stat.S_ISDIR(step.mode) and not allowed(step, who, 1)), None)
