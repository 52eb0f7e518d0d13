"""The directory of a checkpoint: who may own it, and what rt writes there beside CRIU's images.

    descriptors.json   what the program's stdin, stdout and stderr were; the same as runc's
    rt.json            what of the container a restore must find again (Record)

Memory of the container lies in it, and a restore runs what it says with the caller's privileges: so nobody
else may write to it. Must not know how either is done.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator

from rootless_rt.criu import mounts
from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT = "checkpoint"
"""Where images go, below the working directory, when --image-path is not given."""
DESCRIPTORS, RECORD, INVENTORY = "descriptors.json", "rt.json", "inventory.img"
IMAGE = ".img"
PARENT = "parent"
_DEEPEST = 100  # checkpoints that build on each other: more than anybody makes, so it is a circle
_VERSION = 1
_LIMIT = 4 << 20
_OWN = "name a directory of your own with {}"


class Directory:
    """An open directory of images or logs. A context manager; one that was `made` for what then fails is
    removed again, unless there is something in it."""

    def __init__(self, path: str, fd: int, *, made: bool = False) -> None:
        self.path = path
        self.fd = fd
        self.made = made

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        os.close(self.fd)
        if kind is not None and self.made:
            try:
                os.rmdir(self.path)
            except OSError:
                pass

    def again(self) -> Directory:
        """The same directory as this thread's mount namespace has it. Raises RtError."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if not os.path.sameopenfile(fd, self.fd):
            os.close(fd)
            raise RtError(f"{self.path} has become another directory meanwhile")
        return Directory(self.path, fd)

    def with_ids(self, userns: int) -> Directory:
        """The same directory with root's files as those of a user namespace's root, where that can be."""
        fd = mounts.with_ids(f"/proc/self/fd/{self.fd}", userns) if userns >= 0 else -1
        return Directory(self.path, fd if fd >= 0 else os.dup(self.fd))

    def let_group_read(self) -> None:
        """Let root's group read it all, where it is of that group. Raises RtError."""
        status = os.fstat(self.fd)
        if status.st_gid != 0:
            return
        try:
            if status.st_mode & 0o050 != 0o050:
                os.fchmod(self.fd, stat.S_IMODE(status.st_mode) | 0o050)
            for name in os.listdir(self.fd):
                status = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_gid == 0 and not status.st_mode & 0o040:
                    os.chmod(name, stat.S_IMODE(status.st_mode) | 0o040, dir_fd=self.fd)
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise RtError(
                f"--image-path {self.path}: the container's own root has to read it: {reason}",
                hint="copy the checkpoint to where its modes can be changed",
            ) from None

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        try:
            os.stat(name, dir_fd=self.fd)
        except OSError:
            return False
        return True

    def read(self, name: str) -> str:
        """A file's text; empty when it cannot be read."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
            with open(fd, "rb") as file:
                return file.read(_LIMIT).decode("utf-8", "replace")
        except OSError:
            return ""

    def lines(self, name: str) -> Iterator[str]:
        """The lines of a file's text; none when it cannot be read."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return
        with open(fd, encoding="utf-8", errors="replace") as file:
            yield from file

    def is_writable(self) -> bool:
        """Whether files can be made in it."""
        return os.access(f"/proc/self/fd/{self.fd}", os.W_OK | os.X_OK)

    def sizes(self) -> dict[str, int]:
        """The names and sizes in bytes of CRIU's files in it. Raises OSError."""
        found = {}
        for name in self.names():
            if name.endswith(IMAGE):
                found[name] = os.stat(name, dir_fd=self.fd).st_size
        return found

    def names(self) -> set[str]:
        """The names of all that is in it. Raises OSError."""
        return set(os.listdir(self.fd))

    def write(self, name: str, document: object) -> None:
        """Write a document as JSON, in one step. Raises RtError."""
        temporary = f".{name}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(temporary, flags, 0o600, dir_fd=self.fd), "w", encoding="utf-8") as file:
                json.dump(document, file)
            os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            self.forget(temporary)
            reason = (error.strerror or "").lower()
            raise RtError(
                f"cannot write {self.path}/{name}: {reason}", hint=_OWN.format("--image-path")
            ) from None

    def forget(self, *names: str) -> None:
        """Remove files, if they are there."""
        for name in names:
            try:
                os.unlink(name, dir_fd=self.fd)
            except OSError:
                pass


def make(path: str, option: str) -> Directory:
    """Open a directory to write into, made when it is missing, for its owner alone. Raises RtError."""
    made = not os.path.lexists(path)
    try:
        os.makedirs(path, 0o700, exist_ok=True)
    except FileExistsError:
        raise RtError(f"{option} {path}: is not a directory", hint=_OWN.format(option)) from None
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise RtError(f"{option} {path}: cannot be made: {reason}", hint=_OWN.format(option)) from None
    found = find(path, option)
    if not found.is_writable():
        os.close(found.fd)
        raise RtError(f"{option} {path}: is not writable", hint=_OWN.format(option))
    found.made = made
    return found


