"""podman, conmon or the container ended at the wrong moment: after `rm -f` of the engine nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from lab.engines import RUNTIMES, case
from lab.podman import IMAGE, Podman
from lab.waiting import commands, has_ended, until


def _state(podman: Podman) -> Path:
    """Where the runtime keeps its containers: podman names no --root."""
    below = podman.base / "runtime" if podman.rootless else Path("/run")
    return below / podman.runtime


@case
def test_removed_containers_leave_no_state(podman: Podman) -> None:
    name = podman.start("sleep", "100")
    number, pid = podman.inspect(name, ".Id"), int(podman.inspect(name, ".State.Pid"))
    assert (_state(podman) / number).is_dir()
    podman.ok("rm", "-f", "-t", "0", name)
    until(lambda: not (_state(podman) / number).exists(), "the state is removed")
    assert has_ended(pid)


@case
def test_conmon_is_killed(podman: Podman) -> None:
    name = podman.start("sleep", "100")
    pid, conmon = (int(podman.inspect(name, f".State.{each}")) for each in ("Pid", "ConmonPid"))
    number = podman.inspect(name, ".Id")
    os.kill(conmon, signal.SIGKILL)
    podman("rm", "-f", "-t", "0", name)
    until(lambda: has_ended(pid), "the container's process ends")
    assert podman("container", "exists", name).code == 1
    if not podman.rootless:  # podman asks for no delete then, with any runtime
        subprocess.run([RUNTIMES[podman.runtime], "delete", "--force", number], check=True)
        assert not (_state(podman) / number).exists()


@case
def test_the_container_is_killed_from_outside(podman: Podman) -> None:
    name = podman.start("sleep", "100")
    os.kill(int(podman.inspect(name, ".State.Pid")), signal.SIGKILL)
    assert podman.ok("wait", name) == "137"
    podman.ok("start", name)
    podman.ok("rm", "-f", "-t", "0", name)


@case
def test_podman_is_killed_while_it_creates(podman: Podman) -> None:
    for wait in (0.15, 0.25, 0.35, 0.45):
        name = podman.name()
        null = subprocess.DEVNULL
        started = podman.popen("run", "-d", "--name", name, IMAGE, "sleep", "100", stdout=null, stderr=null)
        time.sleep(wait)
        started.kill()
        started.wait()
        # An ordinary user's has a second process of podman's, in the user namespace, which does the work.
        until(lambda: not _of("podman", name), "podman has ended")  # noqa: B023
        podman("rm", "-f", "-t", "0", name)
        assert podman("container", "exists", name).code == 1
        podman.run("true")
        _end_what_podman_forgot(podman, name)


def _end_what_podman_forgot(podman: Podman, name: str) -> None:
    """A conmon whose podman died before it noted the container waits for ever, with any runtime."""
    for pid, words in _of("conmon", name).items():
        os.kill(pid, signal.SIGKILL)
        if not podman.rootless:
            subprocess.run(
                [RUNTIMES[podman.runtime], "delete", "--force", words[words.index("-c") + 1]], check=True
            )


def _of(program: str, name: str) -> dict[int, list[str]]:
    """The processes of a program that were told this name: pid -> words."""
    return {pid: words for pid, words in commands().items() if name in words and words[0].endswith(program)}
