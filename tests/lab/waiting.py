"""Waiting for what other processes do: for a condition, never for a time.

Any process can be kept from its processor for seconds, at any line. So a test that looks at another process's
doings waits until they are so, and gives up so late that only a fault takes that long.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 60.0  # seconds


def until(true: Callable[[], object], what: object, seconds: float = PATIENCE) -> None:
    """Wait for a condition; else `what` (or what it returns, when it can be called) is the error."""
    deadline = time.monotonic() + seconds
    pause = 0.002
    while not true():
        assert time.monotonic() < deadline, f"never: {what() if callable(what) else what}"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def command(pid: int | str) -> list[str]:
    """The words of a process's command line, which need be no text; none when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="surrogateescape").split("\0")[:-1]
    except OSError:
        return []


def commands() -> dict[int, list[str]]:
    """The command lines of all processes: pid -> words."""
    return {int(entry.name): command(entry.name) for entry in Path("/proc").glob("[0-9]*")}


def becomes(pid: int, *words: str) -> None:
    """Wait until a process runs this program: a shell in its place makes way in its own time."""
    until(lambda: command(pid) == [*words], lambda: f"{pid} runs {command(pid)}, not {[*words]}")


def has_ended(pid: int | str) -> bool:
    """Whether a process is gone, or waits for its parent to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX"
    except OSError:
        return True