def find(path: str, option: str, *, name: str = "", at: int | None = None) -> Directory:
    """Open a directory that nobody else can write to: `path`, which is `name` in the open directory `at`, if
    given. Raises RtError."""
    try:
        fd = os.open(name or path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
    except OSError as error:
        raise RtError(f"{option} {path}: {(error.strerror or '').lower()}") from None
    problem = _foreign(os.fstat(fd))
    if problem:
        os.close(fd)
        raise RtError(
            f"{option} {path}: {problem}: a checkpoint there could be changed by others",
            hint=f"use a directory of your own, or: chmod go-w {path}",
        )
    return Directory(path, fd)


def check_whole(images: Directory, option: str, depth: int = 0) -> None:
    """Look at the files of a checkpoint in the same way, and at what it builds on (CRIU's link `parent`).

    Raises RtError.
    """
    _check_files(images)
    if not images.has(PARENT):
        return
    if depth == _DEEPEST:
        raise RtError(f"{option} {images.path}: more than {_DEEPEST} checkpoints build on each other")
    with find(f"{images.path}/{PARENT}", option, name=PARENT, at=images.fd) as above:
        check_whole(above, option, depth + 1)


def _check_files(images: Directory) -> None:
    for name in sorted(images.names()):
        problem = _foreign(os.stat(name, dir_fd=images.fd, follow_symlinks=False))
        if problem:
            raise RtError(
                f"{images.path}/{name} {problem}: what it says cannot be trusted",
                hint=f"if you know where it comes from: chown -R {os.geteuid()} {images.path};"
                f" chmod -R go-w {images.path}",
            )


def _foreign(status: os.stat_result) -> str:
    """Why others can change what is there; empty when they cannot."""
    if status.st_uid != os.geteuid():
        return f"belongs to uid {status.st_uid}"
    if not stat.S_ISLNK(status.st_mode) and stat.S_IMODE(status.st_mode) & 0o022:
        return "can be written by other users"
    return ""


class Record:
    """What rt knows of a checkpointed container: `data` is the content of rt.json."""

    __slots__ = ("data",)

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    @property
    def points(self) -> list[str]:
        """All mount points."""
        return [str(point) for point in self.data.get("points", [])]

    @property
    def files(self) -> dict[str, int]:
        """CRIU's names of files of the host -> which of stdin, stdout, stderr they were."""
        return dict(self.data.get("files", {}))

    @property
    def sizes(self) -> dict[str, int]:
        """CRIU's files -> how many bytes they had."""
        return dict(self.data.get("sizes", {}))

    @property
    def sources(self) -> dict[str, dict[str, str]]:
        """Name of each external mount -> where to find it (see mounttable.Source)."""
        return dict(self.data.get("sources", {}))


def new_record(**data: Any) -> Record:
    """A record to be written."""
    return Record({"version": _VERSION, **data})


def read_record(images: Directory) -> Record | None:
    """The record of a checkpoint; None for one that another runtime made. Raises RtError."""
    if not images.has(INVENTORY):
        raise RtError(
            f"--image-path {images.path}: there is no checkpoint in it",
            hint=f"name the directory that `rt checkpoint --image-path` wrote (default: ./{DEFAULT})",
        )
    if not images.has(RECORD):
        if not images.has(DESCRIPTORS):
            raise RtError(
                f"--image-path {images.path}: the checkpoint is not complete",
                hint="a checkpoint that failed, or --pre-dump alone, cannot be restored",
            )
        return None
    data = _json(images, RECORD)
    if not isinstance(data, dict) or not _is_sound(data):
        raise RtError(f"{images.path}/{RECORD} is damaged")
    if data["version"] != _VERSION:
        raise RtError(f"{images.path}/{RECORD} is of another version of rt: {data['version']}")
    record = Record(data)
    there = images.sizes()
    for name, size in sorted(record.sizes.items()):
        if there.get(name, 0) < size:
            raise RtError(
                f"{images.path}/{name} is cut short: {there.get(name, 0)} of {size} bytes",
                hint="copy the whole checkpoint again",
            )
    return record


def _is_sound(data: dict[str, Any]) -> bool:
    points, sources = data.get("points"), data.get("sources")
    return (
        isinstance(data.get("version"), int)
        and isinstance(data.get("namespaces"), list)
        and isinstance(points, list)
        and all(isinstance(point, str) and point.startswith("/") for point in points)
        and all(isinstance(data.get(name, {}), dict) for name in ("files", "sizes"))
        and all(isinstance(size, int) for size in data.get("sizes", {}).values())
        and all(number in (0, 1, 2) for number in data.get("files", {}).values())
        and isinstance(sources, dict)
        and all(
            isinstance(source, dict) and all(isinstance(value, str) for value in source.values())
            for source in sources.values()
        )
    )


def read_descriptors(images: Directory) -> list[str]:
    """What stdin, stdout and stderr were. Raises RtError."""
    data = _json(images, DESCRIPTORS)
    if not isinstance(data, list) or not all(isinstance(item, str) for item in data):
        raise RtError(f"{images.path}/{DESCRIPTORS} is damaged")
    return data


def _json(images: Directory, name: str) -> Any:
    try:
        return json.loads(images.read(name))
    except ValueError:
        raise RtError(f"{images.path}/{name} is damaged") from None
