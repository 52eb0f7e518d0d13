"""A pool: containers of a sandbox that are made before they are needed.

Theory of operation: a container of the pool is made up to where `rt create` would leave it, without knowing
what it will execute; that comes as the rest of its plan. One thread makes new ones in place of those that are
taken. Who finds none ready makes one for itself: nobody waits for that thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Sequence

from rootless_rt.api.config import Environment
from rootless_rt.api.errors import Closed, told
from rootless_rt.api.launching import Run
from rootless_rt.api.process import Process
from rootless_rt.api.result import Result
from rootless_rt.api.sandbox import Sandbox
from rootless_rt.api.streams import DEVNULL, PIPE, Source, Streams, Target
from rootless_rt.api.threads import leave_signals
from rootless_rt.errors import RtError

_MOST = 1000


class Pool:
    """`size` containers of a sandbox that only wait to be told what to execute.

    `close` it, or use it as a context manager; the sandbox is the caller's to close, after its pools. Threads
    may share a pool. Raises ValueError for a size that is none.
    """

    def __init__(self, sandbox: Sandbox, size: int = 4) -> None:
        if not 0 < size <= _MOST:
            raise ValueError(f"size: {size} is not between 1 and {_MOST}")
        self._sandbox = sandbox
        self._size = size
        self._ready: deque[Run] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._failure: RtError | None = None
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._refill, name="rootless_rt.Pool", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> int:
        """How many containers wait at this moment."""
        return len(self._ready)

    def fill(self, timeout: float | None = None) -> bool:
        """Wait until all of them are ready; whether they are. Raises RtError when none can be made."""
        with self._change:
            self._change.wait_for(lambda: self._failure or self._closed or self._is_full(), timeout)
            if self._failure is not None:
                raise self._failure
            return self._is_full()

    def run(
        self,
        args: Sequence[str] | None = None,
        *,
        env: Environment | None = None,
        cwd: str | None = None,
        stdin: Source = DEVNULL,
        stdout: Target = PIPE,
        stderr: Target = PIPE,
        timeout: float | None = None,
        max_output: int | None = None,
    ) -> Result:
        """Run a program in a container that is ready, to its end; as `Sandbox.run`. Raises RtError."""
        with self.started(args, env, cwd, Streams(stdin, stdout, stderr), files=False) as process:
            return process.communicate(timeout=timeout, max_output=max_output)

    def popen(
        self,
        args: Sequence[str] | None = None,
        *,
        env: Environment | None = None,
        cwd: str | None = None,
        stdin: Source = DEVNULL,
        stdout: Target = PIPE,
        stderr: Target = PIPE,
    ) -> Process:
        """Start a program in a container that is ready; as `Sandbox.popen`. Raises RtError.

        A `cwd` that is not the config's must exist there, and be one that the program's user may enter.
        """
        return self.started(args, env, cwd, Streams(stdin, stdout, stderr))

    def started(
        self,
        args: Sequence[str] | None,
        env: Environment | None,
        cwd: str | None,
        streams: Streams,
        *,
        files: bool = True,
    ) -> Process:
        """As `popen`; for who only wants to `communicate`, without `files`."""
        begun = time.monotonic()
        try:
            task = self._sandbox.compiled.with_task(args, env, cwd)
            with told():
                try:
                    run = self._take()
                    run.go(task, streams.stdio)
                finally:
                    # Not before: to make another would take processor time from this one.
                    with self._change:
                        self._change.notify_all()
            streams.sent()
            return Process(task.args, run, streams, begun, files=files)
        except BaseException:
            streams.close()
            raise

    def _take(self) -> Run:
        while True:
            with self._change:
                if self._closed:
                    raise Closed("the pool is closed")
                self._failure = None
                run = self._ready.popleft() if self._ready else None
            if run is None:
                return self._made()
            if run.waits:
                return run
            run.discard()

    def _made(self) -> Run:
        return self._sandbox.made(self._sandbox.compiled, lambda run, keeper: run.prepare(self._null, keeper))

    def _is_full(self) -> bool:
        return len(self._ready) >= self._size

    def _refill(self) -> None:
        """Until the pool is closed. After a failure it waits for somebody to ask for a container again."""
        leave_signals()
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or not (self._is_full() or self._failure))
                if self._closed:
                    return
            run = failure = None
            try:
                with told():
                    run = self._made()
            except RtError as error:
                failure = error
            except OSError as error:
                failure = RtError(f"cannot make a container for the pool: {error}")
            with self._change:
                if run is not None and not self._closed:
                    self._ready.append(run)
                    run = None
                self._failure = failure
                self._change.notify_all()
            if run is not None:
                run.discard()

    def close(self) -> None:
        """End the containers that wait; programs that run already go on."""
        with self._change:
            if self._closed:
                return
            self._closed = True
            self._change.notify_all()
        self._thread.join()
        while self._ready:
            self._ready.popleft().discard()
        os.close(self._null)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
