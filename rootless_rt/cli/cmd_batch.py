"""`rt batch`: many jobs over one bundle, from JSON lines to JSON lines."""

from __future__ import annotations

import gc
import os
import stat
import sys
from collections.abc import Callable, Iterable
from typing import Any

from rootless_rt.batch.crew import Crew
from rootless_rt.batch.jobs import BAD_INPUT, read_jobs
from rootless_rt.batch.outcomes import Outcome, ResultsFile
from rootless_rt.cli.argv import Invocation, flag, number, text
from rootless_rt.cli.common import close_inherited, is_strict, log_of, manager_of
from rootless_rt.cli.output import write
from rootless_rt.errors import RtError
from rootless_rt.spec.amounts import duration, size

SOME_FAILED = 1
INTERRUPTED = 128 + 2
_MOST_AT_ONCE = 1024


def run(inv: Invocation) -> int:
    """Run all jobs; 0 when all went well, 1 when some did not, 2 when they cannot be run as asked."""
    gc.enable()  # off for short commands; this one may run for days
    close_inherited(0)
    try:
        return _run(inv)
    except RtError as error:
        raise RtError(error.message, hint=error.hint, code=BAD_INPUT) from None


def _run(inv: Invocation) -> int:
    timeout, most = _amount(inv, "timeout", duration), _amount(inv, "max-output", size)
    path, resume = text(inv.options, "output"), flag(inv.options, "resume")
    if resume and path is None:
        raise RtError("--resume goes on with a file of results", hint="name it: --output FILE")
    at_once = _at_once(inv)
    source, name, total = _source(inv)
    path = os.path.abspath(path) if path is not None else None
    log = log_of(inv)
    with Crew(
        text(inv.options, "bundle") or ".",
        at_once,
        timeout=timeout / 1e9 if timeout > 0 else None,
        max_output=most if most > 0 else None,
        overlay=flag(inv.options, "overlay"),
        degrade="strict" if is_strict(inv) else "warn",
        cgroup_manager=manager_of(inv),
    ) as crew:
        for item in crew.degradations:
            log.warning(item.line(), item.fix or None)
        results = ResultsFile(path, resume=resume) if path is not None else None
        done = results.done if results is not None else {}
        tally = _Tally(write if results is None else results.write, done)
        if not flag(inv.options, "no_progress") and (results is not None or not os.isatty(1)):
            tally.bar = _bar(total, tally.count)
        try:
            for outcome in crew.run(job for job in read_jobs(source, name) if job.id not in done):
                tally.take(outcome)
        except KeyboardInterrupt:
            crew.stop()
            for outcome in crew.rest():
                tally.take(outcome)
            left = "--resume runs the others" if results is not None else None
            log.error(f"interrupted: {tally.count} jobs have a result", left)
            return INTERRUPTED
        finally:
            if tally.bar is not None:
                tally.bar.close()
    return SOME_FAILED if tally.failed else 0


class _Tally:
    """Where outcomes go, and how many there were; those of an earlier call count, too."""

    def __init__(self, say: Callable[[str], None], done: dict[str, bool]) -> None:
        self.say = say
        self.count = len(done)
        self.failed = sum(not ok for ok in done.values())
        self.bar: Any = None

    def take(self, outcome: Outcome) -> None:
        self.say(outcome.line())
        self.count += 1
        self.failed += not outcome.ok
        if self.bar is not None:
            self.bar.set_postfix(failed=self.failed, refresh=False)
            self.bar.update()


def _bar(total: int | None, done: int) -> Any:
    """A progress bar on the terminal that is stderr; None without a terminal, or without tqdm."""
    if not os.isatty(2):
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, initial=done, unit="job", dynamic_ncols=True)


def _amount(inv: Invocation, option: str, read: Callable[[str], int]) -> int:
    """What a text option amounts to; 0 when it was not given."""
    given = text(inv.options, option.replace("-", "_"))
    if given is None:
        return 0
    try:
        return read(given)
    except RtError as error:
        raise RtError(f"--{option}: {error.message}", hint=error.hint) from None


def _at_once(inv: Invocation) -> int:
    """How many containers may run at a time."""
    given = number(inv.options, "jobs")
    if given > _MOST_AT_ONCE:
        raise RtError(f"--jobs: at most {_MOST_AT_ONCE}")
    return given or len(os.sched_getaffinity(0))


def _source(inv: Invocation) -> tuple[Iterable[bytes], str, int | None]:
    """The lines, what to call them, and how many jobs there are.

    A file is checked to its end before anything runs; a pipe is read as jobs get free.
    """
    path = inv.args[0] if inv.args else "-"
    if path == "-":
        return sys.stdin.buffer, "standard input", None
    try:
        file = open(path, "rb")
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else "not a path"
        raise RtError(
            f"cannot read {path}: {reason}", hint="name a file of JSON lines, or - for a pipe"
        ) from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file, path, None
    total = sum(1 for _ in read_jobs(file, path))
    file.seek(0)
    return file, path, total
