"""Processes as the runtime meets them again: is this pid still the one that was written down?

A pid alone is nobody's: it is believed only with the start time (proc_pid_stat(5), field 22) and the boot id
that were recorded, and signalled only through a pidfd (pidfd_open(2)).
"""

from __future__ import annotations

import errno
import posix
import select
from _signal import pidfd_send_signal

from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _read(path: str) -> bytes:
    """A small file of /proc; empty when it, or its process, is not there.

    Raises RtError for all else: without descriptors left, say, no process is to pass for one that has ended.
    """
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            return posix.read(fd, 4096)
        finally:
            posix.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        return b""
    except OSError as error:
        raise RtError(f"cannot read {path}: {posix.strerror(error.errno or 0).lower()}") from None


def boot_id() -> str:
    """What tells this boot from all others (random(4))."""
    return _read("/proc/sys/kernel/random/boot_id").decode("ascii", "replace").strip()


def start_time(pid: int) -> tuple[str, str]:
    """(state letter, start time in clock ticks since boot) of a process; ("", "") when there is none."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    if len(fields) < 20:
        return "", ""
    return fields[0].decode("ascii"), fields[19].decode("ascii")


def identity(pid: int) -> dict[str, Any]:
    """What to write down about a process to know it again."""
    return {"pid": pid, "startTime": start_time(pid)[1], "bootId": boot_id()}


def is_alive(state: dict[str, Any]) -> bool:
    """Whether the recorded process still runs; a zombie does not."""
    pid = state.get("pid") or 0
    if pid <= 0:
        return False
    letter, started = start_time(pid)
    return (
        letter not in ("", "Z", "X")
        and started == state.get("startTime")
        and boot_id() == state.get("bootId")
    )


def open_process(state: dict[str, Any]) -> int:
    """A pidfd of the recorded process, or -1 when it has ended."""
    try:
        fd = posix.pidfd_open(state["pid"])
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):
            return -1
        raise RtError(
            f"cannot hold on to process {state['pid']}: {posix.strerror(error.errno or 0).lower()}"
        ) from None
    # Only now compare: the pidfd holds on to whoever has the number at this moment.
    if is_alive(state):
        return fd
    posix.close(fd)
    return -1


def send_signal(pidfd: int, number: int) -> bool:
    """Signal through a pidfd; False when the process has ended. Raises RtError."""
    try:
        pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    except OSError as error:
        raise RtError(f"cannot send signal {number}: {posix.strerror(error.errno or 0).lower()}") from None
    return True


def wait_end(pidfd: int, seconds: float) -> bool:
    """Wait until the process has ended; False when it has not after that time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(int(seconds * 1000)))


def is_child(pid: int) -> bool:
    """Whether a process is a child of ours that has not ended; one that has is put away."""
    try:
        return posix.waitpid(pid, posix.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False


def reap(pid: int) -> None:
    """Wait for a child."""
    try:
        posix.waitpid(pid, 0)
    except ChildProcessError:
        pass  # the caller ignores SIGCHLD: the kernel has reaped it
