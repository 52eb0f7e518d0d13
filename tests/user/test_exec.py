"""`rt exec` as an ordinary user: a further process in a container that runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import held, read
from lab.leftovers import Ground
from lab.ranges import map_ranges
from lab.runtime import Runtime
from lab.terminal import Master, Session
from lab.users import User
from lab.wrapped import after

READY = "\x1b[ready"  # not in what is typed, so that its echo is not taken for it
SAY_READY = r"printf '\033[ready'; "
NAMESPACES = ("user", "pid", "mnt", "uts", "ipc", "cgroup", "net")


@pytest.fixture
def c(rt: Runtime, bundle: MakeBundle) -> int:
    """The container `c`, own id mapped; the pid of its first process."""
    return held(rt, bundle(), "c")


@pytest.fixture
def wide(rt: Runtime, bundle: MakeBundle, alice: User) -> int:
    """The container `c` with alice's whole range mapped."""
    return held(rt, map_ranges(bundle(), alice), "c")


def sh(rt: Runtime, script: str, *options: str) -> str:
    """What a script prints that is executed in `c` to a good end."""
    return rt.ok("exec", *options, "c", "sh", "-c", script).strip()


def refused(rt: Runtime, *words: str) -> str:
    """The stderr of an exec that fails as it should: 255, one line and at most one hint."""
    done = rt("exec", *words)
    assert (done.returncode, done.stdout) == (255, ""), (done.returncode, done.stdout, done.stderr)
    first, *hints = done.stderr.splitlines()
    assert first.startswith("rt: ") and not first.endswith("."), done.stderr
    assert len(hints) <= 1 and all(hint.startswith("hint: ") for hint in hints), done.stderr
    assert "internal error" not in done.stderr
    return done.stderr


