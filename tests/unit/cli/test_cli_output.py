"""What goes to stdout: tables, times, every byte of a text."""

from __future__ import annotations

import os
import threading

import pytest

from rootless_rt.cli.output import OutputClosed, printable, table, write, write_fd
from rootless_rt.errors import RtError


def test_columns_are_at_least_twelve_wide_and_three_apart() -> None:
    rows = [("ID", "PID", "OWNER"), ("a-very-long-container-id", "12", "root"), ("x", "0", "#1001")]
    assert table(rows) == (
        "ID                         PID         OWNER\n"
        "a-very-long-container-id   12          root\n"
        "x                          0           #1001\n"
    )


def test_a_table_without_rows_is_empty_and_one_column_is_not_padded() -> None:
    assert table([]) == ""
    assert table([("a",), ("b",)]) == "a\nb\n"


def test_a_cell_cannot_forge_a_second_line_or_steer_the_terminal() -> None:
    assert table([("a\nb\x1b[2J", "c")]) == "a\\x0ab\\x1b[2J   c\n"
    assert printable("é\x7f\x85\t") == "é\\x7f\\x85\\x09"


def test_bytes_that_are_not_utf8_come_out_as_they_came_in() -> None:
    reading, writing = os.pipe()
    write_fd(writing, b"x\xff\x80".decode("utf-8", "surrogateescape"))
    write_fd(writing, "\ud800")
    os.close(writing)
    assert os.read(reading, 100) == b"x\xff\x80\\ud800"
    os.close(reading)


def test_a_full_non_blocking_pipe_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    text = "x" * 300_000
    received = bytearray()

    def read() -> None:
        while data := os.read(reading, 10_000):
            received.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    write_fd(writing, text)
    os.close(writing)
    reader.join()
    os.close(reading)
    assert bytes(received) == text.encode()


@pytest.fixture
def stdout_fd() -> object:
    """Lets a test put something else on fd 1, and puts the old one back."""
    kept = os.dup(1)
    yield None
    os.dup2(kept, 1)
    os.close(kept)


@pytest.mark.usefixtures("stdout_fd")
def test_a_reader_that_went_away_is_not_an_error_message() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)
    os.close(writing)
    with pytest.raises(OutputClosed):
        write("x")


@pytest.mark.usefixtures("stdout_fd")
def test_a_full_disk_under_stdout_is_an_error_message() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    os.close(full)
    with pytest.raises(RtError, match="cannot write to standard output: no space left on device"):
        write("x")
