"""The few file operations that every driver needs: read, write, make directories, remove them.

Knows file descriptors and errno; must not know which cgroup version it works on.
"""

from __future__ import annotations

import errno
import posix
import time

from rootless_rt import paths
from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def read_bytes(path: str) -> bytes | None:
    """All of a small kernel file; None when it is missing or closed to us."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = b""
        while chunk := posix.read(fd, 65536):
            data += chunk
        return data
    except OSError:
        return None
    finally:
        posix.close(fd)


def says_one(path: str) -> bool:
    """Whether a control file holds the number 1; False when it is missing or closed to us."""
    return (read_bytes(path) or b"").strip() == b"1"


def put(path: str, text: str) -> None:
    """Write `text` to an existing control file in one write(2). Raises OSError."""
    fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(fd, text.encode())
    finally:
        posix.close(fd)


def make(path: str, made: list[str]) -> None:
    """Make the cgroup `path` and its missing parents; what was made is appended to `made`, parents first.

    Raises RtError; `made` then holds what `undo` has to take back.
    """
    missing = [path]
    try:
        while missing:
            try:
                posix.mkdir(missing[-1], 0o755)
            except FileNotFoundError:
                parent = paths.dirname(missing[-1])
                if parent == missing[-1] or len(missing) > 4096:
                    raise
                missing.append(parent)
                continue
            except FileExistsError:
                # The name of a control file is taken too: the kernel answers EEXIST there as well.
                if not paths.is_directory(missing[-1]):
                    raise
            else:
                made.append(missing[-1])
            missing.pop()
    except OSError as error:
        raise failure("cannot make the cgroup", missing[-1], error) from error


def undo(made: list[str], leaves: list[str]) -> None:
    """Remove what `make` made, last first; empties the list.

    One of `leaves` goes with all below it, after up to 2 seconds for dying processes. A parent goes only if
    it is empty: another container may live in it by now. Never raises.
    """
    while made:
        path = made.pop()
        try:
            if path in leaves:
                remove(path, 2.0, time.sleep)
            else:
                posix.rmdir(path)
        except (RtError, OSError):
            pass


def parents(made: list[str], leaves: list[str]) -> list[str]:
    """What `make` had to make above the cgroups themselves, for the record: to be removed with them."""
    return [path for path in made if path not in leaves]


def recorded_parents(state: dict[str, Any], leaves: list[str]) -> list[str]:
    """The parents that a state records: only what can be one, of these cgroups. Raises RtError."""
    found = state.get("parents", [])
    if not isinstance(found, list) or not all(isinstance(path, str) for path in found):
        raise RtError("state: cgroup: parents are no list of paths")
    return [path for path in found if path[:1] == "/" and any(leaf.startswith(path + "/") for leaf in leaves)]


def remove_parents(recorded: list[str]) -> None:
    """Remove the parents that are empty now; another container may live in one, which then stays."""
    for path in reversed(recorded):
        if paths.exists(path + "/cgroup.procs"):
            try:
                posix.rmdir(path)
            except OSError:
                pass


def remove(path: str, timeout: float, settle: Callable[[float], None]) -> None:
    """Remove the cgroup `path` and all below it; a missing one is fine.

    rmdir(2) answers EBUSY while a process is there or still dying: `settle(seconds)` is called to wait a
    little, for `timeout` seconds in all. Raises RtError when it stays.
    """
    try:
        posix.rmdir(path)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise failure("cannot remove the cgroup", path, error) from error
    from .tree import remove_tree

    remove_tree(path, timeout, settle)


def failure(what: str, path: str, error: OSError) -> RtError:
    """One line for an errno of the cgroup file system, with the fix where there is one."""
    number = error.errno
    hint = None
    if number in (errno.EACCES, errno.EPERM):
        hint = (
            "let systemd delegate a cgroup: systemd-run --user --scope -p Delegate=yes COMMAND, "
            "or run without one: --cgroup-manager=disabled"
        )
    elif number == errno.EROFS:
        hint = "the cgroup file system is mounted read-only here; run without one: --cgroup-manager=disabled"
    elif number in (errno.EBUSY, errno.EOPNOTSUPP):
        hint = "the cgroup has controllers enabled for children, or is threaded: processes go into a leaf"
    elif number == errno.EAGAIN:
        hint = "cgroup.max.descendants or cgroup.max.depth of a parent cgroup is reached"
    elif number == errno.EEXIST:
        hint = "that name belongs to a control file of the parent cgroup; choose another"
    return RtError(f"{what}: {path}: {posix.strerror(number) if number else error}", hint=hint)
