"""The life of a container, as an ordinary user lives it."""

from __future__ import annotations

import pytest
from conftest import MakeBundle
from lab.runtime import Runtime


@pytest.mark.covers("run", "process.args")
def test_run_returns_the_exit_code_of_the_program(rt: Runtime, bundle: MakeBundle) -> None:
    assert rt("run", "--bundle", str(bundle("exit 7").path), "c").returncode == 7
    assert rt.ok("list", "-q") == ""


def test_run_returns_128_and_the_signal_for_a_killed_program(rt: Runtime, bundle: MakeBundle) -> None:
    killed = bundle("sh -c 'kill -TERM $$'; exit $?")
    assert rt("run", "--bundle", str(killed.path), "c").returncode == 143


@pytest.mark.covers("create", "create --bundle", "start", "state", "delete")
def test_a_container_goes_from_created_through_running_to_away(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("create", "--bundle", str(bundle(["/bin/sleep", "100"]).path), "c")
    assert rt.state("c")["status"] == "created"
    rt.ok("start", "c")
    assert rt.state("c")["status"] == "running"
    rt.ok("kill", "c", "KILL")
    assert rt.wait_for("c", "stopped")["pid"] == 0
    rt.ok("delete", "c")
    assert rt("state", "c").returncode == 1
