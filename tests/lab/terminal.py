"""A terminal as a person has it: a pty on which a command runs in a session of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from types import TracebackType
from typing import Any

from lab.runtime import Runtime
from lab.waiting import PATIENCE, until


class Master:
    """The person's end of a terminal: what is typed, what is seen."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.seen = b""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, text: str, seconds: float = PATIENCE) -> str:
        """Wait until `text` is shown; what was shown up to its end, which is then forgotten."""
        deadline = time.monotonic() + seconds
        wanted = text.encode()
        while wanted not in self.seen:
            ready = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, f"{text!r} was not shown, but {self.seen!r}"
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b""
            assert data, f"the terminal was closed; {text!r} was not shown, but {self.seen!r}"
            self.seen += data
        shown, _, self.seen = self.seen.partition(wanted)
        return (shown + wanted).decode()

    def rest(self) -> str:
        """All that is shown until the terminal's other end is closed."""
        while select.select([self.fd], [], [], PATIENCE)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                break
            if not data:
                break
            self.seen += data
        shown, self.seen = self.seen.decode(), b""
        return shown

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Session(Master):
    """A command of `rt` on a terminal of its own, as a login shell would start it."""

    def __init__(self, rt: Runtime, *words: str, rows: int = 24, columns: int = 80, **options: Any) -> None:
        master, self.slave = pty.openpty()
        super().__init__(master)
        if os.getuid() == 0:
            os.fchown(self.slave, rt.user.uid, rt.user.gid)
        self.resize(rows, columns)
        self.before = self.mode()

        def take_terminal() -> None:
            fcntl.ioctl(2, termios.TIOCSCTTY, 0)

        for name in ("stdin", "stdout", "stderr"):
            options.setdefault(name, self.slave)
        self.process: subprocess.Popen[bytes] = rt.popen(
            *words, start_new_session=True, preexec_fn=take_terminal, **options
        )

    def mode(self) -> list[Any]:
        """The modes of the person's terminal, as tcgetattr gives them."""
        return termios.tcgetattr(self.slave)

    def taken(self) -> None:
        """Wait until the command has read all that was typed."""
        # What was typed just now is on its way through the kernel: poll(2) waits for that (n_tty_poll).
        select.select([self.slave], [], [], 0)
        until(lambda: fcntl.ioctl(self.slave, termios.FIONREAD, bytes(4)) == bytes(4), "all typed is read")

    def is_raw(self) -> bool:
        return not self.mode()[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def wait(self, seconds: float = PATIENCE) -> int:
        """The exit code of the command; what it shows meanwhile is kept."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"the command goes on; it showed {self.seen!r}"
            if select.select([self.fd], [], [], 0.02)[0]:
                self.seen += os.read(self.fd, 65536)
        return self.process.returncode

    def rest(self) -> str:
        """All that a command has shown that has ended; `mode` cannot be asked for behind it."""
        os.close(self.slave)
        self.slave = -1
        return super().rest()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.fd)
        if self.slave >= 0:
            os.close(self.slave)
