"""Containers whose cgroup systemd makes: a scope of the user's own manager, or of the system's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lab.machines.machine import Machine, MachineBundle
from lab.waiting import until


def started(
    machine: Machine, user: str, name: str, *before: str, **changes: Any
) -> tuple[MachineBundle, str]:
    """A container that goes on, and its cgroup's path below the mount."""
    bundle = machine.bundle("sleep 1000 & exec sleep 1000", user=user)
    bundle.change(lambda config: config["linux"].update(changes))
    done = machine.rt(*before, "run", "--detach", "--bundle", bundle.path, name, user=user)
    assert (done.code, done.stderr) == (0, ""), done
    state = machine.rt("state", name, user=user)
    assert state.code == 0, state
    pid = json.loads(state.stdout)["pid"]
    return bundle, machine.ok(f"sed -n s/^0:://p /proc/{pid}/cgroup").strip()


def property_of(machine: Machine, user: str, unit: str, name: str) -> str:
    words = "--user " if user != "root" else ""
    return machine.ok(f"systemctl {words}show -P {name} {unit}", user=user).strip()


def scope_ends(machine: Machine, user: str, unit: str) -> None:
    """Wait until systemd knows of it no more: it has been told, and acts in its own time."""
    until(lambda: property_of(machine, user, unit, "LoadState") == "not-found", f"{unit} ends")


@pytest.mark.covers("--cgroup-manager", "linux.cgroupsPath")
def test_a_user_gets_a_scope_of_his_manager_without_asking(machine: Machine) -> None:
    _, where = started(machine, "alice", "auto")
    assert where == "/user.slice/user-1000.slice/user@1000.service/user.slice/rt-auto.scope"
    assert property_of(machine, "alice", "rt-auto.scope", "Delegate") == "yes"
    inside = f"cat /sys/fs/cgroup{where}/cgroup.procs"
    until(lambda: len(machine.ok(inside).split()) == 2, "both processes are in it")
    assert machine.rt("pause", "auto", user="alice").code == 0
    assert json.loads(machine.rt("state", "auto", user="alice").stdout)["status"] == "paused"
    assert machine.rt("resume", "auto", user="alice").code == 0
    machine.ok("rt exec auto true", user="alice")
    machine.ok("rt delete --force auto", user="alice")
    machine.ok(f"test ! -e /sys/fs/cgroup{where}")
    scope_ends(machine, "alice", "rt-auto.scope")


@pytest.mark.covers("--systemd-cgroup")
def test_root_gets_a_scope_of_the_system_when_asked(machine: Machine) -> None:
    _, where = started(machine, "root", "asked", "--systemd-cgroup")
    assert where == "/system.slice/rt-asked.scope"
    machine.ok("rt delete --force asked")
    scope_ends(machine, "root", "rt-asked.scope")


@pytest.mark.covers("linux.cgroupsPath")
def test_slice_prefix_and_name_are_the_config_s(machine: Machine) -> None:
    _, where = started(machine, "root", "named", "--systemd-cgroup", cgroupsPath="lab-deep.slice:box:one")
    assert where == "/lab.slice/lab-deep.slice/box-one.scope"
    machine.ok("rt delete --force named")


def test_annotations_are_properties_of_the_scope(machine: Machine) -> None:
    bundle = machine.bundle("exec sleep 1000", user="root")
    bundle.change(
        lambda config: config.setdefault("annotations", {}).update(
            {
                "org.systemd.property.Description": "'a box'",
                "org.systemd.property.TimeoutStopSec": "7",
                "org.systemd.property.CollectMode": "'inactive'",
            }
        )
    )
    machine.ok(f"rt --systemd-cgroup run --detach --bundle {bundle.path} noted >/dev/null 2>&1 </dev/null")
    assert property_of(machine, "root", "rt-noted.scope", "Description") == "a box"
    assert property_of(machine, "root", "rt-noted.scope", "TimeoutStopUSec") == "7s"
    machine.ok("rt delete --force noted")


