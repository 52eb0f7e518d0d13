"""Signals: forwarded by a foreground `run`, sent by `kill`; and what `delete` removes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.leftovers import processes_of
from lab.runtime import Runtime
from lab.waiting import PATIENCE, becomes, has_ended, until

# Writes the name of each signal it gets; TERM ends it.
SCRIPT = """
for name in HUP INT USR1 USR2 ALRM WINCH; do trap "echo $name" $name; done
trap 'echo TERM; exit 3' TERM
echo ready
while :; do sleep 0.02; done
"""


@contextmanager
def foreground(rt: Runtime, box: Bundle) -> Iterator[subprocess.Popen[str]]:
    """A foreground run whose program has said that it is ready; ended at the end, whatever happened."""
    process = rt.popen("run", "-b", str(box.path), "c", stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield process  # type: ignore[misc]
        finally:
            if process.poll() is None:
                rt("kill", "c", "KILL")
                process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_foreground_run_forwards_signals_to_the_program(rt: Runtime, bundle: MakeBundle) -> None:
    with foreground(rt, bundle(SCRIPT)) as process:
        for name in ("HUP", "INT", "USR1", "USR2", "ALRM", "TERM"):
            process.send_signal(getattr(signal, f"SIG{name}"))
            assert line(process) == name
        assert process.wait(PATIENCE) == 3
    assert rt.ok("list", "-q") == ""


def test_a_burst_of_signals_arrives_and_harms_nothing(rt: Runtime, bundle: MakeBundle) -> None:
    with foreground(rt, bundle(SCRIPT)) as process:
        for _ in range(500):
            process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGTERM)
        seen = process.communicate(timeout=PATIENCE)[0].split()
        assert process.returncode == 3 and seen[-1] == "TERM" and set(seen) == {"USR1", "TERM"}


def test_a_program_that_ignores_a_signal_goes_on(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("trap '' TERM; trap 'echo still' USR1; echo ready; while :; do sleep 0.02; done")
    with foreground(rt, box) as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGUSR1)
        assert line(process) == "still" and process.poll() is None
        rt.ok("kill", "c", "KILL")
        assert process.wait(PATIENCE) == 137


def test_a_program_that_is_pid_1_without_a_handler_is_ended_by_kill_alone(
    rt: Runtime, bundle: MakeBundle
) -> None:
    # The kernel drops signals for pid 1 that it has no handler for (pid_namespaces(7)).
    rt.ok("run", "-d", "-b", str(bundle(["/bin/sleep", "100"]).path), "c")
    rt.ok("kill", "c")
    assert rt.state("c")["status"] == "running"
    rt.ok("kill", "c", "SIGKILL")
    rt.wait_for("c", "stopped")


@pytest.mark.parametrize("name", ["USR1", "SIGUSR1", "usr1", "sigusr1", "10"])
@pytest.mark.covers("kill", "kill --all")
def test_kill_takes_a_signal_in_every_spelling(rt: Runtime, bundle: MakeBundle, name: str) -> None:
    with foreground(rt, bundle(SCRIPT)) as process:
        rt.ok("kill", "c", name)
        assert line(process) == "USR1"
        rt.ok("kill", "--all", "c", "TERM")
        assert process.wait(PATIENCE) == 3


@pytest.mark.parametrize("name", ["NOPE", "0x9", "65", "-1", "1_0", " 9", "", "SIGSIG"])
def test_kill_refuses_what_is_no_signal(rt: Runtime, bundle: MakeBundle, name: str) -> None:
    rt.ok("create", "-b", str(bundle().path), "c")
    done = rt("kill", "c", "--", name) if name.startswith("-") else rt("kill", "c", name)
    assert done.returncode == 1 and done.stderr.startswith("rt: ")
    assert rt.state("c")["status"] == "created"


def test_killing_a_created_container_ends_it(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("create", "-b", str(bundle().path), "c")
    rt.ok("kill", "c", "KILL")
    rt.wait_for("c", "stopped")
    assert rt("start", "c").stderr.startswith("rt: cannot start a container that has stopped\n")


def test_the_end_of_rt_does_not_end_a_detached_container(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("run", "-d", "-b", str(bundle(["/bin/sleep", "100"]).path), "c")
    state = rt.state("c")
    assert state["status"] == "running"
    becomes(state["pid"], "/bin/sleep", "100")


def test_all_processes_of_the_container_end_with_it(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("sleep 4321 & sleep 4321 & echo ready; wait")
    with foreground(rt, box) as process:
        rt.ok("kill", "c", "KILL")
        assert process.wait(PATIENCE) == 137
    assert "sleep 4321" not in processes_of(rt.user.uid).values()


@pytest.mark.parametrize("delay", [0, 0.01, 0.03, 0.1])
def test_what_a_killed_rt_leaves_is_removed_by_force(rt: Runtime, bundle: MakeBundle, delay: float) -> None:
    box = bundle(["/bin/sleep", "100"])
    with rt.popen("run", "-b", str(box.path), "c", stdout=subprocess.DEVNULL) as process:
        time.sleep(delay)
        process.kill()
    rt.ok("delete", "--force", "c")
    assert list(rt.root.iterdir()) == []
    rt.ok("run", "-d", "-b", str(box.path), "c")


@pytest.mark.covers("run --keep", "state")
def test_a_zombie_is_a_stopped_container(rt: Runtime, bundle: MakeBundle) -> None:
    with rt.popen("run", "--keep", "-b", str(bundle("exit 0").path), "c") as process:
        assert process.wait(PATIENCE) == 0
    assert rt.state("c")["status"] == "stopped"
    rt.ok("delete", "c")


@pytest.mark.covers("linux.namespaces[].type")
def test_orphans_are_reaped_by_the_foreground_run(rt: Runtime, bundle: MakeBundle) -> None:
    # Without a pid namespace of its own, what the container leaves behind becomes rt's child.
    box = bundle("(sleep 0.05 &) ; (sleep 0.05 &); sleep 0.3; echo ready; sleep 100")
    box.change(
        lambda config: config["linux"].update(
            namespaces=[item for item in config["linux"]["namespaces"] if item["type"] != "pid"]
        )
    )
    process = rt.popen(
        "run", "-b", str(box.path), "c", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until(lambda: len(children.read_text().split()) == 1, lambda: f"one is left: {children.read_text()}")
        rt.ok("kill", "c", "KILL")
        assert process.wait(PATIENCE) == 137


@pytest.mark.covers("delete --force", "run --detach")
def test_delete_refuses_a_running_container_and_says_how(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("run", "-d", "-b", str(bundle(["/bin/sleep", "100"]).path), "c")
    done = rt("delete", "c")
    assert done.returncode == 1
    line, hint = done.stderr.splitlines()
    assert line == 'rt: cannot delete container "c" that is not stopped: running'
    assert "rt delete --force c" in hint
    pid = rt.state("c")["pid"]
    rt.ok("delete", "--force", "c")
    assert has_ended(pid)
    assert list(rt.root.iterdir()) == []


@pytest.mark.covers("delete")
def test_delete_takes_a_created_container_without_force(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("create", "-b", str(bundle().path), "c")
    rt.ok("delete", "c")
    assert list(rt.root.iterdir()) == []


def test_force_does_not_mind_a_container_that_does_not_exist(rt: Runtime) -> None:
    rt.ok("delete", "--force", "nothing")
    assert rt("delete", "nothing").returncode == 1


def test_force_removes_a_container_whose_state_is_damaged(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("create", "-b", str(bundle().path), "c")
    pid = rt.state("c")["pid"]
    state = rt.root / "c/state.json"
    state.write_bytes(state.read_bytes()[:100])
    assert rt("delete", "c").returncode == 1
    rt.ok("delete", "--force", "c")
    assert list(rt.root.iterdir()) == []
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_kill_and_delete_never_touch_a_reused_pid(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("run", "-d", "-b", str(bundle(["/bin/sleep", "100"]).path), "c")
    pid = rt.state("c")["pid"]
    sleeper = subprocess.Popen(["sleep", "100"])
    try:
        state = rt.root / "c/state.json"
        state.write_text(state.read_text().replace(f'"pid":{pid}', f'"pid":{sleeper.pid}'))
        assert rt.state("c")["status"] == "stopped"
        assert rt("kill", "c", "KILL").returncode == 1
        rt.ok("delete", "--force", "c")
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()
        os.kill(pid, signal.SIGKILL)
