"""`rt run` of a kept plan by root, with cgroups: as through Python."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.kept import Kept
from lab.leftovers import Ground
from lab.runtime import RT, Runtime
from lab.shortcuts import LONG, told
from lab.waiting import PATIENCE

from rootless_rt import cgroups


@pytest.fixture
def kept(root_rt: Runtime, alone: Path, root_bundle: MakeBundle, place: Path) -> Kept:
    if cgroups.view().mode not in ("v1", "hybrid"):
        pytest.skip("the launcher makes cgroups of v1 alone")
    found = Kept(root_rt, alone, root_bundle("exit 7"), place / "unused")
    found.id = f"kept{os.getpid()}"
    return found


def keep(kept: Kept, script: str) -> subprocess.CompletedProcess[str]:
    kept.box.run(script)
    done = kept.through_python()
    assert "warning" not in done.stderr
    return done


SCRIPTS = {
    "cgroups": "cat /proc/self/cgroup; find /sys/fs/cgroup -maxdepth 1 | sort",
    "devices": "mknod /tmp/d b 7 77; cat /tmp/d; echo $?; cat /dev/null; echo $?",
    "processors": "cd /sys/fs/cgroup/cpuset; cat cpuset.cpus cpuset.mems; grep Cpus_ /proc/self/status",
    "privileges": "grep -E 'Cap|Uid|Seccomp|NoNew' /proc/self/status; ls /dev; mount | wc -l",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_kept_plan_gives_the_same(kept: Kept, name: str) -> None:
    keep(kept, SCRIPTS[name])
    ground = Ground(kept.rt, kept.id)
    first, second = kept.through_python(), kept.by_itself()
    assert second is not None and told(kept.rt, second) == told(kept.rt, first)
    assert list(kept.rt.root.iterdir()) == []
    ground.clean()


def test_a_place_that_the_config_names_is_made_and_removed(kept: Kept) -> None:
    place = f"/rt-{kept.id}"
    kept.box.change(lambda config: config["linux"].update(cgroupsPath=place))
    keep(kept, "cat /proc/self/cgroup")
    ground = Ground(kept.rt, place[1:])
    first, second = kept.through_python(), kept.by_itself()
    assert second is not None and told(kept.rt, second) == told(kept.rt, first)
    ground.clean()
    beside = Path("/sys/fs/cgroup/pids") / place[1:]
    beside.mkdir()
    try:
        assert kept.by_itself() is None
    finally:
        beside.rmdir()


def running(kept: Kept, script: str, by: Runtime) -> subprocess.Popen[bytes]:
    """A run with a program that has said `ready`; the first one, which keeps the plan, just ends."""
    (kept.box.rootfs / "first").touch()
    keep(kept, f"if [ -e /first ]; then rm /first; exit 0; fi; echo ready; {script}")
    process = by.popen(*kept.argv(), env=kept.environment, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    return process


def test_its_state_is_what_python_writes(kept: Kept) -> None:
    states = []
    # With a Python: whoever deletes it kills it first, and then both look at its cgroup.
    with running(kept, "sleep 1000", kept.rt) as process:
        states.append(json.loads((kept.rt.root / kept.id / "state.json").read_text()))
        assert kept.rt.ok("exec", kept.id, "echo", "in") == "in\n"
        kept.rt.ok("delete", "--force", kept.id)
        assert process.wait(PATIENCE) == 137
    with kept.rt.popen(*LONG, *kept.argv(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        states.append(json.loads((kept.rt.root / kept.id / "state.json").read_text()))
        kept.rt.ok("kill", kept.id, "KILL")
        process.wait(PATIENCE)
    short, long = states
    assert list(short) == list(long)
    for name in ("pid", "startTime", "created", "maker"):
        assert type(short.pop(name)) is type(long.pop(name))
    assert short == long and kept.id in str(short["cgroup"])


def test_what_has_been_killed_is_seen_off_by_python(kept: Kept) -> None:
    """It has a look at the cgroup, whether memory had run out; the launcher alone has nobody to ask."""
    ground = Ground(kept.rt, kept.id)
    with running(kept, "sleep 1000", kept.alone) as process:
        kept.rt.ok("kill", kept.id, "KILL")
        assert process.wait(PATIENCE) == 1
    assert [path.name for path in kept.rt.root.iterdir()] == [kept.id]
    kept.rt.ok("delete", kept.id)
    (kept.box.rootfs / "first").unlink(missing_ok=True)
    with subprocess.Popen([RT, *kept.rt.argv(*kept.argv())[1:]], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        kept.rt.ok("kill", kept.id, "KILL")
        assert process.wait(PATIENCE) == 137
    assert list(kept.rt.root.iterdir()) == []
    ground.clean()


def test_no_signal_keeps_what_has_been_killed_from_being_put_away(kept: Kept) -> None:
    ground = Ground(kept.rt, kept.id)
    (kept.box.rootfs / "first").touch()
    keep(kept, "if [ -e /first ]; then rm /first; exit 0; fi; echo ready; sleep 1000")
    with kept.rt.popen(*kept.argv(), env=kept.environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        directory = os.open(kept.rt.root / kept.id, os.O_RDONLY)
        fcntl.flock(directory, fcntl.LOCK_EX)
        status = Path(f"/proc/{process.pid}/syscall")
        waits = status.read_text().split()[0]
        kept.rt.ok("kill", kept.id, "KILL")
        while status.read_text().split()[0] in (waits, "running"):
            time.sleep(0.005)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            process.send_signal(number)
        os.close(directory)
        assert process.wait(PATIENCE) == 137
    assert list(kept.rt.root.iterdir()) == []
    ground.clean()


def test_real_root_believes_nothing_that_lies_in_a_home(kept: Kept, place: Path) -> None:
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    kept.box.run("exit 7")
    # The home is root's own here; a filesystem of somebody else's says that, too.
    script = """
        mount -t tmpfs -o mode=755 none /var/cache
        "$RT" "$@" || echo $?
        cd $HOME && mkdir -p .cache/rt && mv /var/cache/rt/plans .cache/rt/ && ls .cache/rt/plans | wc -l
        "$ALONE" "$@" || echo $?
    """
    home = place / "home"
    home.mkdir()
    words = ["unshare", "-m", "sh", "-c", script, *kept.alone.argv(*kept.argv())]
    environment = {**kept.environment, "HOME": str(home), "RT": RT, "ALONE": str(kept.alone.program)}
    del environment["XDG_CACHE_HOME"]
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["7", "1", "1"], done


def test_a_cgroup_that_is_there_is_python_s(kept: Kept) -> None:
    keep(kept, "exit 7")
    view = cgroups.view()
    place = Path(view.own_dir("pids") or view.mounts["pids"]) / kept.id
    place.mkdir()
    try:
        assert kept.by_itself() is None
        assert place.is_dir()
        assert kept.rt(*kept.argv()).returncode == 7
    finally:
        if place.is_dir():
            place.rmdir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_at_any_moment_leaves_nothing_that_delete_does_not_remove(kept: Kept, number: int) -> None:
    keep(kept, "exit 0")
    ground = Ground(kept.rt, kept.id)
    for step in range(16):
        with kept.alone.popen(*kept.argv(), stderr=subprocess.DEVNULL) as process:
            time.sleep(step / 1000)
            process.send_signal(number)
            assert process.wait(PATIENCE) in (0, 128 + number, -number)
        if number == signal.SIGKILL:
            kept.rt("delete", "--force", kept.id)
        assert list(kept.rt.root.iterdir()) == []
    ground.clean()


@pytest.mark.parametrize("limit", ["pids", "memory"])
def test_limits_are_python_s(kept: Kept, limit: str) -> None:
    if limit not in cgroups.view().mounts:
        pytest.skip(f"no controller {limit} of v1 is mounted here")
    kept.box.run("echo limited")
    value = {"pids": {"limit": 50}, "memory": {"limit": 1 << 28}}[limit]
    kept.box.change(lambda config: config["linux"]["resources"].update({limit: value}))
    done = kept.through_python()
    assert (done.returncode, done.stdout, done.stderr) == (0, "limited\n", "")
    assert kept.by_itself() is None


def test_a_bundle_of_another_is_not_performed(kept: Kept, root_bundle: MakeBundle) -> None:
    keep(kept, "exit 7")
    other: Bundle = root_bundle("exit 8")
    kept.box = other
    assert kept.by_itself() is None
