"""`rt events` on root's containers: the same numbers as the kernel's files, and as runc prints them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import held
from lab.runtime import Runtime
from lab.waiting import PATIENCE, until

CGROUPS = Path("/sys/fs/cgroup")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="root's cgroups"),
    pytest.mark.skipif(not (CGROUPS / "memory").is_dir(), reason="needs the controllers on cgroup v1"),
]
MEGABYTE = 1 << 20
EAT = "dd if=/dev/zero of=/dev/null bs=80M count=1 iflag=fullblock"


def limited(bundle: Bundle, **resources: Any) -> Bundle:
    return bundle.change(lambda config: config["linux"]["resources"].update(resources))


def small(bundle: Bundle) -> Bundle:
    return limited(bundle, memory={"limit": 24 * MEGABYTE, "swap": 24 * MEGABYTE})


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.covers("events", "events --stats")
def test_the_statistics_are_those_of_the_kernel(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    bundle = limited(root_bundle(), memory={"limit": 64 * MEGABYTE}, pids={"limit": 20}, cpu={"cpus": "0"})
    held(root_rt, bundle, "box")
    (event,) = events(root_rt.ok("events", "--stats", "box"))
    assert (event["type"], event["id"]) == ("stats", "box")
    data = event["data"]
    assert data["memory"]["usage"]["limit"] == 64 * MEGABYTE
    assert 0 < data["memory"]["usage"]["usage"] <= data["memory"]["usage"]["max"] <= 64 * MEGABYTE
    assert data["memory"]["raw"]["hierarchical_memory_limit"] == 64 * MEGABYTE
    assert data["pids"] == {"current": 1, "limit": 20}
    assert data["cpuset"]["cpus"] == [0]
    assert data["cpu"]["usage"]["total"] == sum(data["cpu"]["usage"]["percpu"]) > 0


def shape(value: Any) -> Any:
    """The keys, all the way down; and of numbers that do not change by themselves, the values."""
    if isinstance(value, dict):
        return {
            name: value[name] if name in ("limit", "cpus", "mems") else shape(value[name]) for name in value
        }
    return type(value).__name__


def test_keys_and_limits_are_those_of_runc(root_rt: Runtime, root_bundle: MakeBundle, place: Path) -> None:
    runc = shutil.which("runc")
    if runc is None:
        pytest.skip("needs runc")
    bundle = limited(root_bundle("exec sleep 1000"), memory={"limit": 64 * MEGABYTE}, pids={"limit": 20})
    command = [runc, "--root", str(place / "runc")]
    name = f"peer{os.getpid()}"
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    started = subprocess.run(
        [*command, "run", "-d", "-b", str(bundle.path), name], stderr=subprocess.DEVNULL, check=False, **quiet
    )
    if started.returncode:
        pytest.skip("runc cannot run a container here")
    try:
        listed = subprocess.run(
            [*command, "events", "--stats", name], capture_output=True, text=True, check=True
        )
    finally:
        subprocess.run([*command, "delete", "--force", name], check=True, **quiet)
    held(root_rt, bundle, "box")
    theirs, ours = (
        json.loads(listed.stdout)["data"],
        events(root_rt.ok("events", "--stats", "box"))[0]["data"],
    )
    assert list(ours) == list(theirs)
    for data in (theirs, ours):
        # What is read from a disk, and so cached, is chance; runc does not see huge pages on v2 here.
        for name, keys in (
            ("memory", ["cache"]),
            ("blkio", list(data["blkio"])),
            ("hugetlb", list(data["hugetlb"])),
        ):
            for key in keys:
                data[name].pop(key, None)
    assert shape(ours) == shape(theirs)


@pytest.mark.covers("events --interval")
def test_statistics_come_at_intervals_until_the_container_ends(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    held(root_rt, root_bundle(), "box")
    follower = root_rt.popen("events", "--interval", "20ms", "box", stdout=subprocess.PIPE)
    assert follower.stdout is not None
    for _ in range(3):
        assert json.loads(follower.stdout.readline())["type"] == "stats"
    root_rt.ok("delete", "--force", "box")
    rest, _ = follower.communicate(timeout=PATIENCE)
    assert follower.returncode == 0
    assert all(event["type"] == "stats" for event in events(rest.decode()))


def test_it_ends_when_nobody_reads_any_more(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    held(root_rt, root_bundle(), "box")
    follower = root_rt.popen("events", "--interval", "1h", "box", stdout=subprocess.PIPE)
    assert follower.stdout is not None
    follower.stdout.close()
    assert follower.wait(PATIENCE) == 0


@pytest.mark.covers("events")
def test_memory_that_runs_out_is_told(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    script = f"mkfifo /go; read line </go; {EAT}; {EAT}; read line </go; exec {EAT}"
    bundle = small(root_bundle())
    held(root_rt, bundle, "box", script)
    follower = root_rt.popen("events", "--interval", "100ms", "box", stdout=subprocess.PIPE)
    assert follower.stdout is not None
    go = bundle.rootfs / "go"
    # Who tells statistics again and again has begun to watch before.
    assert json.loads(follower.stdout.readline())["type"] == "stats"
    until(go.is_fifo, "the container waits")
    go.write_text("\n")
    told = (event for event in map(json.loads, follower.stdout) if event["type"] != "stats")
    wanted = {"type": "oom", "id": "box"}
    assert [next(told), next(told)] == [wanted, wanted]
    go.write_text("\n")
    assert list(told) == [wanted]
    assert follower.wait(PATIENCE) == 0
    follower.stdout.close()


@pytest.mark.covers("run", "linux.resources.memory.limit")
@pytest.mark.parametrize("keep", [(), ("--keep",)])
def test_a_container_killed_for_its_memory_says_why(
    root_rt: Runtime, root_bundle: MakeBundle, place: Path, keep: tuple[str, ...]
) -> None:
    bundle = small(root_bundle(f"exec {EAT}"))
    done = root_rt("--log", str(place / "log"), "run", *keep, "--bundle", str(bundle.path), "box")
    said = f"the container ran out of memory (memory.limit_in_bytes={24 * MEGABYTE})"
    assert (done.returncode, done.stderr) == (137, f"rt: warning: {said}\n")
    assert said in (place / "log").read_text()


def test_a_container_killed_by_somebody_else_does_not(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    bundle = limited(root_bundle("kill -9 $$; exit 137"), memory={"limit": 64 * MEGABYTE})
    bundle.change(lambda config: config["linux"]["namespaces"].remove({"type": "pid"}))
    done = root_rt("run", "--bundle", str(bundle.path), "box")
    assert (done.returncode, done.stderr) == (137, "")


def test_a_container_that_has_ended_has_no_events(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    held(root_rt, root_bundle(), "box")
    root_rt.ok("kill", "box", "KILL")
    root_rt.wait_for("box", "stopped")
    for words in (["--stats"], []):
        done = root_rt("events", *words, "box")
        assert (done.returncode, done.stdout) == (1, "")
        assert "container with id box is not running" in done.stderr
