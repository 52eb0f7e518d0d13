"""What of a running container's stdin, stdout and stderr leads out of it.

A restore puts the caller's own descriptors in their place: CRIU knows a pipe by its number, any other file
of the host by its mount and inode.
"""

from __future__ import annotations

import os

from rootless_rt.container.mounttable import Mount, mount_id


def links(pid: int) -> list[str]:
    """The names of a process's first three descriptors, such as pipe:[4711]; "" for a closed one."""
    return [_link(pid, number) for number in range(3)]


def _link(pid: int, number: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{number}")
    except OSError:
        return ""


def outer_pipes(names: list[str], pids: list[int]) -> list[str]:
    """`names` with "" for the pipes that processes of the container have both ends of."""
    modes: dict[str, set[int]] = {}
    for pid in pids:
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue  # it has ended
        for number in numbers:
            try:
                target = os.readlink(f"/proc/{pid}/fd/{number}")
                if target in names and target.startswith("pipe:"):
                    modes.setdefault(target, set()).add(os.lstat(f"/proc/{pid}/fd/{number}").st_mode & 0o600)
            except OSError:
                continue
    return ["" if modes.get(name, set()) >= {0o400, 0o200} else name for name in names]


def outer_files(pid: int, mounts: list[Mount]) -> dict[str, int]:
    """CRIU's names of the host's files among the first three descriptors -> the lowest that is it.

    Not those that the container's own mounts hold, nor pipes and sockets, nor terminals.
    """
    own = {mount.id for mount in mounts}
    found: dict[str, int] = {}
    for number in range(3):
        try:
            with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as file:
                where = mount_id(file.read())
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            inode = os.stat(f"/proc/{pid}/fd/{number}").st_ino
        except OSError:
            continue
        if where is not None and str(where) not in own and target[:1] == "/" and not _is_terminal(target):
            found.setdefault(f"file[{where:x}:{inode:x}]", number)
    return found


def _is_terminal(target: str) -> bool:
    return target.startswith(("/dev/pts/", "/dev/tty", "/dev/console"))
