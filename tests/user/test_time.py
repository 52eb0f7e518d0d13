"""Time namespaces of an ordinary user's container."""

from __future__ import annotations

import os
import time

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import held, output, refusal, set_namespace
from lab.runtime import Runtime

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/ns/time"), reason="this kernel has no time namespaces"
)
AHEAD = 1_000_000


def shifted(bundle: Bundle, **offsets: dict[str, int]) -> Bundle:
    return set_namespace(bundle, "time").change(lambda config: config["linux"].update(timeOffsets=offsets))


def uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.mark.covers("linux.timeOffsets", "linux.timeOffsets[].secs", "linux.timeOffsets[].nanosecs")
def test_the_clocks_are_set_apart(rt: Runtime, bundle: MakeBundle) -> None:
    made = shifted(bundle(), boottime={"secs": AHEAD}, monotonic={"secs": -5, "nanosecs": 7})
    said = output(rt, made, "cat /proc/self/timens_offsets /proc/uptime")
    monotonic, boottime, up = said.splitlines()
    assert monotonic.split() == ["monotonic", "-5", "7"]
    assert boottime.split() == ["boottime", str(AHEAD), "0"]
    assert AHEAD < float(up.split()[0]) - uptime() + 60 < AHEAD + 120


def test_without_offsets_it_is_new_all_the_same(rt: Runtime, bundle: MakeBundle) -> None:
    pid = held(rt, set_namespace(bundle(), "time"))
    assert os.readlink(f"/proc/{pid}/ns/time") != os.readlink("/proc/self/ns/time")


@pytest.mark.covers("linux.namespaces[].path")
def test_a_further_program_and_a_second_container_share_it(rt: Runtime, bundle: MakeBundle) -> None:
    pid = held(rt, shifted(bundle(), boottime={"secs": AHEAD}), "first")
    up = float(rt.ok("exec", "first", "cat", "/proc/uptime").split()[0])
    assert up > AHEAD
    made = set_namespace(bundle(), "time", f"/proc/{pid}/ns/time")
    set_namespace(made, "user", f"/proc/{pid}/ns/user")
    made.change(lambda config: [config["linux"].pop(name) for name in ("uidMappings", "gidMappings")])
    assert float(output(rt, made, "cat /proc/uptime").split()[0]) > AHEAD


def test_a_new_one_is_made_in_a_joined_user_namespace(rt: Runtime, bundle: MakeBundle) -> None:
    pid = held(rt, bundle(), "first")
    made = shifted(bundle(), boottime={"secs": AHEAD})
    set_namespace(made, "user", f"/proc/{pid}/ns/user")
    made.change(lambda config: [config["linux"].pop(name) for name in ("uidMappings", "gidMappings")])
    assert float(output(rt, made, "cat /proc/uptime").split()[0]) > AHEAD


def test_a_hook_of_the_container_runs_in_it(rt: Runtime, bundle: MakeBundle) -> None:
    made = shifted(bundle(), boottime={"secs": AHEAD})
    script = "cat /proc/uptime > /tmp/said"
    made.change(
        lambda config: config.update(
            hooks={"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
        )
    )
    assert float(output(rt, made, "cat /tmp/said").split()[0]) > AHEAD


@pytest.mark.parametrize("secs", [-(10**15), 2**62])
def test_a_clock_before_its_beginning_is_refused_with_the_field(
    secs: int, rt: Runtime, bundle: MakeBundle
) -> None:
    error = refusal(rt, shifted(bundle(), monotonic={"secs": secs}))
    assert "linux.timeOffsets" in error and "146 years" in error


def test_one_that_may_not_be_joined_is_named(rt: Runtime, bundle: MakeBundle) -> None:
    error = refusal(rt, set_namespace(bundle(), "time", "/proc/self/ns/time"))
    assert "linux.namespaces (time): /proc/self/ns/time: setns: operation not permitted" in error
    error = refusal(rt, set_namespace(bundle(), "time", "/proc/self/ns/net"))
    assert "/proc/self/ns/net: is not a time namespace" in error and "/proc/PID/ns/time" in error


def test_offsets_without_a_new_namespace_are_refused(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle().change(lambda config: config["linux"].update(timeOffsets={"boottime": {"secs": 1}}))
    assert "needs a new time namespace" in refusal(rt, made)
    assert '{"type": "time"}' in refusal(rt, made)
    assert "the one that is joined" in refusal(rt, set_namespace(made, "time", "/proc/self/ns/time"))
