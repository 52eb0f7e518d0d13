"""Finding and running helper programs, with small scripts in their place."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from idmap import helpers
from idmap.helpers import find_helper, finish, run_and_read, start


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_the_path_of_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = script(tmp_path / "sh", "")
    monkeypatch.setenv("PATH", f"/nowhere:{tmp_path}")
    assert find_helper("sh") == program


def test_system_directories_serve_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATH")
    assert find_helper("sh") == "/usr/bin/sh" or find_helper("sh") == "/bin/sh"


def test_a_program_that_is_nowhere_is_none() -> None:
    assert find_helper("no-such-helper") is None


def test_relative_entries_directories_and_plain_files_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script(tmp_path / "tool-x", "")
    assert find_helper("tool-x", "::.:bin") is None
    (tmp_path / "tool-y").mkdir()
    (tmp_path / "tool-z").write_text("")
    assert find_helper("tool-y", str(tmp_path)) is None
    assert find_helper("tool-z", str(tmp_path)) is None


def test_success_is_zero_and_says_nothing(tmp_path: Path) -> None:
    assert finish(start([script(tmp_path / "x", "echo warning >&2")])) == (0, b"")


def test_failure_gives_the_code_and_what_was_said(tmp_path: Path) -> None:
    assert finish(start([script(tmp_path / "x", "echo out; echo why >&2; exit 3")])) == (3, b"why\n")


def test_a_silent_failure_gives_the_code(tmp_path: Path) -> None:
    assert finish(start([script(tmp_path / "x", "exit 1")])) == (1, b"")


def test_death_by_a_signal_is_a_negative_code(tmp_path: Path) -> None:
    assert finish(start([script(tmp_path / "x", "kill -9 $$")]))[0] == -9


def test_a_program_that_says_more_than_a_pipe_holds_does_not_hang(tmp_path: Path) -> None:
    code, said = finish(start([script(tmp_path / "x", "head -c 1000000 /dev/zero >&2; exit 1")]))
    assert code == 1
    assert 0 < len(said) <= 65536


def test_a_program_that_cannot_be_executed_leaves_no_descriptor(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError):
        start([str(tmp_path / "none")])
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert run_and_read([str(tmp_path / "none")]) == (127, b"")


def test_the_program_sees_an_empty_input_and_no_close_on_exec_descriptor(tmp_path: Path) -> None:
    with open(tmp_path / "held", "w"):
        code, said = finish(start([script(tmp_path / "x", "cat >&2; readlink /proc/$$/fd/* >&2; exit 1")]))
    assert code == 1
    assert said.startswith(b"/dev/null\n")
    assert b"held" not in said


def test_the_program_gets_none_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDMAP_SECRET", "1")
    _, said = finish(start([script(tmp_path / "x", "env >&2; exit 1")]))
    assert b"IDMAP_SECRET" not in said
    assert b"LC_ALL=C" in said


def test_a_status_that_somebody_else_took_is_unknown(tmp_path: Path) -> None:
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert finish(start([script(tmp_path / "x", "exit 0")]))[0] is None
    finally:
        signal.signal(signal.SIGCHLD, old)


def test_output_larger_than_a_pipe_is_read_whole(tmp_path: Path) -> None:
    code, text = run_and_read([script(tmp_path / "x", "head -c 300000 /dev/zero")])
    assert (code, len(text)) == (0, 300000)


def test_the_system_directories_are_absolute() -> None:
    assert all(directory.startswith("/") for directory in helpers.SYSTEM_DIRS)
