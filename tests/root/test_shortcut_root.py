"""The launcher's short way with cgroups: what is frozen, what is in them, that they go with the container."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab import shortcuts
from lab.runtime import Runtime
from lab.shortcuts import LONG, Alone, remains, told
from lab.waiting import has_ended

BOX = "c"


@pytest.fixture
def asleep(root_bundle: MakeBundle) -> str:
    """A bundle whose containers have cgroups of a name of this run alone."""
    box = root_bundle("exec sleep 1000")
    box.change(lambda config: config["linux"].update(cgroupsPath=f"/rt-shortcut-{os.getpid()}/box"))
    return str(box.path)


@pytest.fixture
def by_itself(root_rt: Runtime, alone: Path) -> Alone:
    return Alone(alone, root_rt)


def directories(rt: Runtime) -> list[Path]:
    """The container's cgroups."""
    cgroup = json.loads((rt.root / BOX / "state.json").read_text())["cgroup"]
    if cgroup["kind"] == "none":
        pytest.skip(f"no cgroups here: {cgroup['reason']}")
    return [Path(path) for path in cgroup.get("paths", {"": cgroup.get("path")}).values()]


def test_a_life_is_short_from_start_to_delete(root_rt: Runtime, asleep: str, by_itself: Alone) -> None:
    shortcuts.created(root_rt, asleep)
    cgroups = directories(root_rt)
    assert all(path.is_dir() for path in cgroups)
    for words in (["state", BOX], ["start", BOX], ["state", BOX], ["kill", BOX, "CONT"], ["kill", BOX, "9"]):
        assert by_itself.can(*words), words
    root_rt.wait_for(BOX, "stopped")
    assert by_itself.can("kill", "--all", BOX, "9"), "as engines call it when all has ended"
    assert by_itself.can("delete", BOX)
    assert remains(root_rt) == {} and not any(path.exists() for path in cgroups)
    assert not any(path.parent.exists() for path in cgroups if path.parent.name.startswith("rt-shortcut"))


@pytest.mark.parametrize("state", ["created", "running"])
def test_force_ends_what_runs(root_rt: Runtime, asleep: str, by_itself: Alone, state: str) -> None:
    getattr(shortcuts, state)(root_rt, asleep)
    pid, cgroups = root_rt.state(BOX)["pid"], directories(root_rt)
    done = by_itself("delete", "--force", BOX)
    if done.returncode:  # a cgroup may be busy for a moment after its last process: Python waits for that
        root_rt.ok("delete", "--force", BOX)
    assert has_ended(pid)
    assert remains(root_rt) == {} and not any(path.exists() for path in cgroups)


def test_a_paused_container_is_told_as_such_and_not_deleted(
    root_rt: Runtime, asleep: str, by_itself: Alone
) -> None:
    shortcuts.running(root_rt, asleep)
    directories(root_rt)
    root_rt.ok("pause", BOX)
    short, long = by_itself("state", BOX), root_rt(*LONG, "state", BOX)
    assert told(root_rt, short) == told(root_rt, long) and json.loads(short.stdout)["status"] == "paused"
    for words in (["delete", BOX], ["delete", "--force", BOX], ["kill", BOX, "KILL"], ["start", BOX]):
        assert not by_itself.can(*words), words
    root_rt.ok("kill", BOX, "KILL")  # Python thaws it
    root_rt.wait_for(BOX, "stopped")


def test_all_is_short_for_one_process_alone(root_rt: Runtime, asleep: str, by_itself: Alone) -> None:
    shortcuts.running(root_rt, asleep)
    directories(root_rt)
    root_rt.ok("exec", "--detach", BOX, "/bin/sleep", "1001")
    assert not by_itself.can("kill", "--all", BOX, "TERM")
    root_rt.ok("delete", "--force", BOX)
    shortcuts.running(root_rt, asleep)
    assert by_itself.can("kill", "--all", BOX, "9")
    root_rt.wait_for(BOX, "stopped")


def test_a_pid_namespace_of_others_makes_kill_long(
    root_rt: Runtime, root_bundle: MakeBundle, by_itself: Alone
) -> None:
    box = root_bundle("exec sleep 1000")
    box.change(
        lambda config: config["linux"].update(
            namespaces=[one for one in config["linux"]["namespaces"] if one["type"] != "pid"]
        )
    )
    shortcuts.running(root_rt, str(box.path))
    directories(root_rt)
    assert by_itself.can("state", BOX) and by_itself.can("kill", BOX, "CONT")
    assert not by_itself.can("kill", BOX, "KILL") and not by_itself.can("delete", "--force", BOX)


def test_from_within_its_cgroup_python_looks_closely(root_rt: Runtime, asleep: str, alone: Path) -> None:
    """Whatever is in it is going to be killed: the very command among it."""
    shortcuts.running(root_rt, asleep)
    entered = "".join(f"echo $$ > {path}/cgroup.procs; " for path in directories(root_rt))
    words = f'{entered} exec "$0" --root "$1" state {BOX}'
    done = subprocess.run(
        ["sh", "-c", words, alone, root_rt.root], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "rootless_rt" in done.stderr, done


def test_a_cgroup_that_is_none_any_more_is_left_alone(
    root_rt: Runtime, asleep: str, by_itself: Alone, place: Path
) -> None:
    """Where something else lies at its path, in this mount namespace, nothing of that is removed."""
    shortcuts.stopped(root_rt, asleep)
    path = directories(root_rt)[0]
    script = (
        f'mount -t tmpfs none {path.parent} && mkdir {path} && "$0" --root "$1" delete {BOX}; test -d {path}'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, by_itself.program, root_rt.root],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "rootless_rt" in done.stderr, done
    assert "state.json" in remains(root_rt)[BOX]
