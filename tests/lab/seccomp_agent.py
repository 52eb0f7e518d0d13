"""An agent for seccomp listeners: takes them on a unix socket and answers the calls they tell of.

From seccomp_unotify(2), linux/seccomp.h, and config-linux.md, "Seccomp" (the container process state).
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.users import User
from lab.waiting import PATIENCE, until

_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
ON = 0  # as an answer: let the kernel go on with the call

Answer = Callable[[int], int]


def always(number: int) -> Answer:
    """Answer every call with this errno, or with ON."""
    return lambda _: number


class Agent:
    """`calls`: (pid, number) of each call that was answered."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self._states: list[dict[str, Any]] = []
        self.fds: list[int] = []
        self.calls: list[tuple[int, int]] = []
        self.ends: list[bytes] = []  # what came behind the state, up to the connection's end
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._stop, self._stopper = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def states(self, count: int = 0) -> list[dict[str, Any]]:
        """What has come with each listener, once there are so many: who sends it does not wait."""
        until(lambda: len(self._states) >= count, lambda: f"{count} listeners; there are {self._states}")
        return self._states

    def close(self) -> None:
        os.write(self._stopper, b"x")
        self._thread.join(PATIENCE)
        self._listener.close()
        for fd in (self._stop, self._stopper, *self.fds):
            os.close(fd)

    def _serve(self) -> None:
        poll = select.poll()
        for source in (self._stop, self._listener.fileno()):
            poll.register(source, select.POLLIN)
        while True:
            for fd, events in poll.poll():
                if fd == self._stop:
                    return
                if fd == self._listener.fileno():
                    taken = self._accept()
                    if taken >= 0:
                        poll.register(taken, select.POLLIN)
                elif events & select.POLLIN:
                    self._reply(fd)
                else:  # nobody is under the filter any more
                    poll.unregister(fd)

    def _accept(self) -> int:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            data, ancillary, _, _ = connection.recvmsg(1 << 20, socket.CMSG_SPACE(16))
            fds = array.array("i")
            for level, kind, content in ancillary:
                assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
                fds.frombytes(content)
            rest = b""
            while chunk := connection.recv(1 << 16):
                rest += chunk
        if not fds:
            return -1  # closed without a word: what was to be started has failed
        self.fds += fds
        self._states.append(json.loads(data + rest))
        return fds[0]

    def _reply(self, fd: int) -> None:
        call = bytearray(80)
        try:
            fcntl.ioctl(fd, _RECEIVE, call)
        except OSError as error:
            if error.errno != errno.ENOENT:  # the process was killed meanwhile
                raise
            return
        (identity,) = struct.unpack_from("=Q", call)
        pid, number = struct.unpack_from("=I4xi", call, 8)
        self.calls.append((pid, number))
        answer = self._answer(number)
        response = struct.pack("=QqiI", identity, 0, -answer, 0 if answer else _CONTINUE)
        try:
            fcntl.ioctl(fd, _SEND, response)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise


@contextmanager
def agent_of(user: User, path: Path, answer: Answer | None = None) -> Iterator[Agent]:
    """An agent whose socket `user` may connect to; without an answer of its own it lets all calls go on."""
    made = Agent(path, answer or always(ON))
    try:
        user.owns(path)
        yield made
    finally:
        made.close()
