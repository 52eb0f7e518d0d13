"""Completion: the scripts are accepted by their shells, and bash's gives the right words."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rootless_rt.cli.completion import SHELLS, script
from rootless_rt.cli.main import run
from rootless_rt.cli.table import COMMANDS, GLOBAL_OPTIONS

TELL = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_rt
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(place: Path, *words: str) -> list[str]:
    if not shutil.which("bash"):
        pytest.skip("needs bash")
    (place / "rt.bash").write_text(script("bash"))
    bash = ["bash", "--norc", "-c", TELL, "bash", str(place / "rt.bash"), *words]
    done = subprocess.run(bash, capture_output=True, text=True, check=True, cwd=place)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rt pa", ["pause"]),
        ("rt --debug --log F de", ["delete"]),
        ("rt --log-l", ["--log-level"]),
        ("rt --cgroup-manager ", ["auto", "cgroupfs", "systemd", "disabled"]),
        ("rt run --no-p", ["--no-pivot"]),
        ("rt run -d ", []),
        ("rt list --format ", ["table", "json"]),
        ("rt kill c USR", ["USR1", "USR2"]),
        ("rt help featu", ["features"]),
        ("rt completion ", ["bash", "zsh", "fish"]),
        ("rt nonsense ", []),
        ("rt run --bundle di", ["dir"]),
        ("rt exec -p fi", ["file"]),
    ],
)
def test_bash_completes(tmp_path: Path, line: str, words: list[str]) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    assert completed(tmp_path, *line.split(" ")) == words


def stand_in(place: Path) -> Path:
    """An rt that knows two containers in the root /r, and nothing else."""
    (place / "rt").write_text('#!/bin/sh\n[ "$*" = "--root /r list -q" ] && printf "web\\nwork\\n"\n')
    (place / "rt").chmod(0o755)
    return place / "rt"


@pytest.mark.covers("completion")
def test_bash_completes_ids_of_the_named_root(tmp_path: Path) -> None:
    rt = str(stand_in(tmp_path))
    assert completed(tmp_path, rt, "--root", "/r", "state", "w") == ["web", "work"]
    assert completed(tmp_path, rt, "--root", "/r", "run", "w") == []
    assert completed(tmp_path, rt, "state", "w") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_itself_reads_the_script(shell: str, tmp_path: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"needs {shell}")
    (tmp_path / "script").write_text(script(shell))
    done = subprocess.run(
        [shell, "-n", str(tmp_path / "script")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_knows_every_command_and_option_but_hidden_ones(shell: str) -> None:
    words = set(script(shell).replace("'", " ").replace("*", " ").replace("[", " ").replace("|", " ").split())
    options = [*GLOBAL_OPTIONS, *(option for command in COMMANDS for option in command.options)]
    shown = {option.names[-1] for option in options if not option.hidden}
    for name in shown:
        assert (f"--{name}" if shell != "fish" else name) in words
    for name in {option.names[-1] for option in options if option.hidden} - shown:
        assert f"--{name}" not in words


@pytest.mark.covers("completion")
def test_a_script_is_printed_for_each_shell_and_for_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    for shell in SHELLS:
        assert run(["completion", shell]) == 0
        assert capfd.readouterr() == (script(shell), "")
    assert run(["completion", "tcsh" + os.sep]) == 1
    assert "one of: bash, zsh, fish" in capfd.readouterr().err


def test_fish_offers_commands_and_ids(tmp_path: Path) -> None:
    if not shutil.which("fish"):
        pytest.skip("needs fish")
    stand_in(tmp_path)
    (tmp_path / "rt.fish").write_text(script("fish"))
    ask = f"source {tmp_path}/rt.fish; complete -C 'rt pau'; complete -C 'rt --root /r state w'"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    fish = ["fish", "--no-config", "-c", ask]
    done = subprocess.run(fish, capture_output=True, text=True, check=False, env=environment)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["pause", "web", "work"]
