"""The user's cache: where it is, and whom to believe about it.

What is kept there decides what a container may do, so only a directory of our own counts that nobody else can
write. Must not know what is kept.
"""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 128
"""A directory of the cache has so many files at most: those that were written last."""


def default_cache_dir(environ: Mapping[str, str], folder: str) -> str | None:
    """The directory `folder` of the cache, made (0700) when it is missing; None when there is no safe place.

    Root has /var/cache/rt/FOLDER; everybody else `$XDG_CACHE_HOME/rt/FOLDER` (if absolute, as the XDG base
    directory specification asks) or `~/.cache/rt/FOLDER`. The root of a user namespace, as under rootless
    podman, cannot make the first and gets the second. Real root never does: sudo may leave it the home of
    somebody whose filesystem (fuse(4)) says of any file that it is root's.
    """
    if posix.geteuid() == 0:
        if _make_directories("/var/cache", ("rt", folder)):
            return f"/var/cache/rt/{folder}"
        from idmap.userns import in_user_namespace

        if not in_user_namespace():
            return None
    base = environ.get("XDG_CACHE_HOME", "")
    if base.startswith("/"):
        return f"{base.rstrip('/')}/rt/{folder}" if _make_directories(base, ("rt", folder)) else None
    home = environ.get("HOME", "").rstrip("/")
    if home.startswith("/") and _make_directories(home, (".cache", "rt", folder)):
        return f"{home}/.cache/rt/{folder}"
    return None


def open_directory(path: str) -> tuple[int, str]:
    """A descriptor of a directory only we can write; or -1 and what is wrong ("" if it is not there)."""
    try:
        directory = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
    except FileNotFoundError:
        return -1, ""
    except OSError as error:
        return -1, f"cache {path} is not used: {error.strerror}"
    status = posix.fstat(directory)
    if status.st_uid == posix.geteuid() and not status.st_mode & 0o022:
        return directory, ""
    posix.close(directory)
    return -1, f"cache {path} is not used: others can write it (make it yours, and `chmod 700` it)"


def store(directory: int, name: str, data: bytes) -> None:
    """Write a file of an open cache directory, whole or not at all: that it cannot be is no error.

    The oldest ones make room for it, and so do remains of those that were killed while they wrote.
    """
    partial = f".{name[:16]}.{posix.urandom(8).hex()}"
    creation = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
    try:
        fd = posix.open(partial, creation, 0o600, dir_fd=directory)
    except OSError:
        return
    try:
        try:
            written = posix.write(fd, data)
        finally:
            posix.close(fd)
        if written == len(data):
            posix.rename(partial, name, src_dir_fd=directory, dst_dir_fd=directory)
            _keep_newest(directory)
            return
    except OSError:
        pass
    try:
        posix.unlink(partial, dir_fd=directory)
    except OSError:
        pass


def _keep_newest(directory: int) -> None:
    names = posix.listdir(directory)
    if len(names) <= MOST:
        return
    written = []
    for name in names:
        try:
            written.append((posix.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns, name))
        except FileNotFoundError:
            pass  # another call makes room, too
    for _, name in sorted(written)[:-MOST]:
        try:
            posix.unlink(name, dir_fd=directory)
        except OSError:
            pass


def _make_directories(base: str, names: tuple[str, ...]) -> bool:
    """Makes base/names[0]/… (0700); True if the last is there and ours. The base itself must be there.

    A new directory is made only below one of our own, so that root never makes one where another user's
    symbolic links lead it.
    """
    euid = posix.geteuid()
    path = base.rstrip("/")
    try:
        try:
            return posix.lstat("/".join((path, *names))).st_uid == euid
        except FileNotFoundError:
            pass
        for name in names:
            if posix.stat(path or "/").st_uid != euid:
                return False
            path = f"{path}/{name}"
            try:
                posix.mkdir(path, 0o700)
            except FileExistsError:
                pass
        return posix.lstat(path).st_uid == euid
    except OSError:
        return False