def test_a_program_that_ends_takes_its_scope_along(machine: Machine) -> None:
    bundle = machine.bundle("exit 3", user="alice")
    done = machine.rt("run", "--bundle", bundle.path, "short", user="alice")
    assert (done.code, done.stderr) == (3, "")
    scope_ends(machine, "alice", "rt-short.scope")


def test_a_container_that_cannot_start_leaves_no_scope(machine: Machine) -> None:
    bundle = machine.bundle("true", user="alice")
    bundle.change(lambda config: config["process"].update(args=["/no/such/program"]))
    done = machine.rt("run", "--bundle", bundle.path, "broken", user="alice")
    assert done.code == 1 and "/no/such/program" in done.stderr
    scope_ends(machine, "alice", "rt-broken.scope")


def test_the_bus_is_found_without_variables(machine: Machine) -> None:
    bundle = machine.bundle("grep ^0:: /proc/self/cgroup", user="alice")
    bundle.change(
        lambda config: config["linux"].update(
            namespaces=[item for item in config["linux"]["namespaces"] if item["type"] != "cgroup"]
        )
    )
    bare = "env -u XDG_RUNTIME_DIR -u DBUS_SESSION_BUS_ADDRESS rt --root ~/state"
    assert "rt-bare.scope" in machine.ok(f"{bare} run --bundle {bundle.path} bare", user="alice")


def test_without_a_bus_it_goes_on_and_says_so(machine: Machine) -> None:
    """A uid that has neither a session nor a manager, as cron's jobs of users who are not logged in."""
    bundle = machine.bundle("true", user="bare")
    ids = [{"containerID": 0, "hostID": 4242, "size": 1}]
    bundle.change(lambda config: config["linux"].update(uidMappings=ids, gidMappings=ids))
    machine.ok(f"cp -r {bundle.path} /tmp/nobus && chown -R 4242:4242 /tmp/nobus")
    user = "setpriv --reuid 4242 --regid 4242 --clear-groups env -i PATH=$PATH rt --root /tmp/nobus/state"
    done = machine.run(f"{user} --systemd-cgroup run --bundle /tmp/nobus nobus")
    assert done.code == 0 and "there is no user bus" in done.stderr, done
    strict = machine.run(f"{user} --systemd-cgroup --degrade=strict run --bundle /tmp/nobus nobus")
    assert strict.code == 1 and "loginctl enable-linger" in strict.stderr, strict


def test_in_a_delegated_scope_the_container_is_below_it(machine: Machine) -> None:
    bundle = machine.bundle("exec sleep 1000", user="alice")
    scope = "systemd-run --user --scope -q -p Delegate=yes -u lab-below"
    run = f"rt --cgroup-manager cgroupfs run --detach --bundle {bundle.path} below >/dev/null 2>&1 </dev/null"
    machine.ok(f"{scope} sh -c '{run}'", user="alice")
    pid = json.loads(machine.rt("state", "below", user="alice").stdout)["pid"]
    where = machine.ok(f"sed -n s/^0:://p /proc/{pid}/cgroup").strip()
    assert where.endswith("/app.slice/lab-below.scope/below")
    machine.ok("rt delete --force below", user="alice")
    machine.ok(f"test ! -e /sys/fs/cgroup{where}")


def test_root_s_service_with_delegation_has_it_below_too(machine: Machine) -> None:
    bundle = machine.bundle("exec sleep 1000", user="root")
    run = f"rt run --detach --bundle {bundle.path} served >/dev/null 2>&1 </dev/null; sleep 1000"
    machine.ok(f"systemd-run -q -p Delegate=yes -u lab-served sh -c '{run}'")
    machine.ok("for i in $(seq 500); do rt state served >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1")
    pid = json.loads(machine.rt("state", "served", user="root").stdout)["pid"]
    where = machine.ok(f"sed -n s/^0:://p /proc/{pid}/cgroup").strip()
    machine.ok("rt delete --force served; systemctl stop lab-served")
    assert where == "/system.slice/lab-served.service/served"
