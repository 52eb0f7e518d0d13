"""From the first word to the exit status: errors of every kind, odd descriptors, and what is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from idmap.errors import IdmapError
from rootless_rt.cli import main as entry
from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.output import OutputClosed
from rootless_rt.errors import RtError

TREE = str(Path(__file__).resolve().parents[3])

# What the installed program makes the interpreter do, with a stand-in for the command `state`, if any.
BOOT = f"import sys; sys.path.append({TREE!r})\n"
CALL = "from rootless_rt.cli.main import main\nmain(sys.argv[1:])\n"
STAND_IN = """
class module: pass
sys.modules['rootless_rt.cli.cmd_state'] = module
def run(inv):
    %s
module.run = run
"""


def rt(*words: str, body: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line as the installed program would; `body` replaces the command `state`."""
    code = BOOT + (STAND_IN % body if body else "") + CALL
    argv = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", code, *words]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=30)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for the module of the command `state`; a test gives it its `run`."""
    module = ModuleType("rootless_rt.cli.cmd_state")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def failing_with(error: BaseException) -> object:
    def run(inv: Invocation) -> int:
        raise error

    return run


def test_the_status_of_the_command_is_the_status_of_the_process() -> None:
    assert rt("state", "x", body="return 42").returncode == 42


def test_a_command_gets_what_was_parsed(command: ModuleType) -> None:
    seen: list[Invocation] = []

    def run(inv: Invocation) -> int:
        seen.append(inv)
        return 0

    command.__dict__["run"] = run
    assert entry.run(["--root", "D", "state", "x"], "rt") == 0
    assert (seen[0].command, seen[0].args, seen[0].globals["root"], seen[0].prog) == (
        "state",
        ["x"],
        "D",
        "rt",
    )


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (RtError("no such thing", hint="make one"), 1, "rt: no such thing\nhint: make one\n"),
        (RtError("exec failed", code=255), 255, "rt: exec failed\n"),
        (IdmapError("no map", reason="overlap", hint="mend"), 1,
         "rt: no map\nhint: mend (rt explain RT-BUNDLE-IDS)\n"),
        (OutputClosed(), 141, ""),
        (KeyboardInterrupt(), 130, ""),
        (ZeroDivisionError("by zero"), 1,
         "rt: internal error: ZeroDivisionError: by zero\n"
         "hint: run it again with --debug before the command, and report what it prints\n"),
        (SystemExit(3), 1,
         "rt: internal error: SystemExit: 3\n"
         "hint: run it again with --debug before the command, and report what it prints\n"),
    ],
)  # fmt: skip
def test_every_kind_of_failure_has_its_status_and_its_words(
    error: BaseException, code: int, shown: str, command: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    command.__dict__["run"] = failing_with(error)
    assert entry.run(["state", "x"]) == code
    assert capfd.readouterr() == ("", shown)


@pytest.mark.covers("--debug")
def test_debug_shows_where_an_internal_error_came_from(
    command: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    command.__dict__["run"] = failing_with(ZeroDivisionError("by zero"))
    assert entry.run(["--debug", "state", "x"]) == 1
    err = capfd.readouterr().err
    assert err.startswith("Traceback (most recent call last):")
    assert err.endswith("\nrt: internal error: ZeroDivisionError: by zero\n")


@pytest.mark.parametrize("words", [["state"], ["--bogus"], ["rnu"], ["run", "--bogus", "x"], ["ps", "x"]])
@pytest.mark.covers("--log", "--log-format")
def test_usage_errors_reach_the_log_as_one_object(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.json"
    assert entry.run(["--log", str(log), "--log-format", "json", *words]) == 1
    record = json.loads(log.read_text())
    assert record["level"] == "error"
    assert f"rt: {record['msg']}\n" in capfd.readouterr().err


def test_a_relative_log_stays_where_it_was_meant_when_the_command_changes_directory(
    tmp_path: Path, command: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(inv: Invocation) -> int:
        os.chdir("/")
        raise RtError("gone wrong")

    command.__dict__["run"] = run
    assert entry.run(["--log", "log", "state", "x"]) == 1
    assert "gone wrong" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("words", [["--formt", "json"], ["--format", "xml"], ["a", "b", "c"]])
def test_a_wrong_command_line_is_no_finding(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert [entry.run([command, *words]) for command in ("batch", "doctor", "lint")] == [2, 2, 2]
    assert entry.run(["list", *words]) == 1


def test_a_wrong_count_shows_the_commands_help_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["state"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("Incorrect Usage.\n\nUsage: rt state [OPTIONS] ID\n")
    assert err.endswith('\nrt: "state" requires exactly 1 argument(s): ID; 0 given\n')


@pytest.mark.parametrize("words", [[], ["help"], ["--help"], ["run", "-h"], ["help", "run"], ["--version"]])
def test_help_and_version_go_to_stdout_and_succeed_even_without_click(words: list[str]) -> None:
    # -S leaves out the directory that click is in.
    result = rt(*words)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("rt version 0." if words == ["--version"] else "Usage: rt ")


def test_a_command_of_the_table_without_a_module_is_not_supported_yet(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("builtins.__import__", _import_without_state)
    assert entry.run(["state", "x"]) == 1
    assert capfd.readouterr().err == "rt: not supported yet: command state\n"


def _import_without_state(name: str, *rest: object, original: object = __import__) -> object:
    if name == "rootless_rt.cli.cmd_state":
        raise ModuleNotFoundError(name, name=name)
    return original(name, *rest)  # type: ignore[operator]


def test_descriptors_closed_by_the_caller_become_dev_null_and_are_inherited() -> None:
    body = (
        "import posix; files = [posix.fstat(fd).st_rdev for fd in (0, 1, 2)];"
        "return 42 if files == [posix.stat('/dev/null').st_rdev] * 3 and posix.get_inheritable(1) else 1"
    )
    code = BOOT + STAND_IN % body + CALL
    shell = 'exec "$0" -I -S -B -c "$1" state x <&- >&- 2>&-'
    result = subprocess.run(["sh", "-c", shell, sys.executable, code], check=False, timeout=30)
    assert result.returncode == 42


def test_an_error_with_every_descriptor_closed_still_has_its_status() -> None:
    shell = 'exec "$0" -I -S -B -c "$1" rnu <&- >&- 2>&-'
    result = subprocess.run(["sh", "-c", shell, sys.executable, BOOT + CALL], check=False, timeout=30)
    assert result.returncode == 1


@pytest.mark.parametrize("words", [("--help",), ("state", "x")])
def test_a_closed_pipe_on_stdout_is_quiet(words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = BOOT + STAND_IN % "print('x')\n    return 0" + CALL
    argv = [sys.executable, "-I", "-S", "-B", "-c", code, *words]
    result = subprocess.run(argv, check=False, stdout=writing, stderr=subprocess.PIPE, timeout=30)
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, b"")


def test_what_a_command_prints_the_python_way_is_not_lost() -> None:
    assert rt("state", "x", body="print('kept')\n    return 0").stdout == "kept\n"


def test_words_that_are_not_utf8_reach_the_error_message_unchanged() -> None:
    argv = [
        sys.executable.encode(),
        b"-I",
        b"-S",
        b"-B",
        b"-X",
        b"utf8",
        b"-c",
        (BOOT + CALL).encode(),
        b"r\xff",
    ]
    result = subprocess.run(argv, check=False, capture_output=True, timeout=30)
    assert result.returncode == 1
    assert result.stderr.startswith(b'rt: unknown command "r\xff"\n')


# Modules written in Python that the interpreter loads by itself at start, or os needs.
OS_FAMILY = {"os", "stat", "posixpath", "genericpath", "_collections_abc", "abc", "codecs", "io", "encodings",
             "__future__", "os.path", "zipimport", "_frozen_importlib_external",
             "linecache"}  # fmt: skip
OWN = {"rootless_rt", "rootless_rt.cli", "rootless_rt.cli.main", "rootless_rt.cli.argv",
       "rootless_rt.cli.option", "rootless_rt.cli.table", "rootless_rt.errors"}  # fmt: skip


def test_a_well_formed_command_line_loads_nothing_but_the_parser() -> None:
    body = """
    import os
    for name, module in sorted(sys.modules.items()):
        origin = getattr(module, "__file__", None) or ""
        if origin.endswith(".py"):
            os.write(1, (name + chr(10)).encode())
    return 0"""
    line = ["--root", "R", "--log", "L", "--log-format", "json", "state", "x"]
    result = rt(*line, body=body.strip())
    assert (result.returncode, result.stderr) == (0, "")
    loaded = {name for name in result.stdout.split() if not name.startswith("encodings.")}
    assert loaded - OS_FAMILY == OWN
