"""rt called the way engines call it: their words, descriptors, signals and environment, without the engines.

conmon stands between podman and the runtime, a shim between containerd and it; buildah calls it itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.runtime import RT, Runtime
from lab.users import User
from lab.waiting import until

CONMON = {"_OCI_SYNCPIPE": "3", "_OCI_STARTPIPE": "4", "_CONTAINERS_USERNS_CONFIGURED": ""}
SHOW = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; echo"


def _as_conmon_is() -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])


def _as(user: User) -> dict[str, Any]:
    """Options of Popen for a command that is not rt, or not with a state root of the tests."""
    if os.getuid() == user.uid:
        return {}
    return {"user": user.uid, "group": user.gid, "extra_groups": []}


@pytest.fixture
def leaked() -> Iterator[tuple[int, ...]]:
    """What engines leave open: a listening socket, and both ends of a pipe that does not block."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("")
        listening.listen()
        listening.setblocking(False)
        ends = os.pipe2(os.O_NONBLOCK)
        yield (listening.fileno(), *ends)
        for end in ends:
            os.close(end)


def _errors(log: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def _log(place: Path, user: User) -> Path:
    """A file for --log in a directory of the user's."""
    where = place / "engine"
    where.mkdir()
    user.owns(where)
    return where / "log.json"


def test_create_as_conmon_calls_it(
    rt: Runtime, bundle: MakeBundle, place: Path, leaked: tuple[int, ...]
) -> None:
    box = bundle(SHOW)
    log = _log(place, rt.user)
    pid_file, out = log.parent / "pid", log.parent / "out"
    words = ("--log-format=json", "--log", str(log), "create", "--bundle", str(box.path))
    environment = {**rt.user.environment(), **CONMON}
    with out.open("w") as said:
        done = rt(
            *words, "--pid-file", str(pid_file), "c",
            env=environment, pass_fds=leaked, preexec_fn=_as_conmon_is, stdout=said, stderr=said,
        )  # fmt: skip
    assert done.returncode == 0 and out.read_text() == ""
    assert int(pid_file.read_bytes()) == rt.state("c")["pid"]
    rt.ok("start", "c")
    rt.wait_for("c", "stopped")
    blocked, ignored, descriptors = out.read_text().splitlines()
    assert int(blocked.split()[1], 16) == int(ignored.split()[1], 16) == 0
    assert descriptors.split() == ["0", "1", "2", "3"]  # the last is of ls
    assert not log.exists() or log.read_text() == ""
    rt.ok("delete", "--force", "c")


def test_a_pipe_of_the_engine_is_closed_when_create_returns(rt: Runtime, bundle: MakeBundle) -> None:
    reading, writing = os.pipe()
    try:
        rt.ok("create", "-b", str(bundle(["sleep", "100"]).path), "c", pass_fds=(writing,))
    finally:
        os.close(writing)
    os.set_blocking(reading, False)
    assert os.read(reading, 1) == b"", "somebody has it open"
    os.close(reading)


ADOPT = """
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
rt, pid_file, *words = sys.argv[1:]
subprocess.run([rt, *words], check=True)
subprocess.run([rt, *words[:2], "start", "c"], check=True)
_, status = os.waitpid(int(open(pid_file).read()), 0)
print(os.waitstatus_to_exitcode(status))
try:
    os.wait()
except ChildProcessError:
    print("no other child")
"""


def test_the_engine_can_wait_for_the_container_and_nothing_else_stays(
    rt: Runtime, bundle: MakeBundle, place: Path
) -> None:
    pid_file = _log(place, rt.user).parent / "pid"
    words = rt.argv("create", "--bundle", str(bundle("exit 5").path), "--pid-file", str(pid_file), "c")
    argv = [sys.executable, "-c", ADOPT, words[0], str(pid_file), *words[1:]]
    options = _as(rt.user)
    done = subprocess.run(
        argv,
        env=rt.user.environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )
    assert done.stdout == "5\nno other child\n", (done.stdout, done.stderr)


def test_buildah_reads_running_then_stopped_and_nothing_else(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("create", "--bundle", str(bundle("exec sleep 1000").path), "--no-new-keyring", "buildah-buildah1")
    rt.ok("start", "buildah-buildah1")
    seen = []
    while seen[-1:] != ["stopped"]:
        if len(seen) == 3:
            rt.ok("kill", "buildah-buildah1", "KILL")
        seen.append(rt.state("buildah-buildah1")["status"])
        assert len(seen) < 1000
        time.sleep(0.02)
    assert set(seen) == {"running", "stopped"}
    rt.ok("delete", "buildah-buildah1")


def test_a_container_nobody_has_waited_for_is_stopped(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    try:
        rt.ok("create", "--bundle", str(bundle(["true"]).path), "c")
        pid = rt.state("c")["pid"]
        rt.ok("start", "c")
        rt.wait_for("c", "stopped")
        assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        os.waitpid(pid, 0)
        assert rt.state("c")["status"] == "stopped"
    finally:
        ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/nope", 'exec: "/nope": stat /nope: no such file or directory'),
        ("nope", 'exec: "nope": executable file not found in $PATH'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
        ("/etc", 'exec: "/etc": is a directory: permission denied'),
    ],
)
def test_a_create_that_fails_logs_one_object_and_says_the_same(
    rt: Runtime, bundle: MakeBundle, place: Path, program: str, said: str
) -> None:
    # One line of another kind in the log, a warning say, and podman reads none of it.
    box = bundle([program]).change(_something_to_warn_of)
    log = _log(place, rt.user)
    words = ("--log-format=json", "--log", str(log), "create", "--bundle", str(box.path))
    done = rt(*words, "--pid-file", str(log.parent / "pid"), "c")
    assert done.returncode == 1 and done.stdout == ""
    (record,) = _errors(log)
    assert record["level"] == "error" and said in record["msg"] and record["time"][10] == "T"
    assert said in done.stderr
    assert not (log.parent / "pid").exists()
    rt.ok("--log-format=json", "--log", str(log), "delete", "--force", "c")
    assert len(_errors(log)) == 1


def _something_to_warn_of(config: dict[str, Any]) -> None:
    config["process"]["oomScoreAdj"] = -1000
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": 2**30, "soft": 2**30}]


def test_an_exec_that_fails_logs_one_object(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    rt.ok("run", "-d", "-b", str(bundle(["sleep", "100"]).path), "c")
    log = _log(place, rt.user)
    process = log.parent / "process.json"
    process.write_text(json.dumps({"cwd": "/", "args": ["/nope"], "user": {"uid": 0, "gid": 0}, "env": []}))
    words = ("--log", str(log), "--log-format", "json", "exec", "--process", str(process), "--detach")
    done = rt(*words, "--pid-file", str(log.parent / "pid"), "c")
    assert done.returncode != 0
    (record,) = _errors(log)
    assert record["level"] == "error" and "no such file or directory" in record["msg"]


@pytest.mark.parametrize("environment", [{}, {"XDG_RUNTIME_DIR": ""}], ids=["none", "empty"])
def test_delete_force_of_what_never_was_is_done_without_an_environment(
    rt: Runtime, environment: dict[str, str]
) -> None:
    options = _as(rt.user)
    argv = [RT, "delete", "--force", "0123456789abcdef" * 4]
    options.update(preexec_fn=_as_conmon_is, cwd="/", env=environment)
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False, **options)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.fixture
def ended(rt: Runtime, bundle: MakeBundle) -> Bundle:
    """The container c, which has ended."""
    box = bundle(["true"])
    rt.ok("run", "-d", "--bundle", str(box.path), "c")
    rt.wait_for("c", "stopped")
    return box


def test_shims_learn_that_what_they_kill_is_gone(rt: Runtime, ended: Bundle) -> None:
    done = rt("--log-format", "json", "kill", "c", "9")
    assert done.returncode == 1 and "container not running" in done.stderr
    assert "does not exist" in rt("kill", "d", "9").stderr
    rt.ok("kill", "--all", "c", "9")
    rt.ok("delete", "c")
    assert "does not exist" in rt("delete", "c").stderr
    rt.ok("delete", "--force", "c")


@pytest.mark.parametrize("name", ["15", "9", "SIGKILL", None])
def test_engines_name_signals_by_number_by_name_or_not_at_all(
    rt: Runtime, bundle: MakeBundle, name: str | None
) -> None:
    box = bundle("trap 'exit 0' TERM; touch /ready; while :; do sleep 0.05; done")
    rt.ok("run", "-d", "-b", str(box.path), "c")
    until((box.rootfs / "ready").exists, "the trap is set")
    rt.ok("kill", "c", *([name] if name else []))
    rt.wait_for("c", "stopped")


def test_ps_gives_the_engine_an_array_of_numbers(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("create", "-b", str(bundle(["sleep", "100"]).path), "c")
    listed = rt.ok("--log-format", "json", "ps", "--format", "json", "c")
    assert json.loads(listed) == [rt.state("c")["pid"]]


def test_the_version_is_where_docker_looks_for_it(rt: Runtime) -> None:
    lines = rt.ok("--version").splitlines()
    assert lines[0].split()[:2] == ["rt", "version"] and lines[0].split()[2][0].isdigit()
    assert any(line.startswith("spec: ") for line in lines)


def test_annotations_come_back_as_they_were(rt: Runtime, bundle: MakeBundle) -> None:
    given = {"io.podman.annotations.x": "y", "io.kubernetes.cri.container-type": "sandbox", "empty": ""}
    box = bundle(["sleep", "100"]).change(lambda config: config.update(annotations=given))
    rt.ok("create", "-b", str(box.path), "c")
    assert rt.state("c")["annotations"] == given
