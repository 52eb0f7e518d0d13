"""What `rt` prints on stdout: text, tables, times.

Knows descriptor 1 and characters; it must not know containers. Python's own sys.stdout is not used: it is
absent when the descriptor was closed at start, and fails on a non-blocking pipe.
"""

from __future__ import annotations

import posix

from rootless_rt.errors import CONTROLS, RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# A column of a table is at least MIN_WIDTH wide, its padding included: the shape scripts
# know from other runtimes' `list`.
MIN_WIDTH = 12
PADDING = 3


class OutputClosed(Exception):
    """The reader of stdout went away: not an error to report, only a reason to stop."""


def write(text: str) -> None:
    """Write `text` to stdout, all of it. Raises OutputClosed, or RtError (a full disk, for one)."""
    try:
        write_fd(1, text)
    except BrokenPipeError:
        raise OutputClosed from None
    except OSError as error:
        raise RtError(f"cannot write to standard output: {(error.strerror or '').lower()}") from None


def write_fd(fd: int, text: str) -> None:
    """Write `text` to `fd`, waiting where it is a full non-blocking pipe. Raises OSError."""
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # Half a surrogate pair out of a JSON file: no bytes stand for it.
        data = text.encode("utf-8", "backslashreplace")
    while data:
        try:
            data = data[posix.write(fd, data) :]
        except BlockingIOError:
            import select

            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


def printable(text: str) -> str:
    """`text` as one line that cannot steer a terminal: control characters become `\\xNN`."""
    return text.translate(CONTROLS)


def table(rows: Sequence[Sequence[str]]) -> str:
    """`rows` as lines with aligned columns; the last column is not padded. An empty list is ""."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(MIN_WIDTH, max(map(len, column)) + PADDING) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("".join(padded) + row[-1] + "\n")
    return "".join(lines)
