"""`rt` is killed at any moment, as root: `delete --force` removes every process, mount and cgroup."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import MakeBundle
from lab.leftovers import Ground, cgroups_named
from lab.runtime import Runtime
from lab.strikes import duration, moments, remove, saved_or_ended, strike
from lab.waiting import until

KILLS = 40
PREFIX = f"struck-{os.getpid()}"


@pytest.fixture
def ground(root_rt: Runtime) -> Ground:
    return Ground(root_rt, PREFIX)


@pytest.fixture
def sleeper(root_bundle: MakeBundle) -> str:
    return str(root_bundle(["/bin/sleep", "1234"]).path)


@pytest.mark.parametrize("verb", [["create"], ["run", "--detach"]], ids=["create", "run"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_struck_command_leaves_what_delete_force_removes(
    root_rt: Runtime, sleeper: str, ground: Ground, verb: list[str], number: signal.Signals
) -> None:
    words = [*verb, "--bundle", sleeper, PREFIX]
    stretch = duration(root_rt, *words)
    remove(root_rt, ground, PREFIX)
    for after in moments(KILLS, stretch):
        code = strike(root_rt, number, after, *words)
        if number == signal.SIGTERM:
            assert code in (0, 128 + number, -number)
            if code:
                ground.clean()
        saved_or_ended(root_rt, ground, PREFIX)
        remove(root_rt, ground, PREFIX)


def test_a_killed_delete_can_be_done_again(root_rt: Runtime, sleeper: str, ground: Ground) -> None:
    root_rt.ok("create", "--bundle", sleeper, PREFIX)
    stretch = duration(root_rt, "delete", "--force", PREFIX)
    for after in moments(KILLS // 2, stretch):
        root_rt.ok("create", "--bundle", sleeper, PREFIX)
        strike(root_rt, signal.SIGKILL, after, "delete", "--force", PREFIX)
        remove(root_rt, ground, PREFIX)


def test_fifty_containers_at_once_leave_no_cgroup(
    root_rt: Runtime, root_bundle: MakeBundle, ground: Ground
) -> None:
    where = str(root_bundle("exit 7").path)

    def run(number: int) -> int:
        return root_rt("run", "--bundle", where, f"{PREFIX}-{number}", timeout=200).returncode

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(run, range(50))) == [7] * 50
    ground.clean()


def test_a_state_that_names_our_own_cgroup_is_not_believed(
    root_rt: Runtime, sleeper: str, ground: Ground
) -> None:
    root_rt.ok("run", "--detach", "--bundle", sleeper, PREFIX)
    made = cgroups_named(PREFIX, 0)
    if not made:
        root_rt.ok("delete", "--force", PREFIX)
        pytest.skip("no cgroup can be made here")
    path = root_rt.root / PREFIX / "state.json"
    # Its parent is where this very test runs.
    path.write_text(path.read_text().replace(f'/{PREFIX}"', '"'))
    done = root_rt("delete", PREFIX)
    assert done.returncode == 1 and "no cgroup of a container" in done.stderr
    root_rt.ok("delete", "--force", PREFIX)
    assert not ground.processes_end()
    for left in made:  # nobody knows of them any more
        until(lambda path=left: _removed(path), f"{left} is empty")
    ground.clean()


def _removed(path: str) -> bool:
    """A cgroup may be busy for a moment after its last process."""
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True


def test_another_users_container_is_not_touched(root_rt: Runtime, sleeper: str, ground: Ground) -> None:
    root_rt.ok("create", "--bundle", sleeper, PREFIX)
    subprocess.run(["chown", "12345", str(root_rt.root / PREFIX)], check=True)
    for words in (["state"], ["start"], ["kill"], ["delete"], ["delete", "--force"]):
        done = root_rt(*words, PREFIX)
        assert done.returncode == 1 and "belongs to another user" in done.stderr
    subprocess.run(["chown", "0", str(root_rt.root / PREFIX)], check=True)
    remove(root_rt, ground, PREFIX)
