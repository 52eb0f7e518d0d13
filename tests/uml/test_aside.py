"""A delegated scope whose own processes are in the way of controllers: they move to a leaf."""

from __future__ import annotations

import json

import pytest
from lab.machines.machine import Machine


@pytest.mark.covers("--cgroup-manager", "linux.resources.memory.limit")
def test_the_caller_steps_aside_for_the_limits_of_its_container(machine: Machine) -> None:
    bundle = machine.bundle("exec sleep 1000", user="alice")
    bundle.change(
        lambda config: config["linux"].setdefault("resources", {}).update(memory={"limit": 64 << 20})
    )
    run = f"rt --cgroup-manager cgroupfs run --detach --bundle {bundle.path} aside >/dev/null </dev/null"
    scope = "systemd-run --user --scope -q -p Delegate=yes -u lab-aside"
    said = machine.run(f"{scope} sh -c '{run}; grep ^0:: /proc/self/cgroup'", user="alice")
    assert said.stdout.strip().endswith("/lab-aside.scope/init") and said.stderr == "", said
    pid = json.loads(machine.rt("state", "aside", user="alice").stdout)["pid"]
    where = machine.ok(f"sed -n s/^0:://p /proc/{pid}/cgroup").strip()
    assert where.endswith("/lab-aside.scope/aside")
    assert machine.ok(f"cat /sys/fs/cgroup{where}/memory.max").strip() == str(64 << 20)
    machine.ok("rt delete --force aside", user="alice")
