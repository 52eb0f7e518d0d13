"""The pipes of one process, served together until it has ended.

Knows pipes; must not know what waits for them: `Polled` waits by itself, `aio` has the event loop do so. What
a process wrote is there once it has ended, and in a sandbox nobody is left who would write more.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Protocol

from rootless_rt.api.streams import Pipes

_CHUNK = 1 << 16


class Served(Protocol):
    """What is needed of a process."""

    pipes: Pipes

    def fileno(self) -> int:
        """A descriptor that can be read once it has ended."""

    def kill_for(self, reason: str) -> None:
        """Kill it because of its "time" or its "output"."""

    def close_pipes(self) -> None:
        """Close our ends."""


class Exchange:
    """Writes `input` to stdin, and keeps what comes from stdout and stderr, at most `most` bytes of each.

    `begin`, then the calls given to `watch` whenever their descriptor is ready, up to `on_end`; `finish`.
    """

    def __init__(self, process: Served, input: bytes | None, most: int | None) -> None:
        self._process = process
        self._left = memoryview(input or b"")
        self._most = most
        self._parts: dict[int, bytearray] = {}
        self._said = (bytearray(), bytearray())
        self._in = -1

    def watch(self, fd: int, call: Callable[[], object], *, writes: bool = False) -> None:
        """Call whenever `fd` can be read, or written."""
        raise NotImplementedError

    def unwatch(self, fd: int, *, writes: bool = False) -> None:
        """No more."""
        raise NotImplementedError

    def on_end(self) -> None:
        """The process has ended."""
        raise NotImplementedError

    def begin(self) -> None:
        """Watch everything there is."""
        process = self._process
        for which, data in enumerate(self._said, 1):
            fd = process.pipes.fd(which)
            if fd >= 0:
                os.set_blocking(fd, False)
                self._parts[fd] = data
                self.watch(fd, lambda fd=fd: self._read(fd))  # type: ignore[misc]
        self._in = process.pipes.fd(0)
        if self._in >= 0:
            os.set_blocking(self._in, False)
            self.watch(self._in, self._feed, writes=True)
        self.watch(process.fileno(), self.on_end)

    def finish(self) -> tuple[bytes, bytes]:
        """Stop watching, take what is still there, and close the pipes; what stdout and stderr have said."""
        for fd in list(self._parts):
            while self._read(fd):
                pass
        self.stop()
        return bytes(self._said[0]), bytes(self._said[1])

    def stop(self) -> None:
        """Stop watching, and close the pipes."""
        for fd in list(self._parts):
            self.unwatch(fd)
        self._parts.clear()
        if self._in >= 0:
            self.unwatch(self._in, writes=True)
            self._in = -1
        if self._process.fileno() >= 0:
            self.unwatch(self._process.fileno())
        self._process.close_pipes()

    def _read(self, fd: int) -> bool:
        """Read what is there; whether there may be more."""
        data = self._parts[fd]
        try:
            fresh = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        data += fresh
        exceeded = self._most is not None and len(data) > self._most
        if exceeded:
            del data[self._most :]
            self._process.kill_for("output")
        if exceeded or not fresh:
            self.unwatch(fd)
            del self._parts[fd]
            return False
        return True

    def _feed(self) -> None:
        try:
            self._left = self._left[os.write(self._in, self._left[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._left = memoryview(b"")  # it reads no more
        if not self._left:
            self.unwatch(self._in, writes=True)
            self._in = -1
            self._process.pipes.close(0)


class Polled(Exchange):
    """One that waits by itself, in the thread that calls `run`."""

    def __init__(self, process: Served, input: bytes | None, most: int | None) -> None:
        super().__init__(process, input, most)
        self._poll = select.poll()
        self._calls: dict[int, Callable[[], object]] = {}
        self._ended = False

    def watch(self, fd: int, call: Callable[[], object], *, writes: bool = False) -> None:
        self._poll.register(fd, select.POLLOUT if writes else select.POLLIN)
        self._calls[fd] = call

    def unwatch(self, fd: int, *, writes: bool = False) -> None:
        if self._calls.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def on_end(self) -> None:
        self._ended = True

    def run(self, timeout: float | None) -> tuple[bytes, bytes]:
        """Serve the process to its end; it is killed when `timeout` seconds are over."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self.begin()
        while not self._ended:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = self._poll.poll(None if left is None else left * 1000)
            if deadline is not None and time.monotonic() >= deadline:
                deadline = None
                self._process.kill_for("time")
            for fd, _ in ready:
                call = self._calls.get(fd)
                if call is not None:
                    call()
        return self.finish()
