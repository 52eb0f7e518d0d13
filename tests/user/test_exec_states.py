"""`rt exec` and what becomes of the container meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.execs import refused, sh
from lab.inside import held, read
from lab.leftovers import Ground
from lab.runtime import Runtime
from lab.waiting import PATIENCE, has_ended, until


@pytest.fixture
def c(rt: Runtime, bundle: MakeBundle) -> int:
    """The container `c`, own id mapped; the pid of its first process."""
    return held(rt, bundle(), "c")


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
        assert process.wait(PATIENCE) == 137


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
        process.wait(PATIENCE)
    rt.ok("kill", "c", "KILL")
    rt.wait_for("c", "stopped")
    until(lambda: has_ended(c), "the container's process ends")
    rt.ok("delete", "c")


def child_of(pid: int) -> int | None:
    """A child of this process that runs a program of its own, if it has one.

    Before that the child has its parent's memory, and the parent waits for it as vfork(2) does: nothing of a
    container can stop it there.
    """
    try:
        for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if read(int(word), "cmdline") not in ("", read(pid, "cmdline")):
                return int(word)
    except FileNotFoundError:
        pass
    return None


def state_of(pid: int) -> str:
    """The letter of proc_pid_stat(5). Raises FileNotFoundError or ProcessLookupError when it is gone."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


@pytest.mark.covers("exec")
@pytest.mark.parametrize("delay", [0, 0.0005, 0.001, 0.002, 0.004])
def test_a_process_that_is_stopped_on_its_way_in_does_not_hold_up_a_signal(
    rt: Runtime, c: int, delay: float
) -> None:
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        pytest.skip("this kernel does not tell a process's children")
    with rt.popen("exec", "c", "sleep", "5678", stderr=subprocess.DEVNULL) as call:
        found = None
        while found is None and call.poll() is None:
            found = child_of(call.pid)
        assert found is not None
        time.sleep(delay)
        try:
            os.kill(found, signal.SIGSTOP)
            while (state := state_of(found)) not in ("T", "Z", "X"):
                time.sleep(0.01)  # it may be about to become the program
            entered = state != "T" or read(found, "cmdline") == "sleep\x005678\x00"
        except (ProcessLookupError, FileNotFoundError):
            entered = True  # the starter had done its work
        call.terminate()
        if entered:
            # The signal is the program's, and it gets it when it goes on.
            rt("exec", "c", "sh", "-c", "kill -CONT -1")
        assert call.wait(PATIENCE) == 128 + 15
    names = rt.ok("exec", "c", "ps", "-o", "args").splitlines()
    assert not [name for name in names if "rt-init" in name or "5678" in name], names
