"""`rt update` and `rt events` for an ordinary user: errors that say what is missing and how to get it."""

from __future__ import annotations

import pytest
from conftest import MakeBundle
from lab.runtime import Runtime


@pytest.fixture
def box(rt: Runtime, bundle: MakeBundle) -> str:
    """A container that goes on, without a cgroup."""
    made = bundle("exec sleep 1000")
    done = rt("--cgroup-manager", "disabled", "run", "--detach", "--bundle", str(made.path), "box")
    assert done.returncode == 0, done.stderr
    return "box"


def failure(rt: Runtime, *words: str) -> list[str]:
    done = rt(*words)
    assert (done.returncode, done.stdout) == (1, ""), done
    lines: list[str] = done.stderr.splitlines()
    assert len(lines) <= 2 and lines[0].startswith("rt: ")
    return lines


@pytest.mark.covers("update", "update --memory")
def test_without_a_cgroup_a_limit_cannot_be_met(rt: Runtime, box: str) -> None:
    error, hint = failure(rt, "update", "--memory", "32m", box)
    assert "--memory: memory.max=33554432 is not possible: the container has no cgroup" in error
    assert "systemd-run --user" in hint


@pytest.mark.covers("update")
def test_to_ask_for_nothing_or_for_no_limit_needs_no_cgroup(rt: Runtime, box: str) -> None:
    rt.ok("update", box)
    rt.ok("update", "--memory", "-1", "--pids-limit", "-1", box)
    assert rt.state(box)["status"] == "running"


@pytest.mark.covers("events", "events --stats")
def test_without_a_cgroup_there_are_no_statistics(rt: Runtime, box: str) -> None:
    for words in (["--stats"], []):
        error, hint = failure(rt, "events", *words, box)
        assert "no statistics: the container has no cgroup" in error
        assert "systemd-run --user" in hint


@pytest.mark.covers("events --interval")
@pytest.mark.parametrize(
    "interval", ["0", "0s", "-1s", "5", "s", "1m30", "abc", "1e3s", "999us", "9" * 30 + "s"]
)
def test_an_interval_is_a_duration_as_go_writes_it(rt: Runtime, interval: str) -> None:
    (error,) = failure(rt, "events", "--interval", interval, "nobody")
    assert error.startswith("rt: --interval: ")


def test_a_container_that_nobody_knows(rt: Runtime) -> None:
    for words in (["update", "--memory", "5m"], ["events"], ["events", "--stats"]):
        assert 'container "nobody" does not exist' in failure(rt, *words, "nobody")[0]
