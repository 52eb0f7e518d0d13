"""Jobs in parallel over one sandbox: so many at a time, results as they come, a clean end at any moment.

Theory of operation: workers, one a container in flight, take jobs one by one, each when it is free: a stream
of jobs may be endless. Their containers come from a pool, which makes new ones meanwhile. Results go to the
one who iterates. Whoever stops early (an error, Ctrl-C, a reader that went away) leaves the loop: then every
container is killed, and what that cut short has no result.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from rootless_rt.api.config import spec_of
from rootless_rt.api.pool import Pool
from rootless_rt.api.process import Process
from rootless_rt.api.sandbox import Sandbox
from rootless_rt.api.threads import leave_signals
from rootless_rt.batch.jobs import Job
from rootless_rt.batch.outcomes import Outcome
from rootless_rt.errors import RtError
from rootless_rt.plan.model import Degradation

_MOST_READY = 16  # containers made before there is a job for them


class Crew:
    """`size` workers for the sandbox of one bundle, whose directory becomes this program's working directory.

    Jobs have no terminal, whatever the config says of one.
    `timeout` is in seconds, for jobs that do not say; `max_output` in bytes of each stream. The rest is as of
    `Sandbox`. A context manager: at the end of the block nothing runs. Raises RtError.
    """

    def __init__(
        self,
        bundle: str,
        size: int,
        *,
        timeout: float | None = None,
        max_output: int | None = None,
        overlay: bool = False,
        degrade: str = "warn",
        cgroup_manager: str = "auto",
    ) -> None:
        spec = spec_of(bundle)
        process = {key: value for key, value in spec.data["process"].items() if key != "consoleSize"}
        config = {**spec.data, "process": {**process, "terminal": False}}
        os.chdir(spec.bundle)  # from where relative names in a config count
        self._sandbox = Sandbox(
            config, spec.rootfs, overlay=overlay, degrade=degrade, cgroup_manager=cgroup_manager
        )
        self.degradations: tuple[Degradation, ...] = self._sandbox.degradations
        self._pool = Pool(self._sandbox, min(size, _MOST_READY))
        self._size = size
        self._timeout = timeout
        self._max_output = max_output
        self._stopped = False
        self._running: set[Process] = set()
        self._state = threading.Condition()  # guards the two above
        self._taking = threading.Lock()
        self._told: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """The outcomes, as jobs end. An error of `jobs` itself is raised once those before it have ended."""
        source = iter(jobs)
        for _ in range(self._size):
            # Not joined: one may wait for a line of a pipe that never comes.
            threading.Thread(target=self._work, args=(source,), daemon=True).start()
        left, problem = self._size, None
        while left:
            told = self._told.get()
            if isinstance(told, Outcome):
                yield told
            else:
                left -= 1
                problem = problem or told
        if problem is not None:
            raise problem

    def rest(self) -> Iterator[Outcome]:
        """After `stop`: outcomes that were there, and had not been taken by `run`."""
        while not self._told.empty():
            told = self._told.get()
            if isinstance(told, Outcome):
                yield told

    def _work(self, source: Iterator[Job]) -> None:
        problem = None
        leave_signals()
        try:
            while (job := self._take(source)) is not None:
                outcome = self._do(job)
                if outcome is not None:
                    self._told.put(outcome)
        except BaseException as error:
            problem = error
        self._told.put(problem)

    def _take(self, source: Iterator[Job]) -> Job | None:
        with self._taking:
            return None if self._stopped else next(source, None)

    def _do(self, job: Job) -> Outcome | None:
        """One job from its start to its end; None when it was cut short."""
        given: dict[str, Any] = {"env": job.env, "cwd": job.cwd, "stdin": job.stdin}
        try:
            if job.limits is None:
                process = self._pool.popen(job.args, **given)
            else:  # another config: none like it is ready
                process = self._sandbox.popen(job.args, limits=job.limits, **given)
        except RtError as error:
            return None if self._stopped else Outcome(job.id, error=error)
        with process:
            with self._state:
                self._running.add(process)
                if self._stopped:
                    process.kill()
            try:
                result = process.communicate(
                    timeout=job.timeout or self._timeout, max_output=self._max_output
                )
            finally:
                with self._state:
                    self._running.discard(process)
                    cut_short = self._stopped
                    self._state.notify_all()
        if cut_short:
            return None
        fresh = tuple(item.line() for item in result.degradations if item not in self.degradations)
        return Outcome(job.id, result, degradations=fresh)

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._pool.close()
        self._sandbox.close()

    def stop(self) -> None:
        """Kill what runs, and wait for its end; nothing starts any more."""
        with self._state:
            self._stopped = True
            for process in self._running:
                process.kill()
            self._state.wait_for(lambda: not self._running)
