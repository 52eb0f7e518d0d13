"""Timing: one process spawned and waited for, peak memory, how busy the rest of the machine is.

Knows processes and clocks; knows nothing of containers or users.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

Action = tuple[object, ...]


PATIENCE = 30  # seconds for one command


class Unable(Exception):
    """Something cannot be measured here; the text says why."""


class Failed(Exception):
    """A command that should have succeeded did not; the text is one line for the table's notes."""


@dataclass
class Spawner:
    """Starts commands directly (no shell, no fork of this process's memory), output to files in `scratch`."""

    env: dict[str, str]
    scratch: Path

    @property
    def stdout(self) -> str:
        return str(self.scratch / "stdout")

    @property
    def stderr(self) -> str:
        return str(self.scratch / "stderr")

    def _actions(self, extra: Sequence[Action]) -> list[Action]:
        fresh = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        return [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, self.stdout, fresh, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, self.stderr, fresh, 0o600),
            *extra,
        ]

    def spawn(self, argv: list[str], extra: Sequence[Action] = ()) -> int:
        """Starts a command; returns its process id."""
        ignored = [signal.SIGPIPE]  # by Python, and a child would inherit that
        try:
            return os.posix_spawn(
                argv[0], argv, self.env, file_actions=self._actions(extra), setsigdef=ignored
            )
        except OSError as error:
            raise Failed(f"{argv[0]}: {error.strerror}") from None

    def time(self, argv: list[str], extra: Sequence[Action] = (), accepted: Sequence[int] = (0,)) -> float:
        """Milliseconds from before the spawn to after the wait. Raises `Failed` on another exit status."""
        with _Patience(argv):
            start = time.perf_counter_ns()
            pid = self.spawn(argv, extra)
            _, status, _ = os.wait4(pid, 0)
            end = time.perf_counter_ns()
        self.insist(argv, status, accepted)
        return (end - start) / 1e6

    def peak_kb(self, argv: list[str], extra: Sequence[Action] = ()) -> int:
        """ru_maxrss of the command in kB: the largest of it and of the children that it waited for.

        exec(2) carries on the high-water mark of the memory it replaces, so a child of this interpreter never
        shows less than the interpreter. A small shell starts the command instead and ends at once; the orphan
        comes to this process (which must be a child subreaper), and its rusage with it.
        """
        shell = ["busybox", "sh", "-c", '"$@" >/dev/null & echo $!', "sh", *argv]
        launcher = os.posix_spawnp(shell[0], shell, self.env, file_actions=self._actions(extra))
        _, status, _ = os.wait4(launcher, 0)
        self.insist(shell, status)
        with _Patience(argv):
            _, status, usage = os.wait4(int(self.output()), 0)
        self.insist(argv, status)
        return usage.ru_maxrss

    def output(self) -> str:
        """What the last command wrote to stdout."""
        return Path(self.stdout).read_text()

    def insist(self, argv: list[str], status: int, accepted: Sequence[int] = (0,)) -> None:
        """Raises `Failed`, with the command's own words, when it ended with a status not `accepted`."""
        code = os.waitstatus_to_exitcode(status)
        if code not in accepted:
            words = Path(self.stderr).read_text(errors="replace").strip() or "nothing on stderr"
            lines = words.splitlines()
            # Runtimes put the cause first or last; the longer of the two says more than a bare "exiting".
            cause = max(lines[0], lines[-1], key=len)[:200]
            raise Failed(f"{os.path.basename(argv[0])} ended with {code}: {cause}")


def finish_all(spawner: Spawner, commands: Iterable[list[str]], in_flight: int) -> float:
    """Milliseconds for all commands, `in_flight` of them at a time; a new one starts as soon as one ends.

    Raises `Failed` when one fails, with the others left to `end_children`.
    """
    waiting = iter(commands)
    running: dict[int, list[str]] = {}
    with _Patience(["a row of commands"], 20 * PATIENCE):
        start = time.perf_counter_ns()
        while True:
            while len(running) < in_flight and (argv := next(waiting, None)):
                running[spawner.spawn(argv)] = argv
            if not running:
                return (time.perf_counter_ns() - start) / 1e6
            pid, status = os.waitpid(-1, 0)
            if pid in running:  # not an orphan of a container
                spawner.insist(running.pop(pid), status)


class _Patience:
    """Turns a wait of more than so many seconds into `Failed`; the process is left to `end_children`."""

    def __init__(self, argv: list[str], seconds: int = PATIENCE) -> None:
        self.name = os.path.basename(argv[0])
        self.seconds = seconds

    def __enter__(self) -> None:
        signal.signal(signal.SIGALRM, self._give_up)
        signal.alarm(self.seconds)

    def __exit__(self, *_: object) -> None:
        signal.alarm(0)

    def _give_up(self, *_: object) -> None:
        raise Failed(f"{self.name} had not ended after {self.seconds} s")


def wait_for_end(pidfd: int, seconds: float = 5.0) -> None:
    """Waits until the process behind `pidfd` is dead. Raises `Failed` when it lives on."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(seconds * 1000):
        raise Failed(f"the container's process is alive {seconds:.0f} s after SIGKILL")


def end_children() -> None:
    """Kills and collects every child of this process, orphans that came to it included."""
    me = os.getpid()
    try:
        while children := Path(f"/proc/{me}/task/{me}/children").read_text().split():
            for pid in map(int, children):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    except OSError:
        pass  # a kernel without that file, or a process closed to us: nothing more to do here


def reap_orphans() -> None:
    """Collects dead processes that came to this one as a child subreaper."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


@dataclass(frozen=True)
class LoadMark:
    """A moment, to ask later how much the rest of the machine has worked since: `since()`."""

    at: float
    busy: float
    own: float

    @classmethod
    def now(cls) -> LoadMark:
        fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        ticks = sum(fields) - fields[3] - fields[4]  # all but idle and iowait; steal is work of neighbours
        own = os.times()
        used = own.user + own.system + own.children_user + own.children_system
        return cls(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), used)

    def since(self) -> float:
        """The share of all CPUs, 0 to 1, that others used since this mark."""
        now = LoadMark.now()
        capacity = (now.at - self.at) * (os.cpu_count() or 1)
        return max(0.0, ((now.busy - self.busy) - (now.own - self.own)) / capacity) if capacity else 0.0


def wait_for_quiet(limit: float, threshold: float = 0.1) -> None:
    """Returns once others use less than `threshold` of the CPUs for a quarter second, or after `limit` s."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        mark = LoadMark.now()
        time.sleep(0.25)
        if mark.since() < threshold:
            return
