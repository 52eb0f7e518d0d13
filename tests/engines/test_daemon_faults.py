"""containerd and its shims killed at bad moments: what a runtime leaves can be removed afterwards."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest
from lab.containerd import Containerd
from lab.waiting import PATIENCE, commands, until
from lab.ward import Ward


@pytest.fixture(params=["runc", "rt"])
def frail(request: pytest.FixtureRequest) -> Iterator[Containerd]:
    """A containerd that no other test uses, on one runtime."""
    for name in ("ward", "root_ctr"):  # they know what is missing
        request.getfixturevalue(name)
    ward = Ward()
    try:
        yield Containerd(ward).on(request.param)
    finally:
        ward.close()


def left_of(ctr: Containerd, name: str) -> list[str]:
    """The state, processes and cgroups that are there for a container."""
    processes = ctr.ward("pgrep", "-f", "sleep 54321").out.split()
    cgroups = ctr.ward("find", "/sys/fs/cgroup", "-name", name).out.split()
    return [*ctr.state_of(name), *processes, *cgroups]


def test_a_daemon_that_comes_back_finds_its_containers(frail: Containerd) -> None:
    name = frail.start("sleep", "54321")
    frail.kill()
    frail.serve()
    until(lambda: frail.status(name) == "RUNNING", "the daemon knows it again")
    assert frail.exec(name, "echo", "in it").out == "in it\n"
    frail.remove(name)
    until(lambda: not left_of(frail, name), "nothing is left of it")


def shim_of(name: str) -> bool:
    """Whether a container's shim is there; its snapshot is, then."""
    return any(name in words and "containerd-shim" in words[0] for words in commands().values())


# Not runc: killed while it creates, it leaves cgroups behind.
@pytest.mark.parametrize("frail", ["rt"], indirect=True)
def test_nothing_is_left_of_what_was_being_made_when_all_was_killed(frail: Containerd) -> None:
    """The daemon and the shim die with the runtime at work: it gets SIGKILL with its shim."""
    for step in range(8):
        name = frail.name()
        words = [*frail.run_words("--detach"), name, "sleep", "54321"]
        making = frail.popen(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Not before: killed between a snapshot's directory and its record, containerd makes no further one.
        until(lambda: shim_of(name), f"a shim for {name}")  # noqa: B023
        time.sleep(step * 0.03)
        frail.kill()
        shims = ("pkill", "-KILL", "-f", f"containerd-shim.*-id {name}")
        until(lambda: frail.ward(*shims).code == 1, "no shim is left, nor one that another has started")  # noqa: B023
        making.wait(PATIENCE)
        frail.serve()
        frail("task", "delete", "--force", name)
        frail("container", "delete", name)
        frail.forget(name)
        until(lambda: not left_of(frail, name), f"nothing is left of {name}: {left_of(frail, name)}")  # noqa: B023
        assert frail.run("echo", "works") == "works"


def test_a_shim_killed_with_a_container_running_leaves_nothing(frail: Containerd) -> None:
    name = frail.start("sh", "-c", "sleep 54321 & wait")
    frail.ward.ok("pkill", "-KILL", "-f", f"containerd-shim.*-id {name}")
    until(lambda: frail.status(name) in ("", "STOPPED"), "the daemon sees it")
    frail.remove(name)
    until(lambda: not left_of(frail, name), "nothing is left of it")
