"""The processes of a root's container: shown, paused, and all of them signalled, by its cgroup."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.inside import set_namespace
from lab.runtime import Runtime
from lab.waiting import command, until

TWO = "sleep 4421 & exec sleep 4422"


def processes(rt: Runtime, container: str, number: int) -> list[int]:
    def listed() -> list[int]:
        return list(json.loads(rt.ok("ps", "--format", "json", container)))

    until(lambda: len(listed()) == number, lambda: f"{number} are in it, not {listed()}")
    return listed()


@pytest.mark.covers("ps", "ps --format")
@pytest.mark.parametrize("own", [True, False])
def test_the_processes_of_its_cgroup_are_the_container_s(
    root_rt: Runtime, root_bundle: MakeBundle, own: bool
) -> None:
    box = root_bundle(TWO)
    if not own:
        set_namespace(box, "pid", absent=True)
    root_rt.ok("run", "-d", "-b", str(box.path), "c")
    pids = processes(root_rt, "c", 2)
    wanted = [["sleep", "4421"], ["sleep", "4422"]]
    until(lambda: sorted(map(command, pids)) == wanted, lambda: f"{wanted}, not {[*map(command, pids)]}")
    assert len(root_rt.ok("ps", "c").splitlines()) == 3


@pytest.mark.covers("pause", "resume", "exec --ignore-paused")
def test_a_container_is_paused_and_resumed(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    root_rt.ok("run", "-d", "-b", str(root_bundle(TWO).path), "c")
    root_rt.ok("pause", "c")
    assert root_rt.state("c")["status"] == "paused"
    assert json.loads(root_rt.ok("list", "-f", "json"))[0]["status"] == "paused"
    assert root_rt("pause", "c").returncode == 1
    root_rt.ok("resume", "c")
    assert root_rt.state("c")["status"] == "running"
    assert root_rt("resume", "c").returncode == 1


@pytest.mark.covers("kill", "delete --force")
def test_a_frozen_container_dies_when_it_is_killed(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    # A process that the freezer of cgroup v1 has stopped does not even die.
    box = str(root_bundle(TWO).path)
    root_rt.ok("run", "-d", "-b", box, "c")
    root_rt.ok("pause", "c")
    root_rt.ok("kill", "c", "KILL")
    root_rt.wait_for("c", "stopped")
    root_rt.ok("delete", "c")
    root_rt.ok("run", "-d", "-b", box, "c")
    root_rt.ok("pause", "c")
    root_rt.ok("delete", "--force", "c")


@pytest.mark.covers("kill --all")
def test_kill_all_reaches_every_process_of_a_shared_pid_namespace(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    box = set_namespace(root_bundle("trap '' USR1; sleep 4423 & exec sleep 4424"), "pid", absent=True)
    root_rt.ok("run", "-d", "-b", str(box.path), "c")
    processes(root_rt, "c", 2)
    root_rt.ok("kill", "--all", "c", "TERM")
    root_rt.wait_for("c", "stopped")
    root_rt.ok("kill", "--all", "c", "9")
    root_rt.ok("delete", "c")
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _is(path, b"sleep\x004423\0")]


def _is(path: Path, command: bytes) -> bool:
    try:
        return path.read_bytes() == command
    except OSError:
        return False
