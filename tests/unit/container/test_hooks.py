"""Hooks of the runtime's namespaces, as processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab.waiting import has_ended, until

from rootless_rt.container.hooks import run_hooks
from rootless_rt.errors import RtError


@pytest.fixture(autouse=True)
def back() -> Iterator[None]:
    """Hooks run in the bundle directory, and run_hooks stays there."""
    here = os.getcwd()
    yield
    os.chdir(here)


def shell(script: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], **more}


def test_a_hook_reads_the_state_and_runs_in_the_bundle(tmp_path: Path) -> None:
    run_hooks("prestart", [shell("cat > state; pwd > where")], '{"id": "c"}', str(tmp_path))
    assert (tmp_path / "state").read_text() == '{"id": "c"}'
    assert (tmp_path / "where").read_text().strip() == str(tmp_path)


def test_hooks_run_in_order_up_to_the_first_failure(tmp_path: Path) -> None:
    hooks = [shell("echo one >> log"), shell("echo two >> log; echo why; exit 3"), shell("echo three >> log")]
    with pytest.raises(RtError, match=r"hooks\.poststart\[1\]: /bin/sh: exit status 3: why"):
        run_hooks("poststart", hooks, "{}", str(tmp_path))
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_a_hook_whose_time_is_over_is_killed_with_its_children(tmp_path: Path) -> None:
    for seconds in (1, 10, 50):
        hook = shell("sleep 1234 & echo $! > child; wait", timeout=seconds)
        with pytest.raises(RtError, match=f"no end within its timeout of {seconds} s"):
            run_hooks("prestart", [hook], "{}", str(tmp_path))
        if (tmp_path / "child").exists() and (tmp_path / "child").read_text():
            break  # on a busy machine it takes its time to begin, or to write
    assert_ends(int((tmp_path / "child").read_text()))


def test_the_end_of_the_containers_process_ends_the_hook(tmp_path: Path) -> None:
    until_it_runs = "until [ -s child ]; do sleep 0.02; done"
    container = subprocess.Popen(["sh", "-c", until_it_runs], cwd=tmp_path)
    pidfd = os.pidfd_open(container.pid)
    try:
        with pytest.raises(RtError, match="the container's process ended while it ran"):
            hook = shell("sleep 1234 & echo $! > child; wait")
            run_hooks("createRuntime", [hook], "{}", str(tmp_path), pidfd)
    finally:
        os.close(pidfd)
        container.wait()
    assert_ends(int((tmp_path / "child").read_text()))


def test_a_hook_that_cannot_be_executed_is_named(tmp_path: Path) -> None:
    with pytest.raises(RtError, match=r"hooks\.prestart\[0\]: /no/hook: no such file"):
        run_hooks("prestart", [{"path": "/no/hook"}], "{}", str(tmp_path))


def test_a_hook_has_only_its_own_environment_and_descriptors(tmp_path: Path) -> None:
    leaked = os.open("/dev/null", os.O_RDONLY)
    try:
        run_hooks(
            "prestart",
            [shell("ls /proc/self/fd > fds; env > env; cat /proc/self/status > status")],
            "{}",
            str(tmp_path),
        )
    finally:
        os.close(leaked)
    assert str(leaked) not in (tmp_path / "fds").read_text().split()
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names <= {"PATH", "PWD", "OLDPWD", "SHLVL", "_"}
    lines = dict(line.split(":\t", 1) for line in (tmp_path / "status").read_text().splitlines())
    # 32 and 33 are the C library's own: its posix_spawn has them ignored.
    assert int(lines["SigBlk"], 16) == int(lines["SigIgn"], 16) & ~(3 << 31) == 0


def assert_ends(pid: int) -> None:
    """Killed, or a zombie whose new parent has not looked yet."""
    until(lambda: has_ended(pid), f"{pid} ends")
