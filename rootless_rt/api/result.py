"""How a process in a container ended. Plain data."""

from __future__ import annotations

import signal as signals
from dataclasses import dataclass, field
from resource import struct_rusage

from rootless_rt.api.errors import ProcessFailed
from rootless_rt.plan.model import Degradation

_SHOWN = 500  # characters of what a failed process said last


@dataclass(frozen=True, slots=True)
class Result:
    """How a process ended, what it said and what it used.

    args          its program and arguments
    returncode    its exit status, or -N if signal N ended it, as in `subprocess`
    stdout, stderr  what it wrote where PIPE was asked for, else empty
    duration      seconds from before it was made to its end
    rusage        processor time and more of it and those of its children that it waited for (getrusage(2));
                  None where nobody could tell
    peak_memory   bytes: of the cgroup, where the container has one that counts memory, else the largest
                  resident set of one of its processes
    oom_killed    whether the kernel killed in its cgroup because memory had run out
    timed_out     whether it was killed because its time was over
    output_exceeded  whether it was killed because it wrote more than `max_output`
    degradations  what differed from what the config asks, and why
    """

    args: tuple[str, ...]
    returncode: int
    stdout: bytes = b""
    stderr: bytes = b""
    duration: float = 0.0
    rusage: struct_rusage | None = field(default=None, repr=False)
    peak_memory: int = 0
    oom_killed: bool = False
    timed_out: bool = False
    output_exceeded: bool = False
    degradations: tuple[Degradation, ...] = field(default=(), repr=False)

    @property
    def ok(self) -> bool:
        """Whether it ended by itself, with status 0."""
        return self.returncode == 0 and not self.timed_out and not self.output_exceeded

    @property
    def exit_code(self) -> int:
        """The status as a shell and `rt run` give it: 128 + N for signal N."""
        return self.returncode if self.returncode >= 0 else 128 - self.returncode

    @property
    def signal(self) -> int | None:
        """The signal that ended it, if one did."""
        return -self.returncode if self.returncode < 0 else None

    @property
    def text(self) -> str:
        """`stdout` as text; what is no UTF-8 shows as U+FFFD."""
        return self.stdout.decode("utf-8", "replace")

    def why(self) -> str:
        """One line: how it ended."""
        if self.timed_out:
            return f"killed after {self.duration:.1f} s: its time was over"
        if self.output_exceeded:
            return "killed: it wrote more than it may"
        if self.oom_killed:
            return "ran out of memory"
        if self.signal is not None:
            return f"ended by signal {self.signal} ({_name(self.signal)})"
        return f"exit status {self.returncode}"

    def check(self) -> Result:
        """This very result if the process ended well, so that calls can be chained. Raises ProcessFailed."""
        if self.ok:
            return self
        said = self.stderr.decode("utf-8", "replace").strip()[-_SHOWN:]
        line = said.rpartition("\n")[2]
        raise ProcessFailed(f"{self.args[0]}: {self.why()}" + (f": {line}" if line else ""), self)


def _name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signals.SIGRTMIN}"
