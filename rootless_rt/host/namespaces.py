"""In which order existing namespaces can be joined, and which ids a joined user namespace has.

Looks at namespace files, changes nothing. Entering a namespace takes CAP_SYS_ADMIN in the user namespace that
owns it (setns(2)). Once a user namespace has been joined, those that an ancestor of it owns are out of reach;
so the owners are looked up (ioctl_ns(2)) and entered from the outermost inwards.
"""

from __future__ import annotations

import fcntl
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    # (kind, "" for the file at the path or "owner" for the user namespace that owns that one, path)
    Step = tuple[str, str, str]
    _Key = tuple[int, int]

_NS_GET_USERNS, _NS_GET_PARENT = 0xB701, 0xB702
_FLAGS = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY
_MOST_LEVELS = 33  # user namespaces nest 32 deep (user_namespaces(7))


def join_order(paths: dict[str, str]) -> list[Step]:
    """The steps that join the namespaces `paths` (type -> file), the types otherwise in their given order.

    Without a user namespace among them, or where one of the files cannot be looked at, that order itself:
    then joining says what is wrong.
    """
    given = [(kind, "", path) for kind, path in paths.items()]
    if "user" not in paths or len(paths) == 1:
        return given
    try:
        levels = _ancestors(paths["user"])
        own = _key(posix.stat("/proc/self/ns/user"))
        level_of = {kind: _level(path, levels, own) for kind, path in paths.items() if kind != "user"}
    except OSError:
        return given
    steps: list[Step] = []
    for level in sorted({0, *level_of.values()}, reverse=True):
        kinds = [kind for kind in paths if level_of.get(kind) == level]
        if level == 0:
            steps.append(("user", "", paths["user"]))
        elif levels[level : level + 1] != [own] and level < len(levels):
            steps.append(("user", "owner", paths[kinds[0]]))
        steps += [(kind, "", paths[kind]) for kind in kinds]
    return steps


def open_owner(path: str) -> int:
    """A descriptor of the user namespace that owns the namespace at `path`. Raises OSError."""
    fd = posix.open(path, _FLAGS)
    try:
        return fcntl.ioctl(fd, _NS_GET_USERNS)
    finally:
        posix.close(fd)


def _key(status: posix.stat_result) -> _Key:
    return status.st_dev, status.st_ino


def _ancestors(path: str) -> list[_Key]:
    """The user namespace at `path`, its parent, and so on, up to our own at most."""
    fd = posix.open(path, _FLAGS)
    found = []
    try:
        for _ in range(_MOST_LEVELS):
            found.append(_key(posix.fstat(fd)))
            try:
                parent = fcntl.ioctl(fd, _NS_GET_PARENT)
            except PermissionError:
                break  # the parent is outside of our own
            posix.close(fd)
            fd = parent
    finally:
        posix.close(fd)
    return found


def _level(path: str, levels: list[_Key], own: _Key) -> int:
    """How many levels above the joined user namespace the owner of `path` is; 0 too for one beside it."""
    try:
        owner = open_owner(path)
    except PermissionError:
        return len(levels)  # above our own: only joining it tells whether that is allowed
    try:
        key = _key(posix.fstat(owner))
    finally:
        posix.close(owner)
    if key == own and key not in levels:
        return len(levels)
    return levels.index(key) if key in levels else 0
