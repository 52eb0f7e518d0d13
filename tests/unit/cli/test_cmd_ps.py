"""`rt ps` between the host's ps and processes whose names are the container's choice."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from rootless_rt.cli import cmd_ps

HEADING = "UID          PID    PPID CMD"


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"])
def test_a_process_cannot_put_a_line_of_its_own_into_the_table(
    monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    forged = f"root 7 1 innocent{end}root 7 1 forged"

    def ps(*_: Any, **__: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess([], 0, f"{HEADING}\n{forged}\nroot 8 1 other\n".encode(), b"")

    monkeypatch.setattr(subprocess, "run", ps)
    lines = cmd_ps._table([], [7]).removesuffix("\n").split("\n")
    assert len(lines) == 2 and lines[1].startswith("root 7 1 innocent") and lines[1].endswith("forged")
