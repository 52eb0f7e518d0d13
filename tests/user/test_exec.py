"""`rt exec` as an ordinary user: exit codes, environment, working directory, namespaces."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.execs import detached, refused, sh
from lab.inside import held, read
from lab.ranges import map_ranges
from lab.runtime import Runtime
from lab.users import User

NAMESPACES = ("user", "pid", "mnt", "uts", "ipc", "cgroup", "net")


@pytest.fixture
def c(rt: Runtime, bundle: MakeBundle) -> int:
    """The container `c`, own id mapped; the pid of its first process."""
    return held(rt, bundle(), "c")


@pytest.fixture
def wide(rt: Runtime, bundle: MakeBundle, alice: User) -> int:
    """The container `c` with alice's whole range mapped."""
    return held(rt, map_ranges(bundle(), alice), "c")


# Exit codes


@pytest.mark.parametrize("code", [0, 1, 7, 255])
@pytest.mark.covers("exec")
def test_the_exit_code_is_the_program_s(rt: Runtime, c: int, code: int) -> None:
    done = rt("exec", "c", "sh", "-c", f"exit {code}")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_a_killed_program_gives_128_and_the_signal(rt: Runtime, c: int) -> None:
    assert rt("exec", "c", "sh", "-c", "kill -KILL $$").returncode == 137
    assert rt("exec", "c", "sh", "-c", "kill -TERM $$").returncode == 143


def test_a_program_that_is_not_there_is_255_in_the_words_of_engines(rt: Runtime, c: int) -> None:
    assert 'exec: "nothing-such": executable file not found in $PATH' in refused(rt, "c", "nothing-such")
    assert 'exec: "/nope": stat /nope: no such file or directory' in refused(rt, "c", "/nope")
    assert 'exec: "/etc/passwd": permission denied' in refused(rt, "c", "/etc/passwd")


def test_hints_speak_of_the_command_line_where_the_words_came_from_it(
    rt: Runtime, bundle: MakeBundle
) -> None:
    box = bundle()
    (box.rootfs / "script").write_text("no first line\n")
    (box.rootfs / "script").chmod(0o755)
    held(rt, box, "c")
    for words, named in (("nothing-such",), "COMMAND"), (("/script",), "COMMAND"):
        hint = refused(rt, "c", *words).partition("hint: ")[2]
        assert named in hint and "process." not in hint, hint
    file = box.path / "process.json"
    file.write_text('{"cwd": "/", "args": ["nothing-such"], "env": ["PATH=/bin"]}')
    assert "process.args" in refused(rt, "--process", str(file), "c")


def test_without_a_program_it_is_refused(rt: Runtime, c: int) -> None:
    assert "exec needs a program" in refused(rt, "c")


def test_arguments_behind_the_id_are_the_program_s(rt: Runtime, c: int) -> None:
    assert "busybox" in rt.ok("exec", "c", "ls", "-l", "/bin")
    assert rt.ok("exec", "c", "echo", "--cwd", "-t", "-u", "--").split() == ["--cwd", "-t", "-u", "--"]


# Environment and working directory


@pytest.mark.covers("exec --env")
def test_variables_are_added_and_the_last_of_a_name_wins(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle().change(lambda config: config["process"].update(env=["PATH=/bin", "A=1", "B=2"]))
    held(rt, box, "c")
    said = rt.ok("exec", "-e", "A=3", "--env", "C=4", "--env", "C=5", "c", "env").split("\n")
    assert sorted(line for line in said if line[:2] in ("A=", "B=", "C=")) == ["A=3", "B=2", "C=5"]


def test_a_variable_without_a_value_is_named_as_exec_s(rt: Runtime, c: int) -> None:
    said = refused(rt, "-e", "FOO", "c", "env")
    assert said.startswith("rt: exec: process.env[2]: expected NAME=value"), said


def test_home_is_that_of_the_user_unless_given(rt: Runtime, wide: int) -> None:
    assert sh(rt, "echo $HOME") == "/root"
    assert sh(rt, "echo $HOME", "-u", "1000:1000") == "/home/user"
    assert sh(rt, "echo $HOME", "-e", "HOME=/tmp") == "/tmp"


@pytest.mark.covers("exec --cwd")
def test_the_working_directory_can_be_chosen_and_is_not_made(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle()
    held(rt, box, "c")
    assert sh(rt, "pwd") == "/"
    assert sh(rt, "pwd", "--cwd", "/tmp") == "/tmp"
    assert "process.cwd" in refused(rt, "--cwd", "/missing", "c", "pwd")
    assert not (box.rootfs / "missing").exists()


def test_a_relative_working_directory_is_refused(rt: Runtime, c: int) -> None:
    assert "process.cwd" in refused(rt, "--cwd", "tmp", "c", "pwd")


# Where it is


def test_all_namespaces_are_the_container_s(rt: Runtime, c: int) -> None:
    listed = " ".join(f"/proc/self/ns/{name}" for name in NAMESPACES)
    said = sh(rt, f"for file in {listed}; do readlink $file; done").split()
    assert said == [os.readlink(f"/proc/{c}/ns/{name}") for name in NAMESPACES]


def test_hostname_processes_and_root_are_the_container_s(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle().change(lambda config: config.update(hostname="boxed"))
    held(rt, box, "c")
    (box.rootfs / "mark").write_text("here")
    assert sh(rt, "hostname; cat /mark; echo; tr '\\0' ' ' < /proc/1/cmdline").split() == [
        "boxed",
        "here",
        "sleep",
        "1000",
    ]


def test_the_cgroup_is_the_container_s(rt: Runtime, c: int, place: Path) -> None:
    pid = detached(rt, "sleep", "100")
    assert read(pid, "cgroup") == read(c, "cgroup")
