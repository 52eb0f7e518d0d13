"""Runs of which the keeper takes the output: one request, one answer, for an event loop.

Theory of operation: where nobody has to do anything for a run while it is made (`Compiled.needs_nobody`), the
keeper can have it all: it makes the process, reads its pipes, waits for its end, and answers with everything
that was said (`init/captures.c`). So of hundreds of runs the program holds a pidfd each, and nothing blocks
it. The answers of one keeper are read by one event loop. Who cannot have that has to take another way.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import threading
import time
from _socket import CMSG_SPACE, MSG_CMSG_CLOEXEC, MSG_DONTWAIT, SCM_RIGHTS, SOL_SOCKET, socket
from collections import deque
from collections.abc import Callable
from functools import partial

from rootless_rt.api.compiled import Compiled, Task
from rootless_rt.api.errors import told
from rootless_rt.api.keeper import KILLED, TOLD, Keeper, as_ending
from rootless_rt.api.launching import degraded, vanished
from rootless_rt.api.process import result_of
from rootless_rt.api.result import Result
from rootless_rt.api.streams import STDOUT, Source, Streams, Target, is_constant
from rootless_rt.container import processes
from rootless_rt.container.report import failure
from rootless_rt.errors import RtError
from rootless_rt.init import launch
from rootless_rt.plan.model import Degradation

_CAPTURE, _KILL_RUN = 202, 203
_WANTED = struct.Struct("=IIIIQ")  # requests.c, struct wanted
_GIVEN_IN, _GIVEN_OUT, _GIVEN_ERR, _ERR_IS_OUT = 1, 2, 4, 8
_BORN, _RESULT = 1, 2
_BORN_HEAD = struct.Struct("=IIi")
_RESULT_HEAD = struct.Struct("=IIIIII")  # captures.c, struct result: type, id, flags, three sizes; then TOLD
_LONG, _NO_MEMORY, _NOT_MADE = 1 | 2, 4, 8
_PACKET = 1 << 15  # more than the largest answer that comes in a packet
_AT_A_TIME = 64
_MOST_PLAN = 65_000  # bytes: what fits into a request
# Requests that the keeper has not taken yet: more would wait in its socket, and then we for it.
_MOST_WAITING = 100_000
_UNLIMITED = (1 << 64) - 1
_KILL = 9
_END_SECONDS = 10.0
_AGAIN_SECONDS = 0.001


class NotTaken(RtError):
    """The keeper has not begun it: there is another way."""


class _Run:
    """One run, from its request to its answer."""

    __slots__ = (
        "begun",
        "cancelled",
        "compiled",
        "ended",
        "fds",
        "kill_by_keeper",
        "killed",
        "killed_for",
        "number",
        "pidfd",
        "plan",
        "request",
        "streams",
        "task",
    )

    def __init__(self, compiled: Compiled, number: int, task: Task, ended: asyncio.Future[Result]) -> None:
        self.begun = time.monotonic()
        self.plan = (compiled.first or b"") + compiled.wire(number, task)
        self.compiled = compiled
        self.number = number
        self.task = task
        self.ended = ended
        self.streams: Streams | None = None
        self.request = b""
        self.fds: list[int] = []
        self.pidfd = -1
        self.kill_by_keeper: Callable[[], None] | None = None
        self.killed = self.cancelled = False
        self.killed_for = ""

    def kill(self, reason: str = "") -> None:
        """End it, now or when it is born."""
        self.killed = True
        self.killed_for = self.killed_for or reason
        if self.pidfd >= 0:
            processes.send_signal(self.pidfd, _KILL)
        elif self.kill_by_keeper is not None:
            self.kill_by_keeper()


class Captured:
    """The captured runs of one sandbox. All methods are for the event loop that has called `attach`."""

    def __init__(self) -> None:
        self._made_by = os.getpid()
        self._attaching = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeper: Keeper | None = None
        self._sock: socket | None = None
        self._runs: dict[int, _Run] = {}
        self._queue: deque[_Run] = deque()
        self._unborn = 0  # bytes of requests
        self._timer: asyncio.TimerHandle | None = None  # to try again to send

    def serves(self) -> bool:
        """Whether it has a keeper that lives, and is of this event loop."""
        keeper = self._keeper
        return keeper is not None and keeper.lives and self._loop is asyncio.get_running_loop()

    def attach(self, keeper: Keeper) -> bool:
        """Take the answers of this keeper. False while another event loop does; raises Lost."""
        loop = asyncio.get_running_loop()
        if self._made_by != os.getpid():
            self._leave_to_original()
        with self._attaching:
            if self._loop not in (None, loop) and not self._loop.is_closed():
                return False
            self.detach()
            self._loop = loop
        # Of our own: a thread may close the keeper's while the event loop still watches it.
        self._sock, self._keeper = keeper.connection(), keeper
        self._loop.add_reader(self._sock.fileno(), self._read)
        return True

    def _leave_to_original(self) -> None:
        """In a copy of the program (fork): what is under way is not its own, nor is that event loop."""
        for run in self._runs.values():
            _let_go(run)
        self._runs, self._keeper = {}, None
        self._loop = self._timer = None
        self._attaching = threading.Lock()
        self.detach()
        self._made_by = os.getpid()

    async def close(self) -> None:
        """End the runs under way, and take no more answers."""
        if self._loop not in (None, asyncio.get_running_loop()) and not self._loop.is_closed():
            return  # it will find that the keeper has ended
        while self._runs and self._sock is not None:
            for run in self._runs.values():
                run.kill()
            await asyncio.wait({run.ended for run in self._runs.values()})
        self.detach()

    def detach(self) -> None:
        """Take no more answers. Runs under way are over: their keeper has gone, or will with its sandbox."""
        sock, self._sock, keeper, self._keeper = self._sock, None, self._keeper, None
        if sock is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(sock.fileno())
            sock.close()
        runs, self._runs = self._runs, {}
        unsent, self._queue = self._queue, deque()
        self._unborn = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for run in runs.values():
            run.kill()
        for run in runs.values():
            if run.pidfd >= 0:
                processes.wait_end(run.pidfd, _END_SECONDS)
            if keeper is not None:
                keeper.count(-1)
            self._fail(run, NotTaken(KILLED) if run in unsent else vanished())

    async def run(
        self,
        compiled: Compiled,
        number: int,
        task: Task,
        stdin: Source,
        stdout: Target,
        stderr: Target,
        timeout: float | None,
        most: int | None,
    ) -> Result:
        """A run from its request to its answer. Cancelled, it is killed. Raises RtError, NotTaken."""
        loop, keeper = self._loop, self._keeper
        assert loop is not None and keeper is not None
        run = _Run(compiled, number, task, loop.create_future())
        if len(run.plan) > _MOST_PLAN:
            raise NotTaken("too long for one request")
        streams = Streams(stdin, stdout, stderr, taken=True)
        self._ask(run, streams, is_constant(stderr, STDOUT), most)
        timer = None if timeout is None else loop.call_later(timeout, run.kill, "time")
        try:
            return await run.ended
        except asyncio.CancelledError:
            await self._cancel(run, loop)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _ask(self, run: _Run, streams: Streams, err_is_out: bool, most: int | None) -> None:
        assert self._keeper is not None
        flags = 0
        for bit, fd in zip((_GIVEN_IN, _GIVEN_OUT, _GIVEN_ERR), streams.given, strict=True):
            if fd >= 0:
                flags |= bit
                run.fds.append(fd)
        if err_is_out and not flags & _GIVEN_ERR:
            flags |= _ERR_IS_OUT
        limit = _UNLIMITED if most is None else min(max(0, int(most)), _UNLIMITED)
        head = _WANTED.pack(_CAPTURE, run.number, flags, len(run.compiled.first or b""), limit)
        run.request = head + run.plan
        run.streams = streams
        self._runs[run.number] = run
        self._keeper.count(1)
        self._queue.append(run)
        self._send()

    def _send(self) -> None:
        """Requests, as many as the keeper will soon take."""
        while self._queue and self._sock is not None:
            run = self._queue[0]
            size = len(run.request)
            if self._unborn and self._unborn + size > _MOST_WAITING:
                return
            rights = b"".join([fd.to_bytes(4, sys.byteorder) for fd in run.fds])
            try:
                self._sock.sendmsg(
                    [run.request], [(SOL_SOCKET, SCM_RIGHTS, rights)] if rights else [], MSG_DONTWAIT
                )
            except BlockingIOError:
                # Somebody else's are waiting, too: with an answer, or soon.
                self._send_later()
                return
            except (BrokenPipeError, ConnectionResetError):
                self._lose()
                return
            except OSError as error:  # of this request: a descriptor that was closed meanwhile
                self._queue.popleft()
                self._forget(run)
                self._fail(run, error)
                continue
            self._queue.popleft()
            self._unborn += size
            if run.streams is not None:
                run.streams.sent()

    def _send_later(self) -> None:
        if self._loop is not None and self._timer is None:
            self._timer = self._loop.call_later(_AGAIN_SECONDS, self._send_again)

    def _send_again(self) -> None:
        self._timer = None
        self._send()

    def _forget(self, run: _Run) -> None:
        """One that has never been asked for."""
        self._runs.pop(run.number, None)
        if self._keeper is not None:
            self._keeper.count(-1)

    def _kill(self, number: int) -> None:
        """Of a run whose pidfd we had no room for: by the keeper, which knows whether it still is."""
        request = (_KILL_RUN).to_bytes(4, sys.byteorder) + number.to_bytes(4, sys.byteorder)
        try:
            if self._sock is not None:
                self._sock.sendmsg([request], [], MSG_DONTWAIT)
        except BlockingIOError:
            assert self._loop is not None
            self._loop.call_later(_AGAIN_SECONDS, self._kill, number)
        except OSError:
            pass  # the keeper has ended, which is found out soon

    async def _cancel(self, run: _Run, loop: asyncio.AbstractEventLoop) -> None:
        run.cancelled = True
        if run in self._queue:
            self._queue.remove(run)
            self._forget(run)
            _let_go(run)
            return
        if run.number in self._runs:
            run.ended = loop.create_future()
            run.kill()
            await run.ended

    def _read(self) -> None:
        """Take what the keeper says, but let others have their turn."""
        for _ in range(_AT_A_TIME):
            if self._sock is None:
                return
            try:
                data, rights, _, _ = self._sock.recvmsg(
                    _PACKET, CMSG_SPACE(4), MSG_DONTWAIT | MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError:
                data, rights = b"", []
            if not data:
                self._lose()
                return
            fd = -1
            for level, kind, content in rights:
                if level == SOL_SOCKET and kind == SCM_RIGHTS and len(content) >= 4:
                    fd = int.from_bytes(content[:4], sys.byteorder)
            if int.from_bytes(data[:4], sys.byteorder) == _BORN:
                self._born(_BORN_HEAD.unpack(data)[1], fd)
            else:
                self._answered(data, fd)

    def _lose(self) -> None:
        """The keeper has ended: whoever needs one has to start another."""
        keeper = self._keeper
        self.detach()
        if keeper is not None:
            keeper.close()

    def _born(self, number: int, pidfd: int) -> None:
        run = self._runs.get(number)
        if run is None:
            if pidfd >= 0:
                os.close(pidfd)
            return
        self._taken(run)
        run.pidfd = pidfd
        if pidfd < 0:  # this program has no descriptor left
            run.kill_by_keeper = partial(self._kill, number)
        if run.killed:
            run.kill()
        self._send()

    def _taken(self, run: _Run) -> None:
        self._unborn -= len(run.request)
        run.request = b""

    def _answered(self, data: bytes, fd: int) -> None:
        _, number, flags, *sizes = _RESULT_HEAD.unpack_from(data)
        run = self._runs.pop(number, None)
        if run is None:
            if fd >= 0:
                os.close(fd)
            return
        self._taken(run)
        if self._keeper is not None:
            self._keeper.count(-1)
        try:
            with told():
                self._succeed(run, data, flags, sizes, fd)
        except Exception as error:  # whoever waits for it is told: no memory for the output, for one
            self._fail(run, error)
        self._send()

    def _succeed(self, run: _Run, data: bytes, flags: int, sizes: list[int], fd: int) -> None:
        """Give the run its result. Raises RtError, MemoryError."""
        at = _RESULT_HEAD.size + TOLD.size
        content = data[at:] if fd < 0 else _whole(fd)
        ends = (sizes[0], sizes[0] + sizes[1], sum(sizes))
        if len(content) < ends[2] or flags & _NO_MEMORY:
            raise RtError("the output could not be kept: out of memory", hint="set max_output")
        if flags & _NOT_MADE:
            problem = int.from_bytes(data[_RESULT_HEAD.size : _RESULT_HEAD.size + 8], sys.byteorder)
            raise RtError(
                f"the process of a run cannot be made: {os.strerror(problem).lower()}",
                hint="too many at a time? ulimit -n and ulimit -u are limits",
            )
        notes = _judged(run, content[ends[1] : ends[2]])
        ending = as_ending(data[_RESULT_HEAD.size : at])
        stdout, stderr = content[: ends[0]], content[ends[0] : ends[1]]
        reason = run.killed_for or ("output" if flags & _LONG else "")
        result = result_of(run.task.args, ending, run.begun, reason, notes, stdout, stderr)
        _let_go(run)
        if not run.ended.done():
            run.ended.set_result(result)

    def _fail(self, run: _Run, error: Exception) -> None:
        _let_go(run)
        loop = run.ended.get_loop()
        if run.ended.done() or loop.is_closed():
            return
        if run.cancelled:
            run.ended.cancel()
        else:
            run.ended.set_exception(error)


def _let_go(run: _Run) -> None:
    if run.pidfd >= 0:
        os.close(run.pidfd)
        run.pidfd = -1
    if run.streams is not None:
        run.streams.close()


def _whole(fd: int) -> bytes:
    with open(fd, "rb", buffering=0) as file:
        file.seek(0)
        return file.readall()


def _judged(run: _Run, reports: bytes) -> list[Degradation]:
    """What rt-init has said while it made the container. Raises RtError for what was an error."""
    found = list(run.compiled.prepared.plan.degradations)
    at = 0
    while at < len(reports):
        size = int.from_bytes(reports[at : at + 4], sys.byteorder)
        message = launch.Message(reports[at + 4 : at + 4 + size], -1)
        at += 4 + size
        plan = run.compiled.plan_of(run.number, run.task)
        if message.type == launch.MSG_ERROR:
            raise failure(plan, message)
        if message.type == launch.MSG_NOTE:
            found += degraded(plan, message, strict=False)
    return found
