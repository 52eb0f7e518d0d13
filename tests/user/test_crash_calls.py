"""`rt`, called as engines do, is struck between two of its system calls: `delete --force` leaves nothing.

SIGKILL, SIGTERM and SIGINT. The usual run takes some calls at even distances; RT_SWEEP=1 takes every call.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.calls import Call, Calls, spread
from lab.leftovers import Ground
from lab.runtime import Runtime
from lab.strikes import ends_by, remove, saved_or_ended

ALL = 100_000
KILLS = ALL if os.environ.get("RT_SWEEP") else 40
STRIKES = ALL if os.environ.get("RT_SWEEP") else 4
TELLING = [signal.SIGTERM, signal.SIGINT]
ID = f"felled-{os.getpid()}"


class Sweep:
    """A bundle, the words of an engine's calls, and what was there before."""

    def __init__(self, rt: Runtime, bundle: Path) -> None:
        self.rt, self.bundle = rt, bundle
        self.ground, self.calls = Ground(rt, ID), Calls(rt, bundle)
        log = ["--log", f"{bundle}/log.json", "--log-format", "json"]
        self.create = [*log, "create", "--bundle", str(bundle), "--pid-file", f"{bundle}/init.pid", ID]
        self.start = [*log, "start", ID]
        self.delete = [*log, "delete", "--force", ID]
        self.run = [*log, "run", "--bundle", str(bundle), ID]
        self.exec = [*log, "exec", ID, "/bin/true"]

    def use(self, args: list[str]) -> None:
        file = self.bundle / "config.json"
        config = json.loads(file.read_text())
        config["process"]["args"] = args
        file.write_text(json.dumps(config))

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
    assert struck > min(KILLS, len(calls)) // 2


def test_a_start_killed_at_a_system_call(sweep: Sweep) -> None:
    sweep.make()
    calls = sweep.calls.of(*sweep.start, first=str(sweep.rt.root))
    sweep.remove()
    struck = 0
    chosen = spread(calls, KILLS // 2)
    for call in chosen:
        sweep.make()
        struck += sweep.calls.kill_at(call, *sweep.start)
        assert sweep.rt.state(ID)["status"] in ("created", "running"), call
        sweep.remove()
    assert struck > len(chosen) // 2


def test_a_delete_killed_at_a_system_call_is_done_by_the_next(sweep: Sweep) -> None:
    sweep.make()
    calls = sweep.calls.of(*sweep.delete, first=str(sweep.rt.root))
    struck = 0
    chosen = spread(calls, KILLS // 2)
    for call in chosen:
        sweep.make()
        struck += sweep.calls.kill_at(call, *sweep.delete)
        sweep.remove()
    assert struck > len(chosen) // 2


@pytest.mark.parametrize("number", TELLING, ids=lambda number: number.name)
def test_a_create_told_to_end_at_a_system_call(sweep: Sweep, number: signal.Signals) -> None:
    calls = sweep.calls.of(*sweep.create, first=str(sweep.rt.root))
    sweep.remove()
    for call in spread(calls, STRIKES):
        code = sweep.calls.strike_at(call, number, *sweep.create)
        assert code in (0, *ends_by(number)), (call, code)
        if code:
            sweep.ground.clean()
        else:
            assert sweep.rt.state(ID)["status"] == "created", call
            sweep.remove()


@pytest.mark.parametrize("number", [signal.SIGKILL, *TELLING], ids=lambda number: number.name)
def test_a_run_struck_at_a_system_call(sweep: Sweep, number: signal.Signals) -> None:
    (sweep.bundle / "rootfs/bin/sleep").unlink()
    (sweep.bundle / "rootfs/bin/sleep").write_text("#!/bin/sh\nexit 0\n")
    (sweep.bundle / "rootfs/bin/sleep").chmod(0o755)
    calls = sweep.calls.of(*sweep.run, first=str(sweep.rt.root))
    for call in spread(calls, STRIKES):
        code = sweep.calls.strike_at(call, number, *sweep.run)
        assert code in (0, *ends_by(number)), (call, code)
        if number == signal.SIGKILL:
            sweep.remove()
        else:
            sweep.ground.clean()


@pytest.mark.parametrize("number", [signal.SIGKILL, *TELLING], ids=lambda number: number.name)
def test_an_exec_struck_at_a_system_call(sweep: Sweep, number: signal.Signals) -> None:
    """The container goes on, who entered does not stay, and the next one can enter."""
    sweep.make()
    sweep.rt.ok(*sweep.start)
    running = Ground(sweep.rt, f"{ID}-none")
    calls = sweep.calls.of(*sweep.exec, first=str(sweep.rt.root))
    for call in spread(calls, STRIKES):
        code = sweep.calls.strike_at(call, number, *sweep.exec)
        assert code in (0, 255, *ends_by(number)), (call, code)
        running.clean()
        assert sweep.rt.state(ID)["status"] == "running"
    sweep.rt.ok(*sweep.exec)
    sweep.remove()


@pytest.mark.parametrize("number", TELLING, ids=lambda number: number.name)
def test_a_delete_told_to_end_at_a_system_call_is_done_by_the_next(
    sweep: Sweep, number: signal.Signals
) -> None:
    sweep.make()
    calls = sweep.calls.of(*sweep.delete, first=str(sweep.rt.root))
    for call in spread(calls, STRIKES):
        sweep.make()
        code = sweep.calls.strike_at(call, number, *sweep.delete)
        assert code in (0, *ends_by(number)), (call, code)
        sweep.remove()


def kept(sweep: Sweep, *words: str) -> list[Call]:
    """The launcher's own calls, once Python has kept the plan of this command; the program just ends."""
    program = sweep.bundle / "rootfs/bin/true"
    program.unlink()
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    sweep.rt.ok(*words)
    calls = sweep.calls.of(*words, first=str(sweep.rt.root))
    assert ("rt_sigaction", 60) not in calls, "that was an interpreter"
    return calls


@pytest.mark.parametrize("number", [signal.SIGKILL, *TELLING], ids=lambda number: number.name)
def test_a_run_of_a_kept_plan_struck_at_a_system_call(sweep: Sweep, number: signal.Signals) -> None:
    sweep.use(["/bin/true"])
    words = ["run", "--bundle", str(sweep.bundle), ID]
    for call in spread(kept(sweep, *words), STRIKES):
        code = sweep.calls.strike_at(call, number, *words)
        assert code in (0, *ends_by(number)), (call, code)
        if number == signal.SIGKILL:
            sweep.remove()
        else:
            sweep.ground.clean()


@pytest.mark.parametrize(
    "sweep", ["user"], indirect=True
)  # root's containers have cgroups, which are Python's
@pytest.mark.parametrize("number", [signal.SIGKILL, *TELLING], ids=lambda number: number.name)
def test_an_exec_of_a_kept_plan_struck_at_a_system_call(sweep: Sweep, number: signal.Signals) -> None:
    sweep.make()
    sweep.rt.ok(*sweep.start)
    running = Ground(sweep.rt, f"{ID}-none")
    words = ["exec", ID, "/bin/true"]
    for call in spread(kept(sweep, *words), STRIKES):
        code = sweep.calls.strike_at(call, number, *words)
        assert code in (0, 255, *ends_by(number)), (call, code)
        running.clean()
        assert sweep.rt.state(ID)["status"] == "running"
    sweep.remove()
