"""Paths and the environment without the `os` module: importing that costs every call of `rt` a millisecond.

The few functions of os and os.path that the hot path needs, with the same meaning, on top of `posix`. Every
room may import it; it knows nothing of rt.
"""

from __future__ import annotations

import posix
import sys


def fsdecode(raw: bytes) -> str:
    """A name of the system as text; bytes that are not UTF-8 come back unchanged from `fsencode`."""
    return raw.decode("utf-8", "surrogateescape")


def fsencode(text: str) -> bytes:
    """The bytes of a name that `fsdecode` made."""
    return text.encode("utf-8", "surrogateescape")


def read_all(fd: int) -> bytes:
    """What an open file holds, from where it stands to its end. Raises OSError; the descriptor stays open."""
    parts = []
    while part := posix.read(fd, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def environment() -> dict[str, str]:
    """The environment: as this process was started with it, or as `os` has it where that is loaded."""
    if "os" in sys.modules:
        return dict(sys.modules["os"].environ)
    return {fsdecode(name): fsdecode(value) for name, value in posix.environ.items()}


def dirname(path: str) -> str:
    """Everything before the last slash, as os.path.dirname."""
    head = path[: path.rfind("/") + 1]
    return head.rstrip("/") or head


def basename(path: str) -> str:
    """Everything behind the last slash."""
    return path.rpartition("/")[2]


def normal(path: str) -> str:
    """The path without empty parts and ".", and ".." undone by name, as os.path.normpath."""
    rooted = path.startswith("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and (parts and parts[-1] != ".."):
            parts.pop()
        elif (part == ".." and not rooted) or part not in ("", ".", ".."):
            parts.append(part)
    # POSIX leaves the meaning of exactly two leading slashes open; Linux has none for them.
    return "/" * rooted + "/".join(parts) or "."


def absolute(path: str) -> str:
    """The path from the root, normal. Raises OSError when it is relative and the working directory gone."""
    return normal(path if path.startswith("/") else posix.getcwd() + "/" + path)


def exists(path: str) -> bool:
    """Whether something is there, links followed."""
    try:
        posix.stat(path)
    except (OSError, ValueError):
        return False
    return True


def is_directory(path: str) -> bool:
    """Whether a directory is there, links followed."""
    try:
        return posix.stat(path).st_mode & 0o170000 == 0o040000
    except (OSError, ValueError):
        return False


def make_directories(path: str, mode: int) -> None:
    """Make a directory, of that mode, and what is missing above it; fine when it is there. Raises OSError."""
    parent = dirname(path)
    if parent not in ("", path) and not exists(parent):
        make_directories(parent, 0o755)
    try:
        posix.mkdir(path, mode)
    except FileExistsError:
        if not is_directory(path):
            raise
