"""Descriptors that come with a call: --pidfd-socket, LISTEN_FDS and --preserve-fds, as user and as root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.execs import listening, taken
from lab.inside import held, set_namespace
from lab.runtime import Runtime
from lab.waiting import becomes
from lab.wrapped import after

# What a service manager does for its service; two descriptors more than it tells of are open.
ACTIVATED = "exec 3<{0}/a 4<{0}/b 5<{0}/c; export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web:admin"
SHOW = "echo $LISTEN_FDS $LISTEN_FDNAMES $((LISTEN_PID - $$)); cat <&3; cat <&4; cat <&5"


class Lane:
    """Whose containers they are."""

    def __init__(self, rt: Runtime, bundle: MakeBundle) -> None:
        self.rt = rt
        self.bundle = bundle


@pytest.fixture(params=["user", "root"])
def lane(request: pytest.FixtureRequest) -> Lane:
    names = ("rt", "bundle") if request.param == "user" else ("root_rt", "root_bundle")
    return Lane(*map(request.getfixturevalue, names))


def numbered(pidfd: int) -> int:
    """The process that a pidfd refers to."""
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("Pid:")).split()[1])


@pytest.mark.covers("exec --pidfd-socket", "exec --pid-file", "exec --detach")
def test_exec_sends_a_pidfd_of_its_program(lane: Lane, place: Path) -> None:
    held(lane.rt, lane.bundle(), "c")
    pids = place / "pids"
    pids.mkdir()
    lane.rt.user.owns(pids)
    with listening(place / "pidfd.sock", lane.rt.user) as server:
        options = ["--pidfd-socket", str(place / "pidfd.sock"), "--pid-file", str(pids / "pid")]
        lane.rt.ok("exec", "-d", *options, "c", "sleep", "432")
        text, pidfd = taken(server)
    pid = numbered(pidfd)
    os.close(pidfd)
    assert text == "setns"
    assert int((pids / "pid").read_text()) == pid
    becomes(pid, "sleep", "432")


@pytest.mark.parametrize("command", ["create", "run"])
@pytest.mark.covers("create --pidfd-socket", "run --pidfd-socket")
def test_a_container_s_pidfd_is_sent(lane: Lane, place: Path, command: str) -> None:
    box = lane.bundle(["/bin/sleep", "100"])
    detach = ["-d"] if command == "run" else []
    with listening(place / "pidfd.sock", lane.rt.user) as server:
        socket = str(place / "pidfd.sock")
        lane.rt.ok(command, *detach, "--pidfd-socket", socket, "-b", str(box.path), "c")
        text, pidfd = taken(server)
    assert (text, numbered(pidfd)) == ("standard", lane.rt.state("c")["pid"])
    os.close(pidfd)


@pytest.mark.covers("exec --pidfd-socket")
def test_a_socket_that_nobody_listens_on_is_refused_before_anything_runs(lane: Lane, place: Path) -> None:
    box = lane.bundle()
    held(lane.rt, box, "c")
    done = lane.rt("exec", "--pidfd-socket", str(place / "none"), "c", "touch", "/tmp/ran")
    assert done.returncode == 255
    assert done.stderr.startswith(f"rt: --pidfd-socket {place}/none: no such file or directory\n")
    assert not (box.rootfs / "tmp/ran").exists()


def activated(lane: Lane, place: Path) -> Runtime:
    for name in "abc":
        (place / name).write_text(f"{name}\n")
    return after(lane.rt, ACTIVATED.format(place))


@pytest.mark.covers("LISTEN_FDS", "run --preserve-fds")
def test_sockets_of_the_service_manager_reach_the_container(lane: Lane, place: Path) -> None:
    box = lane.bundle(SHOW)
    done = activated(lane, place)("run", "-b", str(box.path), "c")
    assert done.stdout.split() == ["2", "web:admin", "0", "a", "b"], done
    said = activated(lane, place).ok("run", "--preserve-fds", "1", "-b", str(box.path), "c")
    assert said.split() == ["2", "web:admin", "0", "a", "b", "c"]


@pytest.mark.covers("LISTEN_FDS")
def test_they_wait_with_a_created_container(lane: Lane, place: Path) -> None:
    box = lane.bundle(f"{{ {SHOW}; }} > /tmp/said 2>&1")
    activated(lane, place).ok("create", "-b", str(box.path), "c")
    lane.rt.ok("start", "c")
    lane.rt.wait_for("c", "stopped")
    assert (box.rootfs / "tmp/said").read_text().split()[:5] == ["2", "web:admin", "0", "a", "b"]


@pytest.mark.covers("LISTEN_FDS", "exec --preserve-fds")
def test_exec_passes_them_with_the_program_s_own_number(lane: Lane, place: Path) -> None:
    held(lane.rt, lane.bundle(), "c")
    said = activated(lane, place).ok("exec", "--preserve-fds", "1", "c", "sh", "-c", SHOW)
    assert said.split() == ["2", "web:admin", "0", "a", "b", "c"]


@pytest.mark.covers("LISTEN_FDS", "linux.namespaces[].type pid")
def test_the_number_is_right_without_a_pid_namespace_too(lane: Lane, place: Path) -> None:
    box = set_namespace(lane.bundle(SHOW), "pid", absent=True)
    done = activated(lane, place)("--degrade=warn", "run", "--preserve-fds", "1", "-b", str(box.path), "c")
    assert done.stdout.split() == ["2", "web:admin", "0", "a", "b", "c"], done.stderr


@pytest.mark.covers("LISTEN_FDS")
@pytest.mark.parametrize(
    "environment",
    ["LISTEN_FDS=2 LISTEN_PID=1", "LISTEN_FDS=2", "LISTEN_PID=$$", "LISTEN_FDS=x LISTEN_PID=$$",
     "LISTEN_FDS=-1 LISTEN_PID=$$", "LISTEN_FDS='2 ' LISTEN_PID=$$", "LISTEN_FDS=2 LISTEN_PID=\" $$\""],
)  # fmt: skip
def test_what_is_not_meant_for_this_process_is_not_passed_on(
    lane: Lane, place: Path, environment: str
) -> None:
    box = lane.bundle("echo ${LISTEN_FDS-none} ${LISTEN_PID-none}; ls /proc/self/fd")
    script = f"exec 3<{place} 4<{place}; export LISTEN_FDNAMES=a:b {environment}"
    said = after(lane.rt, script).ok("run", "-b", str(box.path), "c")
    assert said.split() == ["none", "none", "0", "1", "2", "3"]  # 3: ls has the directory open


@pytest.mark.covers("LISTEN_FDS")
@pytest.mark.parametrize("number", ["3", "2147483647", "99999999999999999999"])
def test_more_than_are_open_are_refused(lane: Lane, place: Path, number: str) -> None:
    box = lane.bundle("true")
    script = f"exec 3<{place} 4<{place}; export LISTEN_FDS={number} LISTEN_PID=$$"
    done = after(lane.rt, script)("run", "-b", str(box.path), "c")
    assert done.returncode == 1 and "file descriptor 5 is not open" in done.stderr
    assert done.stderr.count("\n") == 2
