"""Many containers at a time, as an ordinary user: none disturbs another, and nothing is left of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.leftovers import Ground
from lab.runtime import Runtime
from lab.users import User

COUNT = 50


@pytest.fixture
def pid_files(alice: User, place: Path) -> Path:
    path = place / "pids"
    path.mkdir()
    alice.owns(path)
    return path


def test_fifty_containers_run_at_once_and_leave_nothing(
    rt: Runtime, bundle: MakeBundle, pid_files: Path
) -> None:
    where = str(bundle("exit 7").path)
    ground = Ground(rt, "many-")

    def run(number: int) -> tuple[int, str]:
        pid_file = str(pid_files / f"{number}")
        done = rt("run", "--bundle", where, "--pid-file", pid_file, f"many-{number}")
        return done.returncode, done.stderr

    with ThreadPoolExecutor(COUNT) as pool:
        assert list(pool.map(run, range(COUNT))) == [(7, "")] * COUNT
    assert rt.ok("list", "-q") == ""
    ground.clean()
    # The pid-files are the caller's to remove; no half-written one lies beside them.
    assert sorted(path.name for path in pid_files.iterdir()) == sorted(map(str, range(COUNT)))


def test_fifty_containers_live_side_by_side_and_leave_nothing(
    rt: Runtime, bundle: MakeBundle, pid_files: Path
) -> None:
    where = str(bundle(["/bin/sleep", "1234"]).path)
    ground = Ground(rt, "many-")

    def create(number: int) -> int:
        name, pid_file = f"many-{number}", pid_files / f"{number}"
        rt.ok("create", "--bundle", where, "--pid-file", str(pid_file), name)
        state = rt.state(name)
        assert state["status"] == "created" and pid_file.read_text() == str(state["pid"])
        rt.ok("start", name)
        assert rt.state(name)["status"] == "running"
        pid: int = state["pid"]
        return pid

    def remove(number: int) -> None:
        name = f"many-{number}"
        rt.ok("kill", name, "KILL")
        rt.wait_for(name, "stopped")
        rt.ok("delete", name)

    with ThreadPoolExecutor(COUNT) as pool:
        pids = list(pool.map(create, range(COUNT)))
        assert len(set(pids)) == COUNT
        assert sorted(rt.ok("list", "-q").split()) == sorted(f"many-{number}" for number in range(COUNT))
        list(pool.map(remove, range(COUNT)))
    assert rt.ok("list", "-q") == ""
    ground.clean()


def test_fifty_containers_that_cannot_start_leave_nothing(
    rt: Runtime, bundle: MakeBundle, pid_files: Path
) -> None:
    where = str(bundle(["/no/such/program"]).path)
    ground = Ground(rt, "many-")

    def run(number: int) -> None:
        done = rt("run", "--bundle", where, "--pid-file", str(pid_files / str(number)), f"many-{number}")
        assert done.returncode == 1 and "no such file or directory" in done.stderr

    with ThreadPoolExecutor(COUNT) as pool:
        list(pool.map(run, range(COUNT)))
    ground.clean()
    assert list(pid_files.iterdir()) == []
