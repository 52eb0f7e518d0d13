"""Threads for what blocks, and what an event loop waits for meanwhile.

Knows the calls that make and end a process; must not know sandboxes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rootless_rt.api.errors import Closed
from rootless_rt.api.exchange import Exchange, Served
from rootless_rt.api.process import Process
from rootless_rt.api.result import Result

_T = TypeVar("_T")


class Looped(Exchange):
    """An exchange that the event loop waits for."""

    def __init__(self, process: Served, most: int | None) -> None:
        super().__init__(process, None, most)
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self.loop.create_future()

    def watch(self, fd: int, call: Callable[[], object], *, writes: bool = False) -> None:
        (self.loop.add_writer if writes else self.loop.add_reader)(fd, call)

    def unwatch(self, fd: int, *, writes: bool = False) -> None:
        (self.loop.remove_writer if writes else self.loop.remove_reader)(fd)

    def on_end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class Workers:
    """The threads for what blocks."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._start()

    def _start(self) -> None:
        self._threads = ThreadPoolExecutor(self._count, "rootless_rt.aio")
        self._started_by = os.getpid()

    async def call(self, work: Callable[[], _T]) -> _T:
        return await asyncio.wrap_future(self._submit(work))

    def _submit(self, work: Callable[[], _T]) -> Future[_T]:
        if self._started_by != os.getpid():  # a copy has none of the threads
            self._start()
        try:
            return self._threads.submit(work)
        except RuntimeError:  # they have been shut down
            raise Closed("the sandbox is closed") from None

    async def started(self, start: Callable[[], Process]) -> Process:
        """What `start` gives; if this is cancelled meanwhile, it is closed again."""
        future = self._submit(start)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(_close)
            raise

    async def closed(self, process: Process) -> None:
        """Close a process, whether this is cancelled or not."""
        await asyncio.shield(self.call(process.close))

    async def run(self, start: Callable[[], Process], timeout: float | None, most: int | None) -> Result:
        process = await self.started(start)
        exchange = Looped(process, most)
        timer = None
        try:
            exchange.begin()
            if timeout is not None:
                timer = exchange.loop.call_later(timeout, process.kill_for, "time")
            await exchange.ended
        except BaseException:
            exchange.stop()
            await self.closed(process)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        said = exchange.finish()
        if process.ends_at_once:
            return process.concluded(*said)
        return await asyncio.shield(self.call(lambda: process.concluded(*said)))

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)


def _close(future: Future[Process]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()