def status(text: str) -> dict[str, str]:
    """proc_pid_status(5) as a table."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def mask(*bits: int) -> int:
    return sum(1 << bit for bit in bits)


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


# User, groups, capabilities


@pytest.mark.covers("exec --user")
def test_the_user_is_the_one_asked_for(rt: Runtime, wide: int) -> None:
    assert sh(rt, "id -u; id -g").split() == ["0", "0"]
    assert sh(rt, "id -u; id -g", "-u", "5").split() == ["5", "0"]
    assert sh(rt, "id -u; id -g", "--user", "5:6").split() == ["5", "6"]


@pytest.mark.covers("exec --additional-gids")
def test_groups_are_added(rt: Runtime, wide: int) -> None:
    assert sh(rt, "id -G", "-u", "5:6", "-g", "7", "-g", "8").split() == ["6", "7", "8"]


def test_an_unmapped_user_is_refused(rt: Runtime, c: int) -> None:
    assert "process.user.uid: uid 5 is not mapped" in refused(rt, "-u", "5", "c", "id")
    assert "process.user.gid: gid 6 is not mapped" in refused(rt, "-u", "0:6", "c", "id")


WRONG_IDS = ["1_0", " 1", "+1", "-1", "1:", ":1", "4294967295", "root", ":", "1:2:3", "1 ", "\u0661"]


@pytest.mark.parametrize("word", WRONG_IDS)
def test_a_user_that_is_no_number_is_refused(rt: Runtime, wide: int, word: str) -> None:
    assert "--user: " in refused(rt, f"--user={word}", "c", "id")


@pytest.mark.parametrize("word", ["1_0", " 1", "+1", "4294967295", "wheel"])
def test_a_group_that_is_no_number_is_refused(rt: Runtime, wide: int, word: str) -> None:
    assert "--additional-gids: " in refused(rt, f"--additional-gids={word}", "c", "id")


def capabilities(rt: Runtime, *options: str) -> dict[str, int]:
    said = status(rt.ok("exec", *options, "c", "cat", "/proc/self/status"))
    return {name: int(said[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


def having(box: Bundle, **sets: list[str]) -> Bundle:
    return box.change(lambda config: config["process"].update(capabilities=sets))


@pytest.mark.covers("exec --cap")
def test_an_added_capability_is_never_inheritable_nor_ambient(rt: Runtime, bundle: MakeBundle) -> None:
    kill = ["CAP_KILL"]
    held(rt, having(bundle(), bounding=kill, effective=kill, permitted=kill), "c")
    both = mask(5, 13)
    expected = {"CapInh": 0, "CapPrm": both, "CapEff": both, "CapBnd": both, "CapAmb": 0}
    assert capabilities(rt, "--cap", "CAP_NET_RAW") == expected
    assert capabilities(rt, "-c", "net_raw") == expected
    assert capabilities(rt)["CapEff"] == mask(5)


def test_an_added_capability_does_not_pass_on_where_others_are_inheritable(
    rt: Runtime, bundle: MakeBundle
) -> None:
    kill = ["CAP_KILL"]
    box = having(bundle(), bounding=kill, effective=kill, permitted=kill, inheritable=kill, ambient=kill)
    held(rt, box, "c")
    had = capabilities(rt, "--cap", "CAP_NET_RAW")
    assert (had["CapInh"], had["CapAmb"], had["CapEff"]) == (mask(5), mask(5), mask(5, 13))


def test_an_unknown_capability_is_refused(rt: Runtime, c: int) -> None:
    assert "--cap: unknown capability" in refused(rt, "--cap", "CAP_NONE", "c", "id")


@pytest.mark.covers("exec --no-new-privs")
def test_no_new_privs_is_set_when_asked_for(rt: Runtime, bundle: MakeBundle) -> None:
    held(rt, bundle().change(lambda config: config["process"].update(noNewPrivileges=False)), "c")
    show = ("c", "cat", "/proc/self/status")
    assert status(rt.ok("exec", *show))["NoNewPrivs"] == "0"
    assert status(rt.ok("exec", "--no-new-privs", *show))["NoNewPrivs"] == "1"


@pytest.mark.covers("process.rlimits")
def test_limits_of_the_config_apply(rt: Runtime, bundle: MakeBundle) -> None:
    limit = [{"type": "RLIMIT_NOFILE", "soft": 57, "hard": 91}]
    held(rt, bundle().change(lambda config: config["process"].update(rlimits=limit)), "c")
    assert sh(rt, "ulimit -Sn; ulimit -Hn").split() == ["57", "91"]


@pytest.mark.parametrize("no_new_privs", [True, False])
def test_the_filter_of_the_config_applies(rt: Runtime, bundle: MakeBundle, no_new_privs: bool) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}

    def change(config: dict[str, Any]) -> None:
        config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
        config["process"]["noNewPrivileges"] = no_new_privs

    held(rt, bundle().change(change), "c")
    done = rt("exec", "c", "mkdir", "/tmp/made")
    assert done.returncode == 1 and "quota exceeded" in done.stderr.lower()
    said = status(rt.ok("exec", "c", "cat", "/proc/self/status"))
    assert said["Seccomp"] == "2" and said["CapEff"] == status(read_status(rt))["CapEff"]


def read_status(rt: Runtime) -> str:
    return read(rt.state("c")["pid"], "status")


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
    pid = detached(rt, place, "sleep", "100")
    assert read(pid, "cgroup") == read(c, "cgroup")


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
        shell.type("sleep 0.2; stty size\r")
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


@pytest.fixture
def listener(place: Path, alice: User) -> Iterator[tuple[socket.socket, str]]:
    path = str(place / "console.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        alice.owns(Path(path))
        server.listen(1)
        server.settimeout(20)
        yield server, path


def received(server: socket.socket) -> Master:
    connection = server.accept()[0]
    with connection:
        fds = socket.recv_fds(connection, 4096, 4)[1]
    assert len(fds) == 1
    return Master(fds[0])


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


def detached(rt: Runtime, place: Path, *words: str) -> int:
    """Execute a program detached in `c`; its pid on the host, from --pid-file."""
    file = rt.root.parent / "pids"
    if not file.exists():
        file.mkdir()
        rt.user.owns(file)
    rt.ok("exec", "-d", "--pid-file", str(file / "pid"), "c", *words)
    text = (file / "pid").read_text()
    assert text.isdigit()
    return int(text)


@pytest.mark.covers("exec --pid-file", "exec --detach")
def test_a_detached_program_goes_on_and_its_pid_is_written(rt: Runtime, c: int, place: Path) -> None:
    pid = detached(rt, place, "sleep", "765")
    assert read(pid, "cmdline") == "sleep\x00765\x00"
    assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{c}/ns/pid")


def test_input_and_output_are_the_caller_s(rt: Runtime, c: int) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with rt.popen("exec", "c", "sh", "-c", "cat; echo error >&2", **pipes) as process:
        out, err = process.communicate(b"x" * 300000, 30)
    assert (out, err, process.returncode) == (b"x" * 300000, b"error\n", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_signals_reach_the_program(rt: Runtime, c: int, number: signal.Signals) -> None:
    script = f"trap 'exit 5' {number.name[3:]}; echo ready; while :; do sleep 0.05; done"
    with rt.popen("exec", "c", "sh", "-c", script, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(20) == 5


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


# --process


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
    assert read(int((pids / "pid").read_text()), "cmdline") == "sleep\x00654\x00"


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


# States of the container


def test_an_unknown_container_is_refused(rt: Runtime) -> None:
    assert "does not exist" in refused(rt, "nobody", "id")


def test_a_stopped_container_is_refused(rt: Runtime, c: int) -> None:
    rt.ok("kill", "c", "KILL")
    rt.wait_for("c", "stopped")
    assert 'cannot exec in a container that is not running: "c" is stopped' in refused(rt, "c", "id")


def test_a_created_container_takes_a_process(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("create", "--bundle", str(bundle().path), "c")
    assert sh(rt, "echo in") == "in"
    assert rt.state("c")["status"] == "created"
    rt.ok("start", "c")
    rt.wait_for("c", "stopped")


def test_a_container_killed_meanwhile_ends_the_program(rt: Runtime, c: int) -> None:
    with rt.popen("exec", "c", "sh", "-c", "echo ready; sleep 100", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        rt.ok("kill", "c", "KILL")
        assert process.wait(20) == 137


def test_a_config_changed_after_create_has_no_effect(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle()
    held(rt, box, "c")
    box.change(lambda config: config["process"].update(env=["PATH=/nowhere"], cwd="/none"))
    assert sh(rt, "pwd; echo $PATH").split()[0] == "/"
    (box.path / "config.json").unlink()
    assert sh(rt, "pwd") == "/"


def test_twenty_at_once_all_end_well(rt: Runtime, c: int) -> None:
    started = [
        rt.popen("exec", "c", "sh", "-c", f"echo {index}; exit {index}", stdout=subprocess.PIPE)
        for index in range(20)
    ]
    for index, process in enumerate(started):
        out, _ = process.communicate(timeout=60)
        assert (out, process.returncode) == (f"{index}\n".encode(), index)


def contents(root: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def test_nothing_is_left_behind(rt: Runtime, c: int) -> None:
    before, ground = contents(rt.root), Ground(rt, "nothing-of-this-name")
    rt.ok("exec", "c", "true")
    rt("exec", "c", "nothing-such")
    rt("exec", "--cwd", "/missing", "c", "true")
    assert contents(rt.root) == before
    ground.clean()


def test_an_exec_that_is_killed_leaves_no_helper_behind(rt: Runtime, c: int) -> None:
    with rt.popen("exec", "c", "sh", "-c", "echo ready; sleep 100", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.kill()
        process.wait(20)
    rt.ok("kill", "c", "KILL")
    rt.wait_for("c", "stopped")
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{c}") and time.monotonic() < deadline:
        time.sleep(0.01)
    rt.ok("delete", "c")
