"""Processes as `ps -ef` shows them, from /proc alone (proc_pid_stat(5)): for hosts without ps(1).

Knows the columns and their widths; it must not know containers.
"""

from __future__ import annotations

import os
import time

from rootless_rt.errors import CONTROLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

HEADING = "UID          PID    PPID  C STIME TTY          TIME CMD"
_MAX_COMMAND = 4096


class Process:
    """A process at one moment: ids, `used` and `age` in seconds, its terminal's number, its command."""

    __slots__ = ("age", "command", "parent", "pid", "tty", "uid", "used")

    def __init__(
        self, pid: int, parent: int, uid: int, tty: int, used: float, age: float, command: str
    ) -> None:
        self.pid = pid
        self.parent = parent
        self.uid = uid
        self.tty = tty
        self.used = used
        self.age = age
        self.command = command


def read(pid: int, proc: str = "/proc") -> Process | None:
    """What /proc tells of a process; None when it has ended, or is hidden from us."""
    try:
        stat = _bytes(f"{proc}/{pid}/stat")
        uid = os.stat(f"{proc}/{pid}").st_uid
        command = _bytes(f"{proc}/{pid}/cmdline")
        uptime = float(_bytes(f"{proc}/uptime").split()[0])
    except (OSError, ValueError, IndexError):
        return None
    # The name in parentheses may hold anything, parentheses too: the last one ends it.
    name = stat[stat.find(b"(") + 1 : stat.rfind(b")")]
    fields = stat[stat.rfind(b")") + 1 :].split()
    if len(fields) < 20 or not all(word.removeprefix(b"-").isdigit() for word in fields[1:20]):
        return None
    parent, tty, user, system, started = (int(fields[at]) for at in (1, 4, 11, 12, 19))
    second = os.sysconf("SC_CLK_TCK")
    words = command.rstrip(b"\0").replace(b"\0", b" ") or b"[" + name + b"]"
    return Process(
        pid,
        parent,
        uid,
        tty,
        (user + system) / second,
        max(0.0, uptime - started / second),
        os.fsdecode(words).translate(CONTROLS),
    )


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(_MAX_COMMAND)


def table(pids: Iterable[int], proc: str = "/proc") -> str:
    """The heading, and a line for each of the processes that are still there."""
    found = [process for pid in pids if (process := read(pid, proc)) is not None]
    return "\n".join([HEADING, *(line(process, time.time()) for process in found)]) + "\n"


def line(process: Process, now: float) -> str:
    """A process as one line; `now` is the time in seconds since 1970."""
    used = int(process.used)
    share = min(99, int(process.used * 100 / process.age)) if process.age >= 1 else 0
    return (
        f"{_user(process.uid):<8} {process.pid:>7} {process.parent:>7} {share:>2} "
        f"{_started(now - process.age, now)} {_terminal(process.tty):<8} {_span(used)} {process.command}"
    )


def _user(uid: int) -> str:
    """The user's name where it fits the column, as ps does."""
    from idmap.subid import user_name

    try:
        name = user_name(uid) or ""
    except OSError:
        name = ""
    return name if name and len(name) <= 8 else name[:7] + "+" if name else str(uid)


def _started(then: float, now: float) -> str:
    """The time of day for one of today, the day in the last year, else the year."""
    start, today = time.localtime(then), time.localtime(now)
    if start[:3] == today[:3]:
        return time.strftime("%H:%M", start)
    return time.strftime("%b%d" if now - then < 365 * 86400 else "%Y ", start)


def _span(seconds: int) -> str:
    """CPU time as [DD-]HH:MM:SS."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{f'{days}-' if days else ''}{hour:02}:{minute:02}:{second:02}"


def _terminal(number: int) -> str:
    """The name of a terminal by its device number (Documentation/admin-guide/devices.txt)."""
    major, minor = os.major(number), os.minor(number)
    if 136 <= major <= 143:
        return f"pts/{minor + ((major - 136) << 8)}"
    if major == 4:
        return f"tty{minor}" if minor < 64 else f"ttyS{minor - 64}"
    if (major, minor) == (5, 1):
        return "console"
    return "?"
