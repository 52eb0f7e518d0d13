"""Standard input, output and error of a process: from what callers give to three descriptors, and back.

Knows descriptors; must not know who gets them. What is opened here is closed on exec, and closed by `sent`
once the process has its copies.
"""

from __future__ import annotations

import fcntl
import os
from subprocess import DEVNULL, PIPE, STDOUT
from typing import IO, Protocol

__all__ = ["DEVNULL", "PIPE", "STDOUT", "Streams"]

_F_ADD_SEALS = 1033
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # SEAL, SHRINK, GROW, WRITE


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


Target = int | _HasFileno | None
Source = Target | bytes


class Streams:
    """The three descriptors that a process gets (`given`), and our ends of its pipes (`ours`; -1: none).

    `stdin` is bytes, PIPE, DEVNULL, a descriptor, a file, or None for the caller's own; `stdout` and `stderr`
    the same but bytes, and `stderr` may be STDOUT. Raises ValueError and TypeError for anything else.
    Where somebody else has `taken` the output, nothing (-1) is given for its pipes, nor for DEVNULL as stdin.
    """

    def __init__(self, stdin: Source, stdout: Target, stderr: Target, *, taken: bool = False) -> None:
        self._taken = taken
        self.given: list[int] = []
        self.ours = [-1, -1, -1]
        self._opened: list[int] = []
        try:
            self.given.append(self._from(stdin))
            self.given.append(self._to(stdout, 1))
            self.given.append(self.given[1] if is_constant(stderr, STDOUT) else self._to(stderr, 2))
        except BaseException:
            self.close()
            raise

    def _from(self, stdin: Source) -> int:
        if self._taken and is_constant(stdin, DEVNULL):
            return -1
        if isinstance(stdin, bytes | bytearray | memoryview):
            return self._memory(bytes(stdin))
        if is_constant(stdin, PIPE):
            given, self.ours[0] = os.pipe2(os.O_CLOEXEC)
            self._opened.append(given)
            return given
        return self._named(stdin, 0)

    def _to(self, target: Target, which: int) -> int:
        if self._taken and is_constant(target, PIPE):
            return -1
        if is_constant(target, PIPE):
            self.ours[which], given = os.pipe2(os.O_CLOEXEC)
            self._opened.append(given)
            # Whoever the process is, it may open /dev/stdout again.
            os.fchmod(given, 0o666)
            return given
        return self._named(target, which)

    def _named(self, target: Target, which: int) -> int:
        if is_constant(target, DEVNULL):
            return self._open(os.devnull, os.O_RDONLY if which == 0 else os.O_WRONLY)
        if target is None:
            try:
                os.fstat(which)
            except OSError:
                return self._open(os.devnull, os.O_RDWR)
            return which
        fd = target if isinstance(target, int) else target.fileno()
        if isinstance(fd, bool) or fd < 0:
            raise ValueError(f"{('stdin', 'stdout', 'stderr')[which]}: {target!r} is no open file")
        os.fstat(fd)  # raises OSError for one that is not open
        return fd

    def _open(self, path: str, flags: int) -> int:
        fd = os.open(path, flags | os.O_CLOEXEC)
        self._opened.append(fd)
        return fd

    def _memory(self, data: bytes) -> int:
        """A file in memory that can only be read: nobody has to feed a pipe while the process runs."""
        memory = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(memory, view) :]
            fcntl.fcntl(memory, _F_ADD_SEALS, _SEALS)
            return self._open(f"/proc/self/fd/{memory}", os.O_RDONLY)
        finally:
            os.close(memory)

    @property
    def stdio(self) -> tuple[int, int, int]:
        """What the process gets as 0, 1 and 2."""
        return self.given[0], self.given[1], self.given[2]

    def sent(self) -> None:
        """The process has its copies: close those that were only for it."""
        while self._opened:
            os.close(self._opened.pop())

    def close(self) -> None:
        """Close everything that was opened here."""
        self.sent()
        for which, fd in enumerate(self.ours):
            if fd >= 0:
                os.close(fd)
                self.ours[which] = -1

    def pipes(self) -> Pipes:
        """Our ends, which belong to what is returned from now on."""
        ours, self.ours = self.ours, [-1, -1, -1]
        return Pipes(ours)


class Pipes:
    """Our ends of a process's stdin, stdout and stderr (0, 1, 2), as descriptors or as files."""

    def __init__(self, fds: list[int]) -> None:
        self._fds = fds
        self._files: list[IO[bytes] | None] = [None, None, None]

    def files(self) -> list[IO[bytes] | None]:
        """All that there are, as files, which own them from now on."""
        for which, fd in enumerate(self._fds):
            if fd >= 0:
                self._files[which] = open(fd, "wb" if which == 0 else "rb")
                self._fds[which] = -1
        return list(self._files)

    def fd(self, which: int) -> int:
        """The descriptor, or -1 where there is none, or it is closed."""
        file = self._files[which]
        if file is None:
            return self._fds[which]
        return -1 if file.closed else file.fileno()

    def close(self, which: int) -> None:
        """Close one, if it is there."""
        file, fd = self._files[which], self._fds[which]
        self._fds[which] = -1
        if file is not None:
            try:
                file.close()
            except BrokenPipeError:
                pass  # something was still to be written to it
        elif fd >= 0:
            os.close(fd)


def is_constant(value: object, constant: int) -> bool:
    """Whether it is PIPE, STDOUT or DEVNULL, and not something that only equals that."""
    return type(value) is int and value == constant
