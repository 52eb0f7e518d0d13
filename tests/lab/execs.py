"""What the tests of `rt exec` have in common. The container is called `c`."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.runtime import Runtime
from lab.terminal import Master
from lab.users import User
from lab.waiting import PATIENCE

READY = "\x1b[ready"  # not in what is typed, so that its echo is not taken for it
SAY_READY = r"printf '\033[ready'; "


def sh(rt: Runtime, script: str, *options: str) -> str:
    """What a script prints that is executed in `c` to a good end."""
    return rt.ok("exec", *options, "c", "sh", "-c", script).strip()


def refused(rt: Runtime, *words: str) -> str:
    """The stderr of an exec that fails as it should: 255, one line and at most one hint."""
    done = rt("exec", *words)
    assert (done.returncode, done.stdout) == (255, ""), (done.returncode, done.stdout, done.stderr)
    first, *hints = done.stderr.splitlines()
    assert first.startswith("rt: ") and not first.endswith("."), done.stderr
    assert len(hints) <= 1 and all(hint.startswith("hint: ") for hint in hints), done.stderr
    assert "internal error" not in done.stderr
    return done.stderr


def status(text: str) -> dict[str, str]:
    """proc_pid_status(5) as a table."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def mask(*bits: int) -> int:
    return sum(1 << bit for bit in bits)


@contextmanager
def listening(path: Path, user: User) -> Iterator[socket.socket]:
    """A unix stream socket of the user's at `path`, on which an engine would wait for descriptors."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        user.owns(path)
        server.listen(1)
        server.settimeout(PATIENCE)
        yield server


def taken(server: socket.socket) -> tuple[str, int]:
    """The text and the one descriptor that come in on the next connection."""
    connection = server.accept()[0]
    with connection:
        text, fds, _, _ = socket.recv_fds(connection, 4096, 4)
    assert len(fds) == 1
    return text.decode(), fds[0]


def received(server: socket.socket) -> Master:
    """The terminal that comes in."""
    return Master(taken(server)[1])


def detached(rt: Runtime, *words: str) -> int:
    """Execute a program detached in `c`; its pid on the host, from --pid-file."""
    file = rt.root.parent / "pids"
    if not file.exists():
        file.mkdir()
        rt.user.owns(file)
    rt.ok("exec", "-d", "--pid-file", str(file / "pid"), "c", *words)
    text = (file / "pid").read_text()
    assert text.isdigit()
    return int(text)
