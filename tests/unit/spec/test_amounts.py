"""Sizes, durations and numbers of the command line: what is read, and what never is."""

from __future__ import annotations

import pytest

from rootless_rt.errors import RtError
from rootless_rt.spec.amounts import duration, size, whole

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("67108864", 67108864),
        ("32m", 32 << 20),
        ("32M", 32 << 20),
        ("64MB", 64 << 20),
        ("48MiB", 48 << 20),
        ("40 m", 40 << 20),
        ("1.5g", 3 << 29),
        (".5k", 512),
        ("33554433.5k", 34359739904),
        ("7b", 7),
        ("1t", 1 << 40),
        ("2P", 2 << 50),
        ("-1", -1),
        ("9223372036854775807", (1 << 63) - 1),
    ],
)
def test_sizes_are_read_as_go_units_reads_them(text: str, number: int) -> None:
    assert size(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "m", " 40m", "40m ", "40  m", "40\tm", "-2", "-1m", "+5", "0x10", "1e3", "1_0", "1.2.3",
        ".", ".m",
        "5x", "5mm", "5ib", "5i", "5kib5", "9223372036854775808", "8192p", "1" * 400, "1." + "5" * 400,
        "\u0665", "5\u043c", "5\nm", "nan", "inf", "\udc80",
    ],
)  # fmt: skip
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(RtError):
        size(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5s", 5 * SECOND),
        ("500ms", SECOND // 2),
        ("1m30s", 90 * SECOND),
        ("1.5h", 5400 * SECOND),
        (".5s", SECOND // 2),
        ("5.s", 5 * SECOND),
        ("0", 0),
        ("7ns", 7),
        ("3us", 3000),
        ("3\u00b5s", 3000),
        ("3\u03bcs", 3000),
        ("1h1m1s1ms", 3661 * SECOND + 10**6),
    ],
)
def test_durations_are_read_as_go_reads_them(text: str, number: int) -> None:
    assert duration(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "5", "-5s", "+5s", "s", ".s", "5 s", " 5s", "5s ", "5S", "5d", "1m30", "1..5s", "1e3s",
        "0x5s",
        "5s5", "9999999999h", "1" * 400 + "s", "\u0665s", "5s\n", "\0", "\udc80s",
    ],
)  # fmt: skip
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(RtError):
        duration(text)


def test_whole_numbers_may_be_negative() -> None:
    assert (whole("0"), whole("-1"), whole("262144")) == (0, -1, 262144)


@pytest.mark.parametrize("text", ["", "-", "--1", "+1", " 1", "1 ", "0x20", "1.0", "1_0", "\u0665", "1" * 30])
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(RtError):
        whole(text)
