"""A process is known by its pid, its start time and its boot, all three."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.waiting import PATIENCE, until

from rootless_rt.container import processes
from rootless_rt.errors import RtError


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1234"]) as process:
        yield process
        process.kill()


def test_a_living_process_is_known_again(child: subprocess.Popen[bytes]) -> None:
    known = processes.identity(child.pid)
    assert processes.is_alive(known)
    fd = processes.open_process(known)
    assert processes.send_signal(fd, signal.SIGKILL)
    assert processes.wait_end(fd, PATIENCE)
    os.close(fd)


@pytest.mark.parametrize(
    "change", [{"startTime": "1"}, {"bootId": "x"}, {"pid": 0}, {"pid": -5}, {"startTime": ""}]
)
def test_another_process_of_that_number_is_not(
    child: subprocess.Popen[bytes], change: dict[str, object]
) -> None:
    other = {**processes.identity(child.pid), **change}
    assert not processes.is_alive(other)
    assert processes.open_process(other) == -1


def test_a_zombie_has_ended(child: subprocess.Popen[bytes]) -> None:
    known = processes.identity(child.pid)
    child.kill()
    until(lambda: processes.start_time(child.pid)[0] == "Z", "it has ended")
    assert not processes.is_alive(known)


def test_a_process_that_is_gone_has_neither_state_nor_start(child: subprocess.Popen[bytes]) -> None:
    known = processes.identity(child.pid)
    child.kill()
    child.wait()
    assert processes.start_time(child.pid) == ("", "")
    assert processes.open_process(known) == -1


def test_the_start_time_survives_a_hostile_process_name(tmp_path: Path) -> None:
    name = tmp_path / "a) R 1 2 3"
    name.symlink_to("/bin/sleep")
    with subprocess.Popen(["sleep", "1234"], executable=str(name)) as process:
        letter, started = processes.start_time(process.pid)
        process.kill()
    assert letter in "SRD" and started.isdigit() and len(started) > 1


def test_without_descriptors_no_process_passes_for_ended(child: subprocess.Popen[bytes]) -> None:
    known = processes.identity(child.pid)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with pytest.raises(OSError):
            while True:
                held.append(os.dup(0))
        with pytest.raises(RtError, match="too many open files"):
            processes.is_alive(known)
        with pytest.raises(RtError, match="too many open files"):
            processes.open_process(known)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)
