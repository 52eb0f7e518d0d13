"""Filters that notify an agent: the listener is handed over before the program makes its first call."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle, Config
from lab.inside import held, read, refusal
from lab.leftovers import Ground
from lab.runtime import Runtime
from lab.seccomp_agent import ON, Agent, agent_of, always
from lab.terminal import Session
from lab.users import User
from lab.waiting import PATIENCE, has_ended

from rootless_rt.host.seccomp import library_file

pytestmark = pytest.mark.skipif(library_file() is None, reason="libseccomp.so.2 is not installed")


def number(name: str) -> int:
    library = ctypes.CDLL(library_file() or "")
    native: int = library.seccomp_syscall_resolve_name(name.encode())
    return native


@pytest.fixture
def path(place: Path) -> Path:
    return place / "agent.sock"


@pytest.fixture
def denying(alice: User, path: Path) -> Iterator[Agent]:
    """An agent for whom every disk is full."""
    with agent_of(alice, path, always(errno.ENOSPC)) as agent:
        yield agent


@pytest.fixture
def permitting(alice: User, path: Path) -> Iterator[Agent]:
    with agent_of(alice, path, always(ON)) as agent:
        yield agent


def notifying(box: Bundle, path: Path, *names: str, no_new_privs: bool = True, **more: Any) -> Bundle:
    """A bundle whose calls of these names are for the agent."""

    def change(config: Config) -> None:
        config["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": str(path),
            "syscalls": [{"names": list(names), "action": "SCMP_ACT_NOTIFY"}],
            **more,
        }
        config["process"]["noNewPrivileges"] = no_new_privs

    return box.change(change)


MKDIR = ("mkdir", "mkdirat")
MAKES = "mkdir /d 2>&1; echo end"
FULL = "mkdir: can't create directory '/d': No space left on device\nend\n"


@pytest.mark.covers("linux.seccomp.listenerPath", "linux.seccomp.syscalls[].action")
@pytest.mark.parametrize("no_new_privs", [True, False])
def test_run_leaves_the_answer_to_the_agent(
    rt: Runtime, bundle: MakeBundle, path: Path, denying: Agent, no_new_privs: bool
) -> None:
    box = notifying(bundle(MAKES), path, *MKDIR, no_new_privs=no_new_privs)
    assert rt.ok("run", "-b", str(box.path), "c") == FULL
    assert {call for _, call in denying.calls} <= {number(name) for name in MKDIR}
    assert len(denying.calls) == 1


@pytest.mark.covers("linux.seccomp.listenerMetadata")
def test_the_agent_gets_the_container_process_state(
    rt: Runtime, bundle: MakeBundle, path: Path, permitting: Agent
) -> None:
    box = notifying(bundle(), path, *MKDIR, listenerMetadata="grüße\n<&>")
    box.change(lambda config: config.update(annotations={"org.example": "ä"}))
    pid = held(rt, box, "c")
    (state,) = permitting.states(1)
    assert state == {
        "ociVersion": box.config["ociVersion"],
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": "grüße\n<&>",
        "state": {
            "ociVersion": box.config["ociVersion"],
            "id": "c",
            "status": "created",
            "pid": pid,
            "bundle": str(box.path),
            "annotations": {"org.example": "ä"},
        },
    }
    assert list(state) == ["ociVersion", "fds", "pid", "metadata", "state"]
    assert len(permitting.fds) == 1
    assert "seccomp notify" in os.readlink(f"/proc/self/fd/{permitting.fds[0]}")


@pytest.mark.covers("linux.seccomp.listenerPath")
def test_create_waits_without_a_filter_and_start_hands_over(
    rt: Runtime, bundle: MakeBundle, path: Path, denying: Agent, place: Path, alice: User
) -> None:
    box = notifying(bundle(MAKES), path, *MKDIR)
    out = place / "out"
    with out.open("wb") as file:
        rt.ok("create", "-b", str(box.path), "c", stdout=file)
    assert denying.states() == []
    rt.ok("start", "c")
    rt.wait_for("c", "stopped")
    assert out.read_text() == FULL
    (state,) = denying.states(1)
    assert state["state"]["status"] == "created"
    assert state["pid"] == state["state"]["pid"] > 0


def test_hooks_and_debugging_come_before_the_hand_over(
    rt: Runtime, bundle: MakeBundle, path: Path, denying: Agent
) -> None:
    box = notifying(bundle("exec sleep 1000"), path, *MKDIR)
    hook = {"path": "/bin/mkdir", "args": ["mkdir", "/by-hook"]}
    box.change(lambda config: config.update(hooks={"startContainer": [hook]}))
    assert rt("--debug", "create", "-b", str(box.path), "c").returncode == 0
    rt.ok("start", "c")
    assert rt.state("c")["status"] == "running"
    assert len(denying.states(1)) == 1 and denying.calls == []
    assert (box.rootfs / "by-hook").is_dir()
    done = rt("--debug", "exec", "c", "sh", "-c", MAKES)
    assert (done.returncode, done.stdout) == (0, FULL)


def test_a_start_that_fails_is_reported_also_after_a_create_with_debugging(
    rt: Runtime, bundle: MakeBundle
) -> None:
    box = bundle()
    hook = {"path": "/bin/false", "args": ["false"]}
    box.change(lambda config: config.update(hooks={"startContainer": [hook]}))
    assert rt("--debug", "create", "-b", str(box.path), "c").returncode == 0
    done = rt("start", "c")
    assert done.returncode == 1 and "hooks.startContainer[0]" in done.stderr


def test_a_terminal_and_an_agent_go_together(
    rt: Runtime, bundle: MakeBundle, path: Path, denying: Agent
) -> None:
    box = notifying(bundle(f"tty; {MAKES}"), path, *MKDIR)
    box.change(lambda config: config["process"].update(terminal=True))
    with Session(rt, "run", "-b", str(box.path), "c") as session:
        session.expect("/dev/")
        session.expect("No space left on device")


@pytest.mark.covers("linux.seccomp.listenerPath")
def test_exec_has_a_listener_of_its_own(rt: Runtime, bundle: MakeBundle, path: Path, denying: Agent) -> None:
    pid = held(rt, notifying(bundle(), path, *MKDIR), "c")
    assert rt.ok("exec", "c", "sh", "-c", MAKES) == FULL
    first, second = denying.states(2)
    assert first["pid"] == pid == second["state"]["pid"] != second["pid"]
    assert second["state"]["status"] == "running"
    assert len(denying.calls) == 1


# The tail of rt-init: what it does while the filter is active already.
TAIL = (
    *("sendmsg", "sendto", "recvmsg", "recvfrom", "close", "close_range", "dup", "dup2", "fcntl", "ioctl"),
    *("munmap", "mprotect", "madvise", "brk", "clone", "clone3", "futex", "nanosleep", "clock_nanosleep"),
    *(
        "exit",
        "sched_yield",
        "rt_sigprocmask",
        "rt_sigaction",
        "set_robust_list",
        "gettid",
        "seccomp",
        "prctl",
    ),
)


def test_no_call_before_the_program_is_left_to_the_agent(
    rt: Runtime, bundle: MakeBundle, path: Path, alice: User
) -> None:
    # Whatever rt-init called by itself would fail.
    with agent_of(alice, path, always(errno.EPERM)) as agent:
        box = notifying(bundle("echo here"), path, "sendmsg", "sendto", "recvmsg", "recvfrom", "nanosleep")
        assert rt.ok("run", "-b", str(box.path), "c") == "here\n"
        assert len(agent.states(1)) == 1 and agent.calls == []


def test_the_first_call_the_agent_hears_of_is_the_program_s_execve(
    rt: Runtime, bundle: MakeBundle, path: Path, permitting: Agent
) -> None:
    box = notifying(bundle(["/bin/true"]), path, "execve", *TAIL)
    rt.ok("run", "-b", str(box.path), "c")
    assert permitting.calls[0][1] == number("execve")


def test_an_agent_that_denies_the_execve_makes_the_run_fail(
    rt: Runtime, bundle: MakeBundle, path: Path, alice: User
) -> None:
    with agent_of(alice, path, always(errno.EACCES)):
        stderr = refusal(rt, notifying(bundle(["/bin/true"]), path, "execve"))
    assert stderr.startswith('rt: exec: "/bin/true": permission denied')


def test_nothing_of_the_hand_over_stays_in_the_container(
    rt: Runtime, bundle: MakeBundle, path: Path, permitting: Agent
) -> None:
    pid = held(rt, notifying(bundle(), path, *MKDIR), "c")
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert len(links) == 3 and not any("seccomp" in link or "socket" in link for link in links)
    assert os.listdir(f"/proc/{pid}/task") == [str(pid)]
    assert read(pid, f"task/{pid}/children") == ""
    status = dict(line.split(":\t", 1) for line in read(pid, "status").splitlines())
    assert (status["Threads"], status["Seccomp"]) == ("1", "2")


def test_the_program_has_the_pid_and_the_children_that_it_would_have_without(
    rt: Runtime, bundle: MakeBundle, path: Path, permitting: Agent
) -> None:
    box = notifying(bundle("echo $$; ls -d /proc/[0-9]* | wc -l"), path, *MKDIR)
    pid, count = rt.ok("run", "-b", str(box.path), "c").split()
    assert pid == "1" and count in ("2", "3")  # sh, ls, and wc if it is there already


@pytest.mark.covers("linux.seccomp.flags")
def test_waiting_for_the_agent_can_be_killable(
    rt: Runtime, bundle: MakeBundle, path: Path, denying: Agent
) -> None:
    if "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" not in rt.ok("features"):
        pytest.skip("this kernel has no WAIT_KILLABLE_RECV")
    flags = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"]
    box = notifying(bundle(MAKES), path, *MKDIR, flags=[*flags, "SECCOMP_FILTER_FLAG_LOG"])
    assert rt.ok("run", "-b", str(box.path), "c") == FULL


@pytest.mark.covers("linux.seccomp.listenerPath")
@pytest.mark.parametrize("what", ["nothing", "a file", "a directory"])
def test_a_listener_path_without_a_socket_is_refused_before_anything_is_made(
    rt: Runtime, bundle: MakeBundle, path: Path, what: str
) -> None:
    if what == "a file":
        path.write_text("")
    elif what == "a directory":
        path.mkdir()
    stderr = refusal(rt, notifying(bundle(), path, *MKDIR))
    expected = "no such file or directory" if what == "nothing" else "is not a unix socket"
    assert stderr.startswith("rt: config.json: linux.seccomp.listenerPath") and expected in stderr
    assert "hint: start the seccomp agent" in stderr


@pytest.fixture
def deaf(path: Path, alice: User) -> Path:
    """A socket that nobody listens on any more."""
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.close()
    alice.owns(path)
    return path


def test_an_agent_that_has_ended_is_an_error_of_run_that_leaves_nothing(
    rt: Runtime, bundle: MakeBundle, deaf: Path
) -> None:
    ground = Ground(rt, "refused")
    stderr = refusal(rt, notifying(bundle(), deaf, *MKDIR))
    assert stderr.startswith(f"rt: linux.seccomp.listenerPath {deaf}: connection refused")
    ground.clean()


def test_a_container_can_be_started_again_once_its_agent_is_there(
    rt: Runtime, bundle: MakeBundle, deaf: Path, alice: User
) -> None:
    rt.ok("create", "-b", str(notifying(bundle("exec sleep 1000"), deaf, *MKDIR).path), "c")
    done = rt("start", "c")
    assert done.returncode == 1 and "connection refused" in done.stderr
    assert rt.state("c")["status"] == "created"
    deaf.unlink()
    with agent_of(alice, deaf) as agent:
        rt.ok("start", "c")
        assert rt.state("c")["status"] == "running"
        assert agent.states(1)[0]["pid"] == rt.state("c")["pid"]


def test_without_an_agent_exec_fails_and_the_container_goes_on(
    rt: Runtime, bundle: MakeBundle, path: Path, alice: User
) -> None:
    with agent_of(alice, path):
        held(rt, notifying(bundle(), path, *MKDIR), "c")
    done = rt("exec", "c", "true")
    assert done.returncode == 255 and "connection refused" in done.stderr
    assert rt.state("c")["status"] == "running"


def test_a_listener_path_without_a_notifying_rule_is_ignored(
    rt: Runtime, bundle: MakeBundle, path: Path
) -> None:
    box = notifying(bundle(["/bin/true"]), path, *MKDIR)
    box.config["linux"]["seccomp"]["syscalls"][0]["action"] = "SCMP_ACT_ERRNO"
    box.write()
    rt.ok("run", "-b", str(box.path), "c")


def test_a_start_that_is_killed_while_the_agent_is_late_leaves_no_process(
    rt: Runtime, bundle: MakeBundle, path: Path, alice: User
) -> None:
    # Its state is larger than what a socket holds: `start` waits in the middle of the hand-over.
    ground = Ground(rt, "c")
    box = notifying(bundle("exec sleep 1000"), path, *MKDIR, listenerMetadata="x" * (4 << 20))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    alice.owns(path)
    rt.ok("create", "-b", str(box.path), "c")
    pid = rt.state("c")["pid"]
    start = rt.popen("start", "c", stderr=subprocess.DEVNULL)
    taken, _ = listener.accept()
    taken.recv(1)
    assert rt.state("c")["status"] != "stopped"
    start.kill()
    start.wait(PATIENCE)
    rt.wait_for("c", "stopped")
    assert has_ended(pid)
    rt.ok("delete", "c")
    taken.close()
    listener.close()
    ground.clean()


def test_a_container_that_is_killed_in_the_middle_of_the_hand_over_ends_the_start(
    rt: Runtime, bundle: MakeBundle, path: Path, alice: User
) -> None:
    box = notifying(bundle("exec sleep 1000"), path, *MKDIR, listenerMetadata="x" * (4 << 20))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    alice.owns(path)
    rt.ok("create", "-b", str(box.path), "c")
    start = rt.popen("start", "c", stderr=subprocess.DEVNULL)
    taken, _ = listener.accept()
    taken.recv(1)
    rt.ok("kill", "c", "KILL")
    rt.wait_for("c", "stopped")
    while taken.recv(1 << 20):
        pass
    start.wait(PATIENCE)
    rt.ok("delete", "c")
    taken.close()
    listener.close()
