"""Signals for a running `rt` command, at moments swept over its life."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator

from lab.leftovers import Ground
from lab.runtime import Runtime
from lab.waiting import PATIENCE

SEED = 20260


def moments(count: int, milliseconds: float) -> Iterator[float]:
    """`count` offsets in seconds: one from each equal part of the time, the same in every run."""
    dice = random.Random(SEED)
    for part in range(count):
        yield (part + dice.random()) * milliseconds / count / 1000


def strike(rt: Runtime, number: int, after: float, *words: str) -> int:
    """Start a command and send it a signal after that time; its return code as Popen gives it."""
    null = subprocess.DEVNULL
    # In a directory of the test's: what the command leaves running is known by it (`Ground`).
    process = rt.popen(*words, stdin=null, stdout=null, stderr=null, cwd=str(rt.root.parent))
    time.sleep(after)
    process.send_signal(number)
    return process.wait(PATIENCE)


def duration(rt: Runtime, *words: str) -> float:
    """How long a command takes here, in milliseconds, and some more: the stretch to sweep."""
    begin = time.monotonic()
    rt.ok(*words)
    return (time.monotonic() - begin) * 1200 + 2


def saved_or_ended(rt: Runtime, ground: Ground, container: str) -> str:
    """The status after a command was struck; a process is there only if the container was saved with it."""
    done = rt("state", container)
    status = rt.state(container)["status"] if done.returncode == 0 else "none"
    if status in ("created", "running"):
        return status
    # Not saved: rt-init reads the end of its socket and ends without anybody's help.
    assert ground.processes_end() == {}, status
    return "none" if done.returncode else rt.state(container)["status"]


def remove(rt: Runtime, ground: Ground, container: str) -> None:
    """`delete --force` leaves nothing."""
    assert rt.ok("delete", "--force", container) == ""
    ground.clean()


def ends_by(number: signal.Signals) -> list[int]:
    """The return codes of a command that a signal ends; negative: before the command had begun to look.

    An interpreter that SIGINT meets while it starts up answers with 1.
    """
    return [128 + number, -number] + ([1] if number == signal.SIGINT else [])
