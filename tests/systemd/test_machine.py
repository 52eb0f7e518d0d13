"""The machine itself: a login session of systemd, in which rt runs."""

from __future__ import annotations

import json

import pytest
from lab.machines.boot import lasting, systemd_machine
from lab.machines.machine import Machine


def test_systemd_is_the_first_process_and_has_booted(machine: Machine) -> None:
    assert machine.ok("cat /proc/1/comm").strip() == "systemd"
    assert machine.run("systemctl is-system-running").stdout.strip() == "running"


def test_a_user_has_a_manager_and_a_session(machine: Machine) -> None:
    assert machine.run("systemctl --user is-system-running", user="alice").stdout.strip() == "running"
    assert "session-" in machine.ok("grep ^0:: /proc/self/cgroup", user="alice")
    assert machine.ok("echo $XDG_RUNTIME_DIR", user="alice").strip() == "/run/user/1000"


def test_a_user_can_make_a_delegated_scope(machine: Machine) -> None:
    scope = "systemd-run --user --scope -q -p Delegate=yes"
    where = machine.ok(
        f"{scope} sh -c 'mkdir /sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/inner'", user="alice"
    )
    assert where == ""
    shown = machine.ok(f"{scope} grep ^0:: /proc/self/cgroup", user="alice")
    assert "/user.slice/user-1000.slice/user@1000.service/app.slice/run-" in shown


def test_rt_runs_a_container_as_a_user(machine: Machine) -> None:
    bundle = machine.bundle("echo $(id -u) in; exit 7")
    done = machine.rt("run", "--bundle", bundle.path, "first")
    assert (done.code, done.stdout, done.stderr) == (7, "0 in\n", "")


def in_a_scope(machine: Machine, script: str) -> str:
    """Start the container `held` of alice's in a delegated scope; its cgroup below /sys/fs/cgroup."""
    bundle = machine.bundle(script)
    scope = "systemd-run --user --scope -q -p Delegate=yes"
    machine.ok(f"{scope} rt run --detach --bundle {bundle.path} held", user="alice")
    pid = json.loads(machine.ok("rt state held", user="alice"))["pid"]
    where = machine.ok(f"sed -n s/^0:://p /proc/{pid}/cgroup", user="alice").strip()
    assert where.startswith("/user.slice/user-1000.slice/user@1000.service/")
    return f"/sys/fs/cgroup{where}"


def test_a_container_in_a_delegated_cgroup_is_killed_and_its_cgroup_goes(machine: Machine) -> None:
    cgroup = in_a_scope(machine, "sleep 1000 & exec sleep 1000")
    assert machine.ok(f"cat {cgroup}/cgroup.procs") != ""
    machine.ok("rt kill held KILL && rt delete --force held", user="alice")
    machine.ok(f"test ! -e {cgroup}")


def test_a_container_in_a_delegated_cgroup_is_paused_and_resumed(machine: Machine) -> None:
    cgroup = in_a_scope(machine, "while :; do sleep 0.05; done")
    machine.ok("rt pause held", user="alice")
    assert "frozen 1" in machine.ok(f"cat {cgroup}/cgroup.events")
    assert json.loads(machine.ok("rt state held", user="alice"))["status"] == "paused"
    machine.ok("rt resume held", user="alice")
    assert "frozen 0" in machine.ok(f"cat {cgroup}/cgroup.events")


def test_a_machine_that_has_ended_fails_one_test_and_is_booted_again_for_the_next() -> None:
    with lasting(systemd_machine) as machine:
        with pytest.raises(AssertionError, match="the machine has ended; it said:"):
            machine.run("systemctl poweroff --force; sleep 1000", timeout=200)
        machine.clean()
        assert machine.ok("cat /proc/1/comm") == "systemd\n"
