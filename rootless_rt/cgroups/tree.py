"""Slow paths over a cgroup and those below it: list, kill, wait, remove.

A container may have been given its own cgroup to fill, so the tree's depth and size are not ours: the walk
goes by descriptors, one level at a time, with no recursion and no path that grows. Must not know
cgroup versions.
"""

from __future__ import annotations

import errno
import posix
import time
from _signal import pidfd_send_signal

from rootless_rt.errors import RtError

from .fs import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SIGKILL = 9
_DIR = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
_BATCH = 256
"""How many processes are held by pidfd at once: well below the usual limit of 1024 descriptors."""


def walk(path: str) -> Iterator[tuple[int, str]]:
    """Every cgroup at and below `path`, children before parents.

    Yields (a descriptor of the directory's parent, the directory's name); for `path` itself (-1, path).
    Directories that vanish on the way are left out. Raises OSError when `path` cannot be opened.
    """
    fd = posix.open(path, _DIR)
    names: list[str] = []
    pending = [_children(fd)]
    try:
        while True:
            if pending[-1]:
                name = pending[-1].pop()
                try:
                    child = posix.open(name, _DIR, dir_fd=fd)
                except OSError as error:
                    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                        continue
                    raise
                posix.close(fd)
                fd = child
                names.append(name)
                pending.append(_children(fd))
                continue
            pending.pop()
            if not names:
                break
            parent = posix.open("..", _DIR, dir_fd=fd)
            posix.close(fd)
            fd = parent
            yield fd, names.pop()
    finally:
        posix.close(fd)
    yield -1, path


def _children(fd: int) -> list[str]:
    try:
        with posix.scandir(fd) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def pids(path: str) -> list[int]:
    """The processes of the cgroup and of all below it, in no order; missing cgroups have none.

    The kernel writes 0 for a process outside of our pid namespace: never returned, since kill(0) means us.
    """
    found: set[int] = set()
    try:
        for parent, name in walk(path):
            where = parent if parent >= 0 else None
            try:
                fd = posix.open(name + "/cgroup.procs", posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=where)
            except FileNotFoundError:
                continue
            try:
                data = b""
                while chunk := posix.read(fd, 65536):
                    data += chunk
            except OSError as error:
                # A threaded cgroup lists no processes; those of its domain are in the domain's list.
                if error.errno not in (errno.EOPNOTSUPP, errno.ENODEV):
                    raise
            finally:
                posix.close(fd)
            found.update(int(word) for word in data.split() if word.isdigit())
    except FileNotFoundError:
        pass
    except OSError as error:
        raise failure("cannot list the processes of the cgroup", path, error) from error
    found.discard(0)
    return list(found)


def kill_all(listed: Callable[[], list[int]], deadline: float, signalled: Callable[[], None]) -> bool:
    """SIGKILL what `listed()` gives until that is nothing, or until `deadline` (time.monotonic); True: empty.

    A number read from cgroup.procs may belong to somebody else a moment later. So each is pinned by a pidfd
    first and signalled only if it is listed still. `signalled()` is called after every round, to thaw.
    """
    from select import POLLIN, poll

    me = posix.getpid()
    while True:
        wanted = [pid for pid in listed() if pid != me][:_BATCH]
        if not wanted:
            return True
        pinned: dict[int, int] = {}
        try:
            for pid in wanted:
                try:
                    pinned[pid] = posix.pidfd_open(pid)
                except ProcessLookupError:
                    continue
            still = set(listed())
            waiting = poll()
            left = 0
            for pid, fd in pinned.items():
                if pid in still:
                    try:
                        pidfd_send_signal(fd, _SIGKILL)
                    except ProcessLookupError:
                        continue
                    waiting.register(fd, POLLIN)
                    left += 1
            signalled()
            # Up to 0.1 s for this round, then look again: a process may have forked before the signal.
            end = min(deadline, time.monotonic() + 0.1)
            while left and (rest := end - time.monotonic()) > 0:
                for fd, _ in waiting.poll(rest * 1000 + 1):
                    waiting.unregister(fd)
                    left -= 1
        except PermissionError as error:
            raise RtError("cannot kill a process of the container: permission denied") from error
        finally:
            for fd in pinned.values():
                posix.close(fd)
        if time.monotonic() >= deadline:
            return not [pid for pid in listed() if pid != me]
        if not left:
            # Exited, but perhaps not yet gone from the list.
            time.sleep(0.001)


def wait_event(path: str, line: bytes, deadline: float) -> bool:
    """Wait until the `cgroup.events` file at `path` holds `line`, up to `deadline`; True when it does.

    The kernel wakes poll(2) when the file changes (Documentation/admin-guide/cgroup-v2.rst). A cgroup that is
    gone counts as reached: nothing is in it.
    """
    from select import POLLPRI, poll

    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        changed = poll()
        changed.register(fd, POLLPRI)
        while True:
            if line in posix.pread(fd, 4096, 0).split(b"\n"):
                return True
            rest = deadline - time.monotonic()
            if rest <= 0:
                return False
            changed.poll(rest * 1000 + 1)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return True
        raise
    finally:
        posix.close(fd)


def remove_tree(path: str, timeout: float, settle: Callable[[float], None]) -> None:
    """Remove a cgroup with children or with processes that are still dying; see `fs.remove`."""
    deadline = time.monotonic() + timeout
    delay = 0.001
    while True:
        try:
            for parent, name in walk(path):
                try:
                    posix.rmdir(name, dir_fd=parent if parent >= 0 else None)
                except FileNotFoundError:
                    pass
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise failure("cannot remove the cgroup", path, error) from error
        rest = deadline - time.monotonic()
        if rest <= 0:
            raise RtError(
                f"cannot remove the cgroup: {path}: processes are still in it",
                hint="kill them first: delete --force",
            )
        settle(min(delay, rest))
        delay = min(delay * 2, 0.05)
