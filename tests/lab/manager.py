"""A service manager as far as NOTIFY_SOCKET goes: it listens, keeps what it is told, and lets barriers go."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.waiting import until


class Manager:
    """`address` is what NOTIFY_SOCKET says; `said` the messages so far."""

    def __init__(self, address: str, *, hold: bool = False) -> None:
        self.address = address
        self.said: list[str] = []
        self.hold = hold  # keep barriers closed until `release`
        self.barriers: list[int] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address[0] == "@" else address)
        if address[0] == "/":
            os.chmod(address, 0o666)
        self._socket.settimeout(0.05)
        self._over = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._over:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, 4096, 8)
            except TimeoutError:
                continue
            self.barriers += fds
            self.said.append(data.decode())
            if not self.hold:
                self.release()

    def release(self) -> None:
        """Let those go who wait at a barrier."""
        while self.barriers:
            os.close(self.barriers.pop())

    def wait_for(self, count: int) -> list[str]:
        """All messages, once there are so many."""
        until(lambda: len(self.said) >= count, lambda: f"{count} messages; there are {self.said}")
        return self.said

    def close(self) -> None:
        self._over = True
        self._thread.join()
        self._socket.close()
        self.release()


@contextmanager
def manager(place: Path, *, abstract: bool = False, hold: bool = False) -> Iterator[Manager]:
    """A manager on a socket in `place`, or on an abstract one."""
    made = Manager(f"@rt-test-{os.getpid()}" if abstract else str(place / "manager.sock"), hold=hold)
    try:
        yield made
    finally:
        made.close()
