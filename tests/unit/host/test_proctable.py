"""The table of processes for hosts without ps(1)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from rootless_rt.host import proctable
from rootless_rt.host.proctable import Process, line, read, table

# 2026-03-04 12:00 here.
NOON = time.mktime((2026, 3, 4, 12, 0, 0, 0, 0, -1))


def process(**changes: object) -> Process:
    values = {"pid": 42, "parent": 1, "uid": 0, "tty": 0, "used": 0.0, "age": 60.0, "command": "sh -c true"}
    return Process(**(values | changes))  # type: ignore[arg-type]


def test_a_line_has_the_columns_of_ps() -> None:
    assert line(process(), NOON) == "root          42       1  0 11:59 ?        00:00:00 sh -c true"


@pytest.mark.parametrize(
    ("age", "shown"),
    [
        (0, "12:00"),
        (11 * 3600, "01:00"),
        (24 * 3600, "Mar03"),
        (100 * 86400, "Nov24"),
        (400 * 86400, "2025 "),
    ],
)
def test_the_start_is_an_hour_a_day_or_a_year(age: int, shown: str) -> None:
    assert line(process(age=float(age)), NOON)[28:33] == shown


@pytest.mark.parametrize(
    ("used", "shown"),
    [(0, "00:00:00"), (59.9, "00:00:59"), (3661, "01:01:01"), (86400 * 3 + 5, "3-00:00:05")],
)
def test_time_used_is_hours_minutes_seconds(used: float, shown: str) -> None:
    assert f" {shown} sh" in line(process(used=used, age=1e9), NOON)


@pytest.mark.parametrize(
    ("device", "name"),
    [((136, 3), "pts/3"), ((137, 0), "pts/256"), ((4, 1), "tty1"), ((4, 65), "ttyS1"), ((5, 1), "console"),
     ((0, 0), "?"), ((99, 9), "?")],
)  # fmt: skip
def test_a_terminal_has_its_name(device: tuple[int, int], name: str) -> None:
    assert line(process(tty=os.makedev(*device)), NOON).split()[5] == name


def test_the_share_of_a_processor_is_of_its_whole_life() -> None:
    assert line(process(used=30.0), NOON).split()[3] == "50"
    assert line(process(used=500.0), NOON).split()[3] == "99"
    assert line(process(used=0.5, age=0.5), NOON).split()[3] == "0"


def test_a_user_without_a_name_is_a_number_and_a_long_name_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    assert line(process(uid=4_000_000_000), NOON).startswith("4000000000 ")
    monkeypatch.setattr("idmap.subid.user_name", lambda uid: "averylongname")
    assert line(process(), NOON).startswith("averylo+ ")


def test_this_very_process_is_read() -> None:
    found = read(os.getpid())
    assert found is not None and (found.pid, found.parent, found.uid) == (
        os.getpid(),
        os.getppid(),
        os.getuid(),
    )
    assert table([os.getpid(), 1 << 30]).count("\n") == 2


HOSTILE = [
    b"",
    b"1",
    b"1 (x) S",
    b"1 (x) " + b"y " * 30,
    b"1 (x) S 1 1 1 \xb2 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
    b")(",
]


@pytest.mark.parametrize("stat", HOSTILE)
def test_what_is_no_stat_is_no_process(tmp_path: Path, stat: bytes) -> None:
    fake(tmp_path, stat, b"")
    assert read(7, str(tmp_path)) is None


def fake(place: Path, stat: bytes, command: bytes) -> None:
    (place / "7").mkdir()
    (place / "7/stat").write_bytes(stat)
    (place / "7/cmdline").write_bytes(command)
    (place / "uptime").write_text("1000.00 5000.00\n")


def test_a_name_with_parentheses_and_controls_stays_one_line(tmp_path: Path) -> None:
    fake(tmp_path, b"7 (a) (\x1b[2J\n) S 1" + b" 0" * 30, b"")
    found = read(7, str(tmp_path))
    assert found is not None and found.command == "[a) (\\x1b[2J\\x0a]" and found.parent == 1
    assert proctable.table([7], str(tmp_path)).count("\n") == 2
