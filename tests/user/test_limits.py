"""linux.resources of an ordinary user who has no cgroup to set them in."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import refusal
from lab.runtime import Runtime

DISABLED = ("--cgroup-manager", "disabled")


def limited(bundle: Bundle, **resources: Any) -> Bundle:
    def change(config: dict[str, Any]) -> None:
        config["linux"].setdefault("resources", {}).update(resources)

    return bundle.change(change)


@pytest.mark.covers("linux.resources.memory.limit", "linux.resources.pids.limit", "linux.resources.cpu.quota")
def test_each_limit_that_is_not_set_is_named_with_the_reason_and_the_way(
    rt: Runtime, bundle: MakeBundle
) -> None:
    made = limited(bundle("true"), memory={"limit": 1 << 26}, pids={"limit": 9}, cpu={"quota": 5000})
    done = rt(*DISABLED, "run", "--bundle", str(made.path), "box")
    assert done.returncode == 0
    for field in ("memory.limit", "pids.limit", "cpu.quota"):
        assert f"linux.resources.{field}" in done.stderr
    assert "Delegate=yes" in done.stderr
    assert "linux.resources" in refusal(rt, made, before=("--degrade=strict", *DISABLED))


def test_what_asks_for_no_limit_is_not_missed(rt: Runtime, bundle: MakeBundle) -> None:
    made = limited(bundle(), memory={"limit": -1}, pids={"limit": -1}, cpu={"shares": 0, "quota": -1})
    done = rt(*DISABLED, "run", "--bundle", str(made.path), "box")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_value_is_an_error_all_the_same(rt: Runtime, bundle: MakeBundle) -> None:
    error = refusal(rt, limited(bundle(), cpu={"cpus": "0-"}))
    assert "linux.resources.cpu.cpus" in error


def test_the_degraded_limits_are_in_the_state(rt: Runtime, bundle: MakeBundle) -> None:
    made = limited(bundle("exec sleep 100"), pids={"limit": 9})
    rt(*DISABLED, "run", "--detach", "--bundle", str(made.path), "box")
    fields = [item["field"] for item in rt.state("box")["degraded"]]
    assert "linux.resources.pids.limit" in fields
    assert rt.state("box")["annotations"]["org.rootless-rt.degraded"] == ",".join(fields)
