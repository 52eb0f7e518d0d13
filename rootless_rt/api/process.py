"""A process that runs in a container, as the program holds it that has started it.

Theory of operation: `Life` is what knows of the end; a descriptor that can be read then. Everything here is
one poll of that and of the pipes. No thread is needed, and none is made. Any thread may wait, several too.
"""

from __future__ import annotations

import os
import select
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from resource import struct_rusage
from types import TracebackType
from typing import IO, Protocol

from rootless_rt.api.errors import Closed, Expired
from rootless_rt.api.exchange import Polled
from rootless_rt.api.result import Result
from rootless_rt.api.streams import Streams
from rootless_rt.plan.model import Degradation

_KILL = 9


class Ending:
    """How a process ended: its wait status, and what it used."""

    __slots__ = ("oom_killed", "peak_memory", "rusage", "status")

    def __init__(self, status: int, rusage: struct_rusage | None) -> None:
        self.status = status
        self.rusage = rusage
        self.peak_memory = rusage.ru_maxrss * 1024 if rusage is not None else 0
        self.oom_killed = False


class Life(Protocol):
    """A process from its start to its end.

    `fd` can be read once it has ended. `end` then says how, puts away whatever is left of it, and is called
    once; `kill` may be called at any time before.
    """

    pid: int
    fd: int
    degradations: list[Degradation]

    @property
    def ends_at_once(self) -> bool:
        """Whether `end` never waits for the kernel."""

    def kill(self, number: int) -> None:
        """Send a signal; SIGKILL ends all of its processes. Does nothing once it has ended."""

    def end(self) -> Ending:
        """Raises RtError when nobody can tell how it ended."""


class Process:
    """A running process. As a context manager it is killed at the end of the block, if it still runs.

    args    its program and arguments
    pid     its number on the host
    stdin, stdout, stderr   our ends of its pipes where PIPE was asked for, else None
    pipes   the same, which `communicate` uses; without `files` they are only that
    """

    def __init__(
        self, args: list[str], life: Life, streams: Streams, begun: float, *, files: bool = True
    ) -> None:
        self.args = tuple(args)
        self.pid = life.pid
        self.pipes = streams.pipes()
        opened = self.pipes.files() if files else [None] * 3
        self.stdin: IO[bytes] | None = opened[0]
        self.stdout: IO[bytes] | None = opened[1]
        self.stderr: IO[bytes] | None = opened[2]
        self._life = life
        self._begun = begun
        self._result: Result | None = None
        self._ending = threading.Lock()
        self._killed_for = ""
        self._failed = False  # its end could not be told

    def fileno(self) -> int:
        """A descriptor that can be read once the process has ended, for `select`; -1 once that is known."""
        return self._life.fd

    @property
    def ends_at_once(self) -> bool:
        """Whether putting away what is left of it takes no time, once it has ended."""
        return self._life.ends_at_once

    def poll(self) -> int | None:
        """Its return code, or None while it runs."""
        if self._result is None and _ready(self._life.fd, 0):
            self.finish()
        return None if self._result is None else self._result.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to it; nothing happens once it has ended. SIGKILL reaches all of its processes."""
        with self._ending:
            if self._result is None and not self._failed:
                self._life.kill(number)

    def kill(self) -> None:
        """SIGKILL: it ends, with everything that it has started."""
        self.send_signal(_KILL)

    def terminate(self) -> None:
        """SIGTERM, which the first process of a container ignores unless it has a handler for it."""
        self.send_signal(15)

    def wait(self, timeout: float | None = None) -> Result:
        """Wait for its end, at most `timeout` seconds. Raises Expired; it still runs then.

        Who reads no pipe of its may wait for ever: see `communicate`.
        """
        if self._result is None:
            if not _ready(self._life.fd, timeout):
                raise Expired(f"{self.args[0]}: still runs after {timeout} s")
            self.finish()
        assert self._result is not None
        return self._result

    def communicate(
        self, input: bytes | None = None, timeout: float | None = None, max_output: int | None = None
    ) -> Result:
        """Write `input` to its stdin, read its pipes to their end, and wait for it.

        When `timeout` seconds are over, or more than `max_output` bytes come from one pipe, it is killed, and
        the result says so.
        """
        return self.concluded(*Polled(self, input, max_output).run(timeout))

    def concluded(self, stdout: bytes, stderr: bytes) -> Result:
        """The result of a process that has ended, with what it wrote."""
        result = self.finish(stdout, stderr)
        if result.stdout is stdout and result.stderr is stderr:
            return result
        return replace(result, stdout=stdout, stderr=stderr)  # somebody else has waited for it

    def kill_for(self, reason: str) -> None:
        """Kill it because of its "time" or its "output": the result of `communicate` says so."""
        self._killed_for = self._killed_for or reason
        self.kill()

    def __iter__(self) -> Iterator[bytes]:
        """The lines of its stdout as they come."""
        if self.stdout is None:
            raise ValueError("stdout is no pipe")
        return iter(self.stdout)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill it if it runs, close its pipes, and put away what is left of it."""
        if self._result is None and not self._failed:
            self.kill()
        self.close_pipes()
        if not self._failed:
            self.wait()

    def close_pipes(self) -> None:
        """Close our ends of its pipes."""
        for which in range(3):
            self.pipes.close(which)

    def finish(self, stdout: bytes = b"", stderr: bytes = b"") -> Result:
        """The result of a process that has ended; whoever comes first puts away what is left of it."""
        with self._ending:
            if self._failed:
                raise Closed(f"{self.args[0]}: how it ended is not known")
            if self._result is None:
                self._failed = True
                ending = self._life.end()
                self._failed = False
                notes = self._life.degradations
                self._result = result_of(
                    self.args, ending, self._begun, self._killed_for, notes, stdout, stderr
                )
            return self._result

    def __del__(self) -> None:
        if getattr(self, "_life", None) is not None and self._result is None and not self._failed:
            warnings.warn(f"{self!r} was neither waited for nor closed", ResourceWarning, 2, source=self)
            self.close()

    def __repr__(self) -> str:
        how = "running" if self._result is None else self._result.why()
        return f"<Process {self.args[0]!r}, pid {self.pid}: {how}>"


def result_of(
    args: Sequence[str],
    ending: Ending,
    begun: float,
    killed_for: str,
    degradations: Sequence[Degradation],
    stdout: bytes,
    stderr: bytes,
) -> Result:
    """The result of a process that has just ended; `killed_for` is "time", "output" or ""."""
    return Result(
        tuple(args),
        os.waitstatus_to_exitcode(ending.status),
        stdout,
        stderr,
        duration=time.monotonic() - begun,
        rusage=ending.rusage,
        peak_memory=ending.peak_memory,
        oom_killed=ending.oom_killed,
        timed_out=killed_for == "time",
        output_exceeded=killed_for == "output",
        degradations=tuple(degradations),
    )


def _ready(fd: int, timeout: float | None) -> bool:
    if fd < 0:
        return True  # another thread has seen its end just now
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else max(0.0, timeout) * 1000))
