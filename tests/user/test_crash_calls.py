"""`rt`, called as engines do, is killed between two of its system calls: `delete --force` leaves nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.calls import Calls, spread
from lab.leftovers import Ground
from lab.runtime import Runtime
from lab.strikes import remove, saved_or_ended

KILLS = 40
ID = f"felled-{os.getpid()}"


class Sweep:
    """A bundle, the words of an engine's calls, and what was there before."""

    def __init__(self, rt: Runtime, bundle: Path) -> None:
        self.rt, self.ground, self.calls = rt, Ground(rt, ID), Calls(rt, bundle)
        log = ["--log", f"{bundle}/log.json", "--log-format", "json"]
        self.create = [*log, "create", "--bundle", str(bundle), "--pid-file", f"{bundle}/init.pid", ID]
        self.start = [*log, "start", ID]
        self.delete = [*log, "delete", "--force", ID]

    def make(self) -> None:
        self.rt.ok(*self.create, cwd=str(self.rt.root.parent))

    def remove(self) -> None:
        remove(self.rt, self.ground, ID)


@pytest.fixture(params=["user", "root"])
def sweep(request: pytest.FixtureRequest) -> Sweep:
    if request.param == "root" and os.getuid() != 0:
        pytest.skip("needs root")
    names = ("rt", "bundle") if request.param == "user" else ("root_rt", "root_bundle")
    rt: Runtime = request.getfixturevalue(names[0])
    make: MakeBundle = request.getfixturevalue(names[1])
    made = make(["/bin/sleep", "1234"]).path
    return Sweep(rt, made)


def test_a_create_killed_at_a_system_call(sweep: Sweep) -> None:
    calls = sweep.calls.of(*sweep.create, first=str(sweep.rt.root))
    sweep.remove()
    struck = 0
    for call in spread(calls, KILLS):
        struck += sweep.calls.kill_at(call, *sweep.create)
        status = saved_or_ended(sweep.rt, sweep.ground, ID)
        assert status in ("none", "creating", "created", "stopped"), call
        sweep.remove()
    assert struck > KILLS // 2


def test_a_start_killed_at_a_system_call(sweep: Sweep) -> None:
    sweep.make()
    calls = sweep.calls.of(*sweep.start, first=str(sweep.rt.root))
    sweep.remove()
    struck = 0
    for call in spread(calls, KILLS // 2):
        sweep.make()
        struck += sweep.calls.kill_at(call, *sweep.start)
        assert sweep.rt.state(ID)["status"] in ("created", "running"), call
        sweep.remove()
    assert struck > KILLS // 4


def test_a_delete_killed_at_a_system_call_is_done_by_the_next(sweep: Sweep) -> None:
    sweep.make()
    calls = sweep.calls.of(*sweep.delete, first=str(sweep.rt.root))
    struck = 0
    for call in spread(calls, KILLS // 2):
        sweep.make()
        struck += sweep.calls.kill_at(call, *sweep.delete)
        sweep.remove()
    assert struck > KILLS // 4
