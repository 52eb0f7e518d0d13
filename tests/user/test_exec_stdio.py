"""`rt exec` as an ordinary user: terminals, pipes, descriptors, signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.execs import READY, SAY_READY, detached, listening, received, refused, status
from lab.inside import held
from lab.runtime import Runtime
from lab.terminal import Session
from lab.users import User
from lab.waiting import PATIENCE, becomes
from lab.wrapped import after


@pytest.fixture
def c(rt: Runtime, bundle: MakeBundle) -> int:
    """The container `c`, own id mapped; the pid of its first process."""
    return held(rt, bundle(), "c")


@pytest.fixture
def listener(place: Path, alice: User) -> Iterator[tuple[socket.socket, str]]:
    with listening(place / "console.sock", alice) as server:
        yield server, str(place / "console.sock")


# Terminals


@pytest.mark.covers("exec --tty")
def test_a_terminal_is_given_followed_and_restored(rt: Runtime, c: int) -> None:
    with Session(rt, "exec", "-t", "c", "sh", rows=33, columns=111) as shell:
        shell.expect("# ")
        assert shell.is_raw()
        shell.type("stty size; tty\r")
        shell.expect("33 111\r\n")
        shell.expect("/dev/pts/0\r\n")
        shell.resize(44, 122)
        shell.type("until stty size | grep 44.1''22; do sleep 0.05; done\r")
        shell.expect("44 122\r\n")
        shell.type("exit 9\r")
        assert shell.wait() == 9
        assert shell.mode() == shell.before


def test_the_terminal_is_not_bound_on_the_console(rt: Runtime, c: int) -> None:
    script = "ls /dev/console; grep -c console /proc/self/mountinfo"
    with Session(rt, "exec", "-t", "c", "sh", "-c", script) as it:
        assert it.wait() == 1
        assert "No such file" in it.rest()


def test_without_t_there_is_none_even_if_the_container_has_one(
    rt: Runtime, bundle: MakeBundle, listener: tuple[socket.socket, str]
) -> None:
    server, path = listener
    box = bundle("exec sleep 1000").change(lambda config: config["process"].update(terminal=True))
    rt.ok("run", "-d", "--console-socket", path, "-b", str(box.path), "c")
    master = received(server)
    assert rt("exec", "c", "tty").stdout.strip() == "not a tty"
    os.close(master.fd)


@pytest.mark.covers("exec --console-socket", "exec --detach")
def test_a_detached_terminal_goes_to_the_console_socket(
    rt: Runtime, c: int, listener: tuple[socket.socket, str]
) -> None:
    server, path = listener
    script = SAY_READY + "read line; stty size; echo got $line; sleep 100"
    rt.ok("exec", "-t", "-d", "--console-socket", path, "c", "sh", "-c", script)
    master = received(server)
    master.expect(READY)
    master.resize(50, 60)
    master.type("word\r")
    master.expect("50 60\r\n")
    master.expect("got word\r\n")
    os.close(master.fd)


def test_a_terminal_for_nobody_is_refused(rt: Runtime, c: int) -> None:
    assert "without setting console socket" in refused(rt, "-t", "-d", "c", "sh")


# Detached, pipes, signals


@pytest.mark.covers("exec --pid-file", "exec --detach")
def test_a_detached_program_goes_on_and_its_pid_is_written(rt: Runtime, c: int, place: Path) -> None:
    pid = detached(rt, "sleep", "765")
    becomes(pid, "sleep", "765")
    assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{c}/ns/pid")


def test_input_and_output_are_the_caller_s(rt: Runtime, c: int) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with rt.popen("exec", "c", "sh", "-c", "cat; echo error >&2", **pipes) as process:
        out, err = process.communicate(b"x" * 300000, PATIENCE)
    assert (out, err, process.returncode) == (b"x" * 300000, b"error\n", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_signals_reach_the_program(rt: Runtime, c: int, number: signal.Signals) -> None:
    script = f"trap 'exit 5' {number.name[3:]}; echo ready; while :; do sleep 0.05; done"
    with rt.popen("exec", "c", "sh", "-c", script, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(PATIENCE) == 5


def test_signals_are_neither_ignored_nor_blocked(rt: Runtime, c: int) -> None:
    def spoil() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])

    done = rt("exec", "c", "cat", "/proc/self/status", preexec_fn=spoil, restore_signals=False)
    said = status(done.stdout)
    assert int(said["SigIgn"], 16) == int(said["SigBlk"], 16) == 0


def test_only_standard_descriptors_are_open(rt: Runtime, c: int) -> None:
    said = after(rt, "exec 4</ 7</etc").ok("exec", "c", "sh", "-c", "ls /proc/$$/fd; true")
    assert said.split() == ["0", "1", "2"]


@pytest.mark.covers("exec --preserve-fds")
def test_descriptors_are_kept_when_asked_for(rt: Runtime, c: int, place: Path) -> None:
    (place / "three").write_text("three\n")
    opened = after(rt, f"exec 3<{place}/three 4>&1 5</etc/hostname 9</")
    script = "cat <&3; echo four >&4; ls /proc/$$/fd; true"
    said = opened.ok("exec", "--preserve-fds", "2", "c", "sh", "-c", script)
    assert said.split() == ["three", "four", "0", "1", "2", "3", "4"]


def test_a_descriptor_to_keep_that_is_not_open_is_named(rt: Runtime, c: int) -> None:
    said = refused(rt, "--preserve-fds", "2", "c", "id")
    assert "--preserve-fds: file descriptor 3 is not open" in said
