"""The machine itself: a kernel with controllers and AppArmor, in which rt runs."""

from __future__ import annotations

import pytest
from lab.machines.machine import Machine

DELEGATED = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service"


def test_systemd_has_booted_a_kernel_of_its_own(machine: Machine) -> None:
    assert "User Mode Linux" in machine.ok("cat /proc/cpuinfo")
    assert machine.run("systemctl is-system-running").stdout.strip() == "running"
    assert machine.run("systemctl --user is-system-running", user="alice").stdout.strip() == "running"


def test_root_has_controllers_and_a_user_is_given_some(machine: Machine) -> None:
    assert {"cpu", "io", "memory", "pids"} <= set(machine.ok("cat /sys/fs/cgroup/cgroup.controllers").split())
    delegated = machine.ok(f"cat {DELEGATED}/cgroup.controllers", user="alice").split()
    assert {"cpu", "memory", "pids"} <= set(delegated)


def test_a_scope_of_a_user_has_limits_that_hold(machine: Machine) -> None:
    scope = "systemd-run --user --scope -q -p MemoryMax=64M -p MemorySwapMax=0 -p TasksMax=20"
    shown = machine.ok(
        f"{scope} sh -c 'cd /sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); cat memory.max pids.max'",
        user="alice",
    )
    assert shown.split() == ["67108864", "20"]
    eaten = machine.run(f"{scope} python3 -c 'len(bytearray(128 << 20))'", user="alice")
    assert eaten.code in (-9, 137), eaten


def test_an_apparmor_profile_denies(machine: Machine) -> None:
    profile = "profile rt-lab-smoke { file, deny /etc/hostname r, }"
    machine.ok("apparmor_parser --replace", stdin=profile)
    assert machine.ok("cat /etc/hostname") == "machine\n"
    denied = machine.run("aa-exec -p rt-lab-smoke cat /etc/hostname")
    assert denied.code != 0 and "Permission denied" in denied.stderr


@pytest.mark.parametrize("user", ["root", "alice"])
def test_rt_runs_a_container(machine: Machine, user: str) -> None:
    bundle = machine.bundle("echo $(id -u) in; exit 7", user=user)
    done = machine.rt("run", "--bundle", bundle.path, "first", user=user)
    assert (done.code, done.stdout, done.stderr) == (7, "0 in\n", "")
