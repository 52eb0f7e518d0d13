"""Sandboxes and pools for asyncio.

Theory of operation: where it can have a run, the keeper does (`captured`). Else making a container takes some
milliseconds of calls that block, so a few threads do it; all that lasts, waiting and reading, is the event
loop's, by descriptors. Hundreds may run at a time. Whatever is cancelled is killed and put away before the
cancellation goes on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rootless_rt.api.captured import Captured, NotTaken
from rootless_rt.api.compiled import Compiled
from rootless_rt.api.config import Bundle, Environment, Limits
from rootless_rt.api.errors import Expired, told
from rootless_rt.api.keeper import Lost
from rootless_rt.api.pool import Pool
from rootless_rt.api.process import Process
from rootless_rt.api.result import Result
from rootless_rt.api.sandbox import Sandbox
from rootless_rt.api.streams import DEVNULL, PIPE, Source, Streams, Target, is_constant
from rootless_rt.api.workers import Workers


class AsyncProcess:
    """A running process. As an asynchronous context manager it is killed at the end of the block.

    args    its program and arguments
    pid     its number on the host
    stdin   an asyncio.StreamWriter, stdout and stderr asyncio.StreamReaders, where PIPE was asked for
    """

    def __init__(self, process: Process, workers: Workers) -> None:
        self.args = process.args
        self.pid = process.pid
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._process = process
        self._workers = workers
        self._transports: list[asyncio.BaseTransport] = []
        self._end: asyncio.Task[None] | None = None

    async def connect(self) -> AsyncProcess:
        """Give the pipes to the event loop; `popen` has done so."""
        loop = asyncio.get_running_loop()
        process = self._process
        self.stdout, self.stderr = [await self._reader(file) for file in (process.stdout, process.stderr)]
        if process.stdin is not None:
            made = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, process.stdin)
            self.stdin = asyncio.StreamWriter(*made, None, loop)
            self._transports.append(made[0])
        return self

    async def _reader(self, file: Any) -> asyncio.StreamReader | None:
        if file is None:
            return None
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), file
        )
        self._transports.append(transport)
        return reader

    def send_signal(self, number: int) -> None:
        """Send a signal to it; nothing happens once it has ended. SIGKILL reaches all of its processes."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL: it ends, with everything that it has started."""
        self._process.kill()

    async def wait(self, timeout: float | None = None) -> Result:
        """Wait for its end, at most `timeout` seconds. Raises Expired; it still runs then."""
        if self._process.fileno() >= 0:
            if self._end is None:
                self._end = asyncio.create_task(self._watch())
            try:
                await asyncio.wait_for(asyncio.shield(self._end), timeout)
            except TimeoutError:
                raise Expired(f"{self.args[0]}: still runs after {timeout} s") from None
        return await self._workers.call(self._process.finish)

    async def _watch(self) -> None:
        loop, fd = asyncio.get_running_loop(), self._process.fileno()
        ended = asyncio.Event()
        loop.add_reader(fd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(fd)

    async def communicate(self, input: bytes | None = None, timeout: float | None = None) -> Result:
        """Write `input` to its stdin, read its pipes to their end, and wait for it.

        When `timeout` seconds are over it is killed, and the result says so.
        """
        timer = None
        if timeout is not None:
            timer = asyncio.get_running_loop().call_later(timeout, self._process.kill_for, "time")
        try:
            said = await asyncio.gather(_rest(self.stdout), _rest(self.stderr), self._feed(input))
            await self.wait()
            return self._process.concluded(said[0], said[1])
        finally:
            if timer is not None:
                timer.cancel()

    async def _feed(self, input: bytes | None) -> None:
        if self.stdin is None:
            return
        try:
            if input:
                self.stdin.write(input)
                await self.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass  # it reads no more
        self.stdin.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The lines of its stdout as they come."""
        if self.stdout is None:
            raise ValueError("stdout is no pipe")
        async for line in self.stdout:
            yield line

    async def close(self) -> None:
        """Kill it if it runs, close its pipes, and put away what is left of it."""
        if self._end is not None:
            self._end.cancel()
        for transport in self._transports:
            transport.close()
        await self._workers.closed(self._process)

    async def __aenter__(self) -> AsyncProcess:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _rest(reader: asyncio.StreamReader | None) -> bytes:
    return await reader.read() if reader is not None else b""


class AsyncSandbox:
    """A `Sandbox` for asyncio: the same arguments and the same behaviour, but `run` is awaited.

    `workers` is how many containers are made at the same time; as many as one likes can run. Compiling the
    config is done here, and takes some milliseconds. Close it, or use it as an asynchronous context manager.
    """

    def __init__(
        self,
        bundle: Bundle,
        rootfs: str | os.PathLike[str] | None = None,
        *,
        args: Sequence[str] | None = None,
        env: Environment | None = None,
        cwd: str | None = None,
        limits: Limits | None = None,
        mounts: Sequence[Mapping[str, Any]] = (),
        overlay: bool = False,
        degrade: str = "warn",
        cgroup_manager: str = "auto",
        workers: int = 4,
    ) -> None:
        self.sandbox = Sandbox(
            bundle,
            rootfs,
            args=args,
            env=env,
            cwd=cwd,
            limits=limits,
            mounts=mounts,
            overlay=overlay,
            degrade=degrade,
            cgroup_manager=cgroup_manager,
        )
        self.workers = Workers(workers)
        self._captured = Captured()
        self._under_way = 0

    def run(
        self,
        args: Sequence[str] | None = None,
        *,
        env: Environment | None = None,
        cwd: str | None = None,
        limits: Limits | None = None,
        mounts: Sequence[Mapping[str, Any]] = (),
        stdin: Source = DEVNULL,
        stdout: Target = PIPE,
        stderr: Target = PIPE,
        timeout: float | None = None,
        max_output: int | None = None,
    ) -> Coroutine[Any, Any, Result]:
        """Run a container to its end; as `Sandbox.run`. When it is cancelled, the container is killed."""

        def start() -> Process:
            streams = Streams(stdin, stdout, stderr)
            return self.sandbox.started(args, env, cwd, limits, mounts, streams, files=False)

        async def run() -> Result:
            self._under_way += 1
            try:
                compiled = self._to_capture(limits, mounts, stdin)
                if compiled is not None and await self._can_capture():
                    number, task = self.sandbox.number(), compiled.with_task(args, env, cwd)
                    with suppress(NotTaken):
                        return await self._captured.run(
                            compiled, number, task, stdin, stdout, stderr, timeout, max_output
                        )
                return await self.workers.run(start, timeout, max_output)
            finally:
                self._under_way -= 1

        return run()

    def _to_capture(
        self, limits: Limits | None, mounts: Sequence[Mapping[str, Any]], stdin: Source
    ) -> Compiled | None:
        """What is to be run, if the keeper can have it; one alone is the quicker with what was made ahead."""
        compiled = self.sandbox.known(limits, mounts)
        if compiled is None or not compiled.needs_nobody or self._under_way == 1 or is_constant(stdin, PIPE):
            return None
        return compiled

    async def _can_capture(self) -> bool:
        """Whether there is a keeper, and this event loop gets its answers. Raises RtError."""
        if self._captured.serves():
            return True
        with told():
            keeper = await self.workers.call(self.sandbox.keeper)
            with suppress(Lost):
                return self._captured.serves() or self._captured.attach(keeper)
        return False

    async def popen(
        self,
        args: Sequence[str] | None = None,
        *,
        env: Environment | None = None,
        cwd: str | None = None,
        limits: Limits | None = None,
        mounts: Sequence[Mapping[str, Any]] = (),
        stdin: Source = DEVNULL,
        stdout: Target = PIPE,
        stderr: Target = PIPE,
    ) -> AsyncProcess:
        """Start a container and return while it runs; as `Sandbox.popen`."""

        def start() -> Process:
            return self.sandbox.popen(
                args,
                env=env,
                cwd=cwd,
                limits=limits,
                mounts=mounts,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
            )

        return await AsyncProcess(await self.workers.started(start), self.workers).connect()

    async def close(self) -> None:
        """End the runs under way, and let go of what is kept for them."""
        await self._captured.close()
        await self.workers.call(self.sandbox.close)
        await self.workers.close()

    async def __aenter__(self) -> AsyncSandbox:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncPool:
    """A `Pool` of an AsyncSandbox, for asyncio; it is closed before its sandbox."""

    def __init__(self, sandbox: AsyncSandbox, size: int = 4) -> None:
        self.pool = Pool(sandbox.sandbox, size)
        self._workers = sandbox.workers

    async def fill(self, timeout: float | None = None) -> bool:
        """Wait until all containers are ready; whether they are. Raises RtError when none can be made."""
        return await self._workers.call(lambda: self.pool.fill(timeout))

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
    ) -> Coroutine[Any, Any, Result]:
        """Run a program in a container that is ready; as `Pool.run`. When it is cancelled, that is killed."""

        def start() -> Process:
            return self.pool.started(args, env, cwd, Streams(stdin, stdout, stderr), files=False)

        return self._workers.run(start, timeout, max_output)

    async def popen(
        self,
        args: Sequence[str] | None = None,
        *,
        env: Environment | None = None,
        cwd: str | None = None,
        stdin: Source = DEVNULL,
        stdout: Target = PIPE,
        stderr: Target = PIPE,
    ) -> AsyncProcess:
        """Start a program in a container that is ready; as `Pool.popen`."""

        def start() -> Process:
            return self.pool.popen(args, env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr)

        return await AsyncProcess(await self._workers.started(start), self._workers).connect()

    async def close(self) -> None:
        """End the containers that wait; programs that run already go on."""
        await self._workers.call(self.pool.close)

    async def __aenter__(self) -> AsyncPool:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
