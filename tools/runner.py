"""Runs one command with its output passed on, and ends everything that it leaves behind.

Knows processes. A test that hangs must not take the run with it, and a container that outlives its test
keeps the pipe of the whole lane: as a subreaper this process is the parent of every orphan below it, sees
what is left when the command has ended, and ends that too. Knows nothing of lanes or of what output means.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
TO_DUMP = 5.0  # seconds for pytest's faulthandler to print where every thread is
TO_LEAVE = 1.0  # seconds for what is ending anyway


class Runner:
    """One command; `run` starts it.

    Afterwards `leftovers` names what had to be killed, and `stopped` is whether the command itself was, for
    exceeding `limit` seconds.
    """

    def __init__(self, command: Sequence[str], cwd: Path, environment: dict[str, str], limit: float) -> None:
        self.command = command
        self.cwd = cwd
        self.environment = environment
        self.limit = limit
        self.stopped = False
        self.leftovers: list[str] = []

    def run(self, take_line: Callable[[str], None]) -> int:
        """Runs the command, gives each line of its output to `take_line`; returns Popen's status."""
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        process = subprocess.Popen(
            self.command,
            cwd=self.cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        )
        assert process.stdout is not None
        guard = threading.Timer(self.limit, self._stop, (process,))
        guard.daemon = True
        guard.start()
        collector = threading.Thread(target=self._collect, args=(process,), daemon=True)
        collector.start()
        try:
            for line in process.stdout:
                take_line(line)
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGTERM)
            collector.join(TO_DUMP)
            raise
        finally:
            guard.cancel()
        collector.join()
        return process.wait()

    def _stop(self, process: subprocess.Popen[str]) -> None:
        self.stopped = True
        for number, seconds in ((signal.SIGABRT, TO_DUMP), (signal.SIGKILL, 0.0)):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                return
            time.sleep(seconds)

    def _collect(self, process: subprocess.Popen[str]) -> None:
        """Collects orphans as they end, until the command does; then ends those that are left."""
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            if ended is None or ended.si_pid == process.pid:
                break
            os.waitpid(ended.si_pid, 0)
        process.wait()
        patience = time.monotonic() + TO_LEAVE
        while (left := descendants(os.getpid())) and time.monotonic() < patience:
            time.sleep(0.05)
        self.leftovers = [name for name in map(command_line, left) if name]
        patience = time.monotonic() + TO_DUMP
        while (left := descendants(os.getpid())) and time.monotonic() < patience:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    continue
            time.sleep(0.05)


def descendants(parent: int) -> list[int]:
    """The running processes below one; those of its own children that ended are collected on the way."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return []
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                state, above = Path(f"/proc/{name}/stat").read_text().rpartition(") ")[2].split()[:2]
            except (OSError, ValueError):
                continue
            if state not in "ZX":
                children.setdefault(int(above), []).append(int(name))
    found = []
    heads = [parent]
    while heads:
        below = children.get(heads.pop(), [])
        found += below
        heads += below
    return found


def command_line(pid: int) -> str:
    """What a process was started as; empty when it is gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
    except OSError:
        return ""
    return words.decode(errors="replace")[:200]
