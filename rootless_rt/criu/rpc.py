"""One piece of work for CRIU: `criu swrk`, a request, its notifications, the answer.

CRIU is started with one end of a SOCK_SEQPACKET pair (criu.org, "RPC", swrk mode). Processes that it restores
become children of this one. It opens the directories of images and of its log through the descriptors that
the request names, which are numbers of this process.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from select import POLLIN, poll
from socket import AF_UNIX, SOCK_SEQPACKET, recv_fds, socketpair
from typing import Any

from rootless_rt.criu import log, messages, program
from rootless_rt.errors import RtError

Notified = Callable[[str, int, int], None]
"""(what CRIU has come to, the process id that it tells or 0, a descriptor or -1 which is the callee's)."""

_MOST = 1 << 20
_END_SECONDS = 10
_ANSWER_SECONDS = 20


class Failed(RtError):
    """CRIU refused or gave up; `said` is its own first error, or empty."""

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said


class Ended(Failed):
    """It is gone without an answer."""


class Silent(Failed):
    """It said nothing, and was ended."""


class Worker:
    """A started criu that waits for its request. A context manager: left early, criu is ended."""

    def __init__(
        self,
        path: str,
        fds: Sequence[int] = (),
        stdio: Sequence[int] | None = None,
        waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
        umask: int = -1,
    ) -> None:
        """Start `path`; `fds` stay open in it under their numbers. Raises RtError.

        `waiting` is entered whenever this process does nothing but wait for criu. `umask` is for the files
        that criu makes; -1 is the caller's.
        """
        self._waiting = waiting
        self._known = messages.load()
        self._socket, far = socketpair(AF_UNIX, SOCK_SEQPACKET)
        standard = stdio if stdio is not None else (subprocess.DEVNULL,) * 3
        try:
            self._process = subprocess.Popen(
                [path, "swrk", str(far.fileno())],
                stdin=standard[0],
                stdout=standard[1],
                stderr=standard[2],
                pass_fds=(far.fileno(), *fds),
                env=program.environment(),
                cwd="/",
                umask=umask,
            )
        except OSError as error:
            self._socket.close()
            raise RtError(
                f"cannot start {path}: {(error.strerror or str(error)).lower()}", hint=program.INSTALL
            ) from None
        finally:
            far.close()

    @property
    def pid(self) -> int:
        """The process id of criu."""
        return self._process.pid

    def options(self) -> Any:
        """An empty `criu_opts`."""
        return self._known.options()

    def ask(self, kind: int, options: Any = None, features: Sequence[str] = ()) -> None:
        """Send the request."""
        request = self._known.request(type=kind)
        if options is not None:
            request.opts.CopyFrom(options)
        for name in features:
            setattr(request.features, name, True)
        self._send(request)

    def _send(self, request: Any) -> None:
        try:
            self._socket.send(request.SerializeToString())
        except OSError as error:
            raise Failed(f"criu ended: {os.strerror(error.errno or 0).lower()}") from None

    def answer(self, kind: int, notified: Notified | None = None, seconds: float | None = None) -> Any:
        """Serve notifications until the answer; returns the response. Raises Failed.

        What `notified` raises goes through, once CRIU has been told to give up, and has done so. Whoever says
        nothing for `seconds`, if given, is ended.
        """
        while True:
            data, fds = self._receive(seconds)
            fd = fds[0] if fds else -1
            for more in fds[1:]:
                os.close(more)
            if not data:
                raise Ended("criu ended without an answer")
            response = self._known.response.FromString(data)
            if response.type != messages.NOTIFY:
                break
            try:
                if notified is not None:
                    notified(response.notify.script, response.notify.pid, fd)
                elif fd >= 0:
                    os.close(fd)
            except BaseException:
                self._reply(False)
                self._drain()
                raise
            self._reply(True)
        if not response.success:
            said = response.cr_errmsg.strip()
            number = response.cr_errno
            why = os.strerror(number).lower() if number else ""
            raise Failed(why or f"criu {messages.KINDS.get(kind, '')} failed", said)
        if response.type != kind:
            raise Failed(f"criu answered {messages.KINDS.get(response.type, response.type)}")
        return response

    def _receive(self, seconds: float | None) -> tuple[bytes, list[int]]:
        """The next message and its descriptors; none when criu has ended. Raises Silent."""
        # What criu has made by then may have its socket too, so that the end of criu is not the end of that.
        ended = os.pidfd_open(self.pid)
        try:
            watch = poll()
            watch.register(ended, POLLIN)
            watch.register(self._socket, POLLIN)
            with self._waiting():
                ready = [fd for fd, _ in watch.poll(None if seconds is None else seconds * 1000)]
            if not ready:
                self.kill()
                raise Silent(f"it does not answer in {seconds} s")
            if self._socket.fileno() not in ready:
                return b"", []
            data, fds, _, _ = recv_fds(self._socket, _MOST, 4)
            return data, fds
        except ConnectionError:  # it has ended with our request unread
            return b"", []
        finally:
            os.close(ended)

    def _reply(self, success: bool) -> None:
        self._send(self._known.request(type=messages.NOTIFY, notify_success=success))

    def _drain(self) -> None:
        """Let CRIU take back what it has done; it notifies of that too, and answers that it has failed."""
        self._socket.settimeout(_END_SECONDS)
        try:
            while True:
                data, fds, _, _ = recv_fds(self._socket, _MOST, 4)
                for fd in fds:
                    os.close(fd)
                if not data or self._known.response.FromString(data).type != messages.NOTIFY:
                    return
                self._reply(True)
        except (OSError, Failed):
            return

    def kill(self) -> None:
        """End criu on the spot: what it has in hand stays as it is."""
        self._process.kill()

    def finish(self) -> int:
        """Nothing more is asked: wait for criu's end; its exit status."""
        self._socket.close()
        try:
            return self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self.kill()  # interrupted: it has not been told, and may wait for something
        self.finish()


def version(path: str) -> int:
    """The version as one number: 3.15 is 31500. Raises RtError when it is too old, for rt or for the kernel,
    or no criu."""
    with Worker(path) as worker:
        try:
            worker.ask(messages.VERSION)
            told = worker.answer(messages.VERSION, seconds=_ANSWER_SECONDS).version
        except Failed as error:
            # Old ones look at the kernel first, and stop at one that they do not know.
            why = "" if isinstance(error, Silent) else program.complaint(path)
            if why:
                hint = log.hint(why) or program.INSTALL
                raise RtError(f"{path} does not work on this kernel: {why}", hint=hint) from None
            raise RtError(
                f"{path} does not speak criu's protocol: {error.message}", hint=program.INSTALL
            ) from None
    number: int = told.major_number * 10000 + told.minor_number * 100 + told.sublevel
    if number < program.OLDEST:
        raise RtError(
            f"{path} is CRIU {program.text(number)}; {program.text(program.OLDEST)} or later is needed",
            hint=program.INSTALL,
        )
    return number


def lacks(path: str, features: Sequence[str]) -> list[str]:
    """Which of these features of the kernel (mem_track, lazy_pages) are missing. Raises RtError."""
    with Worker(path) as worker:
        worker.ask(messages.FEATURE_CHECK, features=features)
        found = worker.answer(messages.FEATURE_CHECK, seconds=_ANSWER_SECONDS).features
    return [name for name in features if not getattr(found, name)]
