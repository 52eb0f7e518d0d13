"""`rt exec --process FILE`, in the forms that engines write."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.execs import READY, SAY_READY, listening, received, refused, status
from lab.inside import held, read
from lab.runtime import Runtime
from lab.users import User
from lab.waiting import becomes


@pytest.fixture
def c(rt: Runtime, bundle: MakeBundle) -> int:
    """The container `c`, own id mapped; the pid of its first process."""
    return held(rt, bundle(), "c")


@pytest.fixture
def listener(place: Path, alice: User) -> Iterator[tuple[socket.socket, str]]:
    with listening(place / "console.sock", alice) as server:
        yield server, str(place / "console.sock")


def process_file(rt: Runtime, what: object) -> str:
    path = rt.root.parent / "process.json"
    path.write_text(what if isinstance(what, str) else json.dumps(what))
    path.chmod(0o644)
    return str(path)


def podman_form(**changes: Any) -> dict[str, Any]:
    sets = {name: ["CAP_KILL"] for name in ("bounding", "effective", "permitted")}
    process = {
        "terminal": False,
        "user": {"uid": 0, "gid": 0, "umask": 0o27},
        "args": ["sh", "-c", "echo $A; pwd; umask"],
        "env": ["PATH=/bin", "TERM=xterm", "A=podman", "HOME=/root"],
        "cwd": "/tmp",
        "capabilities": {**sets, "inheritable": [], "ambient": []},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 512, "soft": 256}],
        "noNewPrivileges": True,
        "oomScoreAdj": 0,
        "consoleSize": {"height": 0, "width": 0},
    }
    return {**process, **changes}


@pytest.mark.covers("exec --process")
def test_podman_s_form_of_a_process_runs(rt: Runtime, c: int) -> None:
    file = process_file(rt, podman_form())
    log = str(rt.root.parent / "alice-state-log")
    Path(log).touch()
    rt.user.owns(Path(log))
    done = rt("--log-format=json", "--log", log, "exec", "--process", file, "c")
    assert (done.returncode, done.stdout.split()) == (0, ["podman", "/tmp", "0027"]), done.stderr


def test_podman_s_detached_form_writes_the_pid(rt: Runtime, c: int) -> None:
    pids = rt.root.parent / "pids"
    pids.mkdir()
    rt.user.owns(pids)
    file = process_file(rt, podman_form(args=["sleep", "654"]))
    rt.ok("exec", "--pid-file", str(pids / "pid"), "--process", file, "--detach", "c")
    becomes(int((pids / "pid").read_text()), "sleep", "654")


def test_containerd_s_form_of_a_process_runs(rt: Runtime, c: int) -> None:
    process = {"user": {"uid": 0, "gid": 0, "additionalGids": [0]}, "args": ["cat", "/proc/self/status"]}
    file = process_file(rt, {**process, "env": ["PATH=/bin"], "cwd": "/", "noNewPrivileges": True})
    pids = rt.root.parent / "pids"
    pids.mkdir()
    rt.user.owns(pids)
    done = rt("exec", "--process", file, "--pid-file", str(pids / "pid"), "c")
    assert done.returncode == 0, done.stderr
    assert status(done.stdout)["CapEff"] == status(read(c, "status"))["CapEff"]


def test_a_process_with_a_terminal_and_podman_s_tty_option_goes_to_the_socket(
    rt: Runtime, c: int, listener: tuple[socket.socket, str]
) -> None:
    server, path = listener
    file = process_file(rt, podman_form(terminal=True, args=["sh", "-c", SAY_READY + "sleep 100"]))
    rt.ok("exec", "--process", file, "--detach", "--tty", "--console-socket", path, "c")
    master = received(server)
    master.expect(READY)
    os.close(master.fd)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("{", "process.json"),
        ({"cwd": "/"}, "args"),
        ({"cwd": "/", "args": []}, "args"),
        ({"cwd": "tmp", "args": ["id"]}, "cwd"),
        ({"cwd": "/", "args": ["id"], "user": {"uid": "0"}}, "user.uid"),
        ({"cwd": "/", "args": ["id"], "env": [1]}, "env[0]"),
        ({"cwd": "/", "args": ["id"], "rlimits": [{"type": "NO", "hard": 1, "soft": 1}]}, "rlimits[0]"),
    ],
)
def test_what_is_wrong_in_a_process_file_is_named(rt: Runtime, c: int, what: object, told: str) -> None:
    file = process_file(rt, what)
    said = refused(rt, "--process", file, "c")
    assert told in said and file in said and "config.json" not in said


def test_a_process_file_that_is_not_there_is_named(rt: Runtime, c: int) -> None:
    assert "--process /nowhere/p.json: no such file or directory" in refused(
        rt, "--process", "/nowhere/p.json", "c"
    )
