"""The container's terminal: carried by `run`, or sent through --console-socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.runtime import Runtime
from lab.terminal import Master, Session
from lab.users import User
from lab.waiting import PATIENCE

READY = "\x1b[ready"  # not in what is typed, so that its echo is not taken for it
SAY_READY = r"printf '\033[ready'; "


def on_terminal(box: Bundle, args: list[str] | str = ["/bin/sh"]) -> Bundle:  # noqa: B006
    def change(config: dict[str, object]) -> None:
        process = config["process"]
        assert isinstance(process, dict)
        process["terminal"] = True
        process["env"] = ["PATH=/bin", "PS1=> "]

    return box.run(args).change(change)


def session(rt: Runtime, box: Bundle, **options: object) -> Session:
    return Session(rt, "run", "--bundle", str(box.path), "c", **options)  # type: ignore[arg-type]


@pytest.mark.covers("process.terminal")
def test_a_shell_works_on_the_caller_s_terminal(rt: Runtime, bundle: MakeBundle) -> None:
    with session(rt, on_terminal(bundle())) as shell:
        shell.expect("> ")
        shell.type("echo $((6 * 7))\r")
        shell.expect("\r\n42\r\n> ")
        shell.type("exit 9\r")
        assert shell.wait() == 9


def test_the_caller_s_terminal_is_raw_meanwhile_and_restored_afterwards(
    rt: Runtime, bundle: MakeBundle
) -> None:
    with session(rt, on_terminal(bundle())) as shell:
        shell.expect("> ")
        assert shell.is_raw()
        shell.type("exit\r")
        assert shell.wait() == 0
        assert shell.mode() == shell.before


def test_the_terminal_is_restored_when_the_container_is_killed(rt: Runtime, bundle: MakeBundle) -> None:
    with session(rt, on_terminal(bundle())) as shell:
        shell.expect("> ")
        rt.ok("kill", "c", "KILL")
        assert shell.wait() == 137
        assert shell.mode() == shell.before


def test_the_terminal_is_restored_when_rt_is_told_to_end(rt: Runtime, bundle: MakeBundle) -> None:
    script = "trap 'exit 3' TERM; " + SAY_READY + "sleep 100 & wait"
    with session(rt, on_terminal(bundle(), script)) as shell:
        shell.expect(READY)
        shell.process.send_signal(signal.SIGTERM)
        assert shell.wait() == 3
        assert shell.mode() == shell.before


def test_the_terminal_is_untouched_when_the_program_cannot_start(rt: Runtime, bundle: MakeBundle) -> None:
    with session(rt, on_terminal(bundle(), ["nothing-such"])) as shell:
        assert shell.wait() == 1
        assert shell.mode() == shell.before
        assert 'exec: "nothing-such": executable file not found in $PATH\r\n' in shell.rest()


def test_the_size_is_the_caller_s_from_the_start_and_follows_it(rt: Runtime, bundle: MakeBundle) -> None:
    box = on_terminal(bundle(), "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done")
    with session(rt, box, rows=33, columns=111) as shell:
        shell.expect("33 111\r\n")
        shell.resize(44, 122)
        shell.expect("44 122\r\n")


@pytest.mark.covers("process.consoleSize")
def test_the_config_can_give_the_size(rt: Runtime, bundle: MakeBundle) -> None:
    box = on_terminal(bundle(), "stty size")
    box.change(lambda config: config["process"].update(consoleSize={"height": 7, "width": 70}))
    with session(rt, box, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as shell:
        assert shell.process.stdout is not None
        assert shell.process.stdout.read() == b"7 70\r\n"


def test_control_c_interrupts_the_program_and_not_rt(rt: Runtime, bundle: MakeBundle) -> None:
    box = on_terminal(
        bundle(), "trap 'echo caught; exit 4' INT; " + SAY_READY + "while :; do sleep 0.05; done"
    )
    with session(rt, box) as shell:
        shell.expect(READY)
        shell.type("\x03")
        shell.expect("caught")
        assert shell.wait() == 4


def test_control_d_ends_the_input(rt: Runtime, bundle: MakeBundle) -> None:
    with session(rt, on_terminal(bundle(), ["/bin/cat"])) as shell:
        shell.type("line\r")
        shell.expect("line\r\nline\r\n")
        shell.type("\x04")
        assert shell.wait() == 0


def test_all_that_was_written_before_the_end_is_shown(rt: Runtime, bundle: MakeBundle) -> None:
    with session(rt, on_terminal(bundle(), "seq 20000")) as shell:
        assert shell.wait() == 0
        assert shell.rest().split() == [str(number) for number in range(1, 20001)]


def test_input_that_is_no_terminal_reaches_the_container_s(rt: Runtime, bundle: MakeBundle) -> None:
    box = on_terminal(bundle(), "stty -echo; " + "cat")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = rt.popen("run", "--bundle", str(box.path), "c", **pipes)
    out, err = process.communicate(b"hello\n", PATIENCE)
    assert (process.returncode, err) == (0, b"")
    assert out.replace(b"\r\n", b"\n").endswith(b"hello\n")


def test_an_input_that_ends_at_once_is_the_end_of_the_container_s(rt: Runtime, bundle: MakeBundle) -> None:
    done = rt("run", "--bundle", str(on_terminal(bundle(), "cat; echo done").path), "c")
    assert (done.returncode, done.stderr) == (0, "")
    assert "done" in done.stdout


def test_the_terminal_is_one_of_the_container_s_own(rt: Runtime, bundle: MakeBundle) -> None:
    script = "tty; ls /dev/pts; cat /proc/$$/stat | cut -d' ' -f7; stat -c '%t:%T' -L /dev/console; "
    script += "stat -c '%t:%T' /dev/pts/0; echo typed > /dev/console; echo $(tty < /dev/tty)"
    with session(rt, on_terminal(bundle(), script)) as shell:
        assert shell.wait() == 0
        words = shell.rest().split()
    assert words[:3] == ["/dev/pts/0", "0", "ptmx"]
    assert words[3] == str(os.makedev(136, 0))
    assert words[4] == words[5] == "88:0"
    assert words[6:] == ["typed", "/dev/pts/0"] or words[6:] == ["typed", "/dev/tty"]


def test_no_terminal_of_the_host_is_within_reach(rt: Runtime, bundle: MakeBundle) -> None:
    script = SAY_READY + "ls -l /proc/$$/fd 2>/dev/null | grep -c /dev/pts/0; ls /dev/pts; echo end"
    with session(rt, on_terminal(bundle(), script)) as shell:
        outside = os.readlink(f"/proc/self/fd/{shell.slave}")
        shell.expect(READY)
        assert shell.wait() == 0
        shown = shell.rest()
    assert shown.split() == ["3", "0", "ptmx", "end"] and outside.startswith("/dev/pts/")


def test_without_a_terminal_of_its_own_the_program_still_reads_the_caller_s(
    rt: Runtime, bundle: MakeBundle
) -> None:
    with session(rt, bundle("read line; echo got $line")) as shell:
        assert not shell.is_raw()
        shell.type("hello\r")
        shell.expect("got hello\r\n")
        assert shell.wait() == 0


def test_without_a_terminal_of_its_own_the_program_cannot_take_the_caller_s(
    rt: Runtime, bundle: MakeBundle
) -> None:
    # Else it could type into the caller's shell (TIOCSTI).
    with session(rt, bundle("(: < /dev/tty) 2>&1; cat /proc/$$/stat | cut -d' ' -f6,7")) as shell:
        assert shell.wait() == 0
        shown = shell.rest()
    assert "can't open /dev/tty" in shown
    assert "1 0" in shown  # a session of its own, without a terminal


def test_control_c_on_the_caller_s_terminal_reaches_a_program_without_one(
    rt: Runtime, bundle: MakeBundle
) -> None:
    box = bundle("trap 'echo caught; exit 4' INT; " + SAY_READY + "while :; do sleep 0.05; done")
    with session(rt, box) as shell:
        shell.expect(READY)
        shell.type("\x03")
        shell.expect("caught")
        assert shell.wait() == 4


# --console-socket


@pytest.fixture
def listener(place: Path, alice: User) -> Iterator[tuple[socket.socket, str]]:
    path = str(place / "console.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        alice.owns(Path(path))
        server.listen(1)
        server.settimeout(PATIENCE)
        yield server, path


def received(server: socket.socket) -> tuple[bytes, Master]:
    connection = server.accept()[0]
    with connection:
        data, fds, _, _ = socket.recv_fds(connection, 4096, 4)
        assert connection.recv(1) == b""
    assert len(fds) == 1
    return data, Master(fds[0])


@pytest.mark.covers("create --console-socket", "process.terminal")
def test_create_sends_the_terminal_to_the_console_socket(
    rt: Runtime, bundle: MakeBundle, listener: tuple[socket.socket, str]
) -> None:
    server, path = listener
    rt.ok("create", "--bundle", str(on_terminal(bundle()).path), "--console-socket", path, "c")
    name, master = received(server)
    try:
        assert name
        rt.ok("start", "c")
        master.expect("> ")
        master.resize(50, 60)
        master.type("stty size\r")
        master.expect("\r\n50 60\r\n")
        master.type("exit\r")
        rt.wait_for("c", "stopped")
    finally:
        os.close(master.fd)


@pytest.mark.covers("run --console-socket", "run --detach")
def test_a_detached_run_sends_the_terminal_to_the_console_socket(
    rt: Runtime, bundle: MakeBundle, listener: tuple[socket.socket, str]
) -> None:
    server, path = listener
    box = on_terminal(bundle(), SAY_READY + "sleep 100")
    rt.ok("run", "--detach", "--bundle", str(box.path), "--console-socket", path, "c")
    master = received(server)[1]
    master.expect(READY)
    os.close(master.fd)


def test_hanging_up_ends_a_program_on_the_terminal(
    rt: Runtime, bundle: MakeBundle, listener: tuple[socket.socket, str]
) -> None:
    server, path = listener
    rt.ok("create", "--bundle", str(on_terminal(bundle(), ["/bin/cat"]).path), "--console-socket", path, "c")
    master = received(server)[1]
    rt.ok("start", "c")
    os.close(master.fd)
    rt.wait_for("c", "stopped")


def test_a_console_socket_nobody_listens_on_is_an_error(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    box = on_terminal(bundle())
    done = rt("create", "--bundle", str(box.path), "--console-socket", str(place / "none.sock"), "c")
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"rt: --console-socket {place}/none.sock: no such file or directory\nhint: "
    )
    assert rt.ok("list", "-q") == ""


@pytest.mark.parametrize("words", [("create",), ("run", "--detach")])
def test_a_terminal_for_nobody_is_refused(rt: Runtime, bundle: MakeBundle, words: tuple[str, ...]) -> None:
    done = rt(*words, "--bundle", str(on_terminal(bundle()).path), "c")
    assert done.returncode == 1
    expected = "rt: cannot allocate tty if rt will detach without setting console socket"
    assert done.stderr.splitlines()[0] == expected
    assert rt.ok("list", "-q") == ""


@pytest.mark.parametrize(("words", "terminal"), [(("create",), False), (("run",), False), (("run",), True)])
def test_a_console_socket_that_is_of_no_use_is_refused(
    rt: Runtime, bundle: MakeBundle, place: Path, words: tuple[str, ...], terminal: bool
) -> None:
    box = on_terminal(bundle()).change(lambda config: config["process"].update(terminal=terminal))
    done = rt(*words, "--bundle", str(box.path), "--console-socket", str(place / "x.sock"), "c")
    assert done.returncode == 1
    expected = "rt: cannot use console socket if rt will not detach or allocate tty"
    assert done.stderr.splitlines()[0] == expected
    assert rt.ok("list", "-q") == ""


def test_a_terminal_without_a_devpts_is_refused_with_the_mount_to_add(
    rt: Runtime, bundle: MakeBundle
) -> None:
    box = on_terminal(bundle())
    box.change(
        lambda config: config.update(
            mounts=[mount for mount in config["mounts"] if mount["destination"] != "/dev/pts"]
        )
    )
    done = rt("run", "--bundle", str(box.path), "c")
    assert done.returncode == 1
    assert done.stderr.startswith("rt: config.json: process.terminal: needs a devpts")
    assert '"newinstance"' in done.stderr
