"""Checkpoints that ask more of a kernel, and of root, than most machines for tests give."""

from __future__ import annotations

import json

import pytest
from lab.machines.machine import Machine

# 2 MB of memory that is not touched until its length is asked for.
HOLDER = "kept=$(head -c 2000000 /dev/zero | tr '\\0' a); while :; do echo . >> /ticks; sleep 0.2;"
HOLDER += " [ -e /ask ] && echo ${#kept} > /told; done"


def background(machine: Machine, command: str) -> None:
    """Start a container with /dev/null as stdio: CRIU opens files anew."""
    errors = "/run/background-errors"
    machine.ok(f"{command} </dev/null >/dev/null 2>{errors} || {{ cat {errors} >&2; exit 1; }}")


def ticks(machine: Machine, path: str) -> int:
    return int(machine.ok(f"cat {path}/rootfs/ticks 2>/dev/null | wc -l").strip())


def goes_on(machine: Machine, path: str) -> None:
    before = ticks(machine, path)
    lines = f"$(cat {path}/rootfs/ticks 2>/dev/null | wc -l)"
    machine.ok(f"for i in $(seq 300); do [ {lines} -gt {before} ] && exit; sleep 0.2; done; exit 1")


def holds(machine: Machine, path: str) -> None:
    """The restored program has its memory."""
    wait = f"for i in $(seq 100); do [ -s {path}/rootfs/told ] && break; sleep 0.2; done"
    assert machine.ok(f"touch {path}/rootfs/ask; {wait}; sort -u {path}/rootfs/told") == "2000000\n"


@pytest.mark.covers("checkpoint --pre-dump", "checkpoint --parent-path")
def test_a_chain_of_three_saves_what_has_changed(machine: Machine) -> None:
    path = machine.bundle(HOLDER, user="root").path
    background(machine, f"rt run -d -b {path} chain")
    goes_on(machine, path)
    machine.ok(f"rt checkpoint --pre-dump --image-path {path}/first chain")
    goes_on(machine, path)
    machine.ok(f"rt checkpoint --pre-dump --image-path {path}/second --parent-path ../first chain")
    goes_on(machine, path)
    machine.ok(f"rt checkpoint --image-path {path}/third --parent-path ../second chain")
    sizes = [
        int(machine.ok(f"cat {path}/{step}/pages-*.img | wc -c").strip())
        for step in ("first", "second", "third")
    ]
    assert sizes[0] > 2_000_000 > 1_000_000 > sizes[1] and sizes[2] < 1_000_000, sizes
    background(machine, f"rt restore -d --image-path {path}/third -b {path} chain")
    goes_on(machine, path)
    holds(machine, path)


@pytest.mark.covers("checkpoint --lazy-pages", "checkpoint --status-fd", "restore --lazy-pages")
def test_memory_is_fetched_as_it_is_needed(machine: Machine) -> None:
    path = machine.bundle(HOLDER, user="root").path
    background(machine, f"rt run -d -b {path} lazy")
    goes_on(machine, path)
    where = f"--page-server --address 127.0.0.1 --port 7788 -D {path}/images -W {path}/work"
    script = f"""
        mkdir -m 700 {path}/work
        rt checkpoint --image-path {path}/images --lazy-pages --status-fd 3 \\
            --page-server 127.0.0.1:7788 lazy 3>{path}/status &
        source=$!
        until [ -s {path}/status ]; do sleep 0.1; done
        criu lazy-pages {where} & fetcher=$!
        until [ -e {path}/work/lazy-pages.socket ]; do sleep 0.1; done
        rt restore -d --lazy-pages --image-path {path}/images --work-path {path}/work -b {path} moved \\
            </dev/null >/dev/null 2>{path}/errors || {{ cat {path}/errors; exit 1; }}
        wait $source && wait $fetcher
    """
    machine.ok(f"set -e; {script}", timeout=100)
    goes_on(machine, path)
    holds(machine, path)
    assert machine.ok("rt list -q") == "moved\n"


def saved_and_back(machine: Machine, path: str, box: str, *options: str, before: str = "rt") -> str:
    """Checkpoint a container that runs, restore it with these options; the new process id."""
    goes_on(machine, path)
    machine.ok(f"{before} checkpoint --image-path {path}/images {box}")
    background(machine, f"{before} restore -d {' '.join(options)} --image-path {path}/images -b {path} {box}")
    goes_on(machine, path)
    return str(json.loads(machine.ok(f"rt state {box}"))["pid"])


@pytest.mark.covers("checkpoint --manage-cgroups-mode", "restore --manage-cgroups-mode")
def test_a_scope_of_systemd_comes_back_with_its_limits(machine: Machine) -> None:
    bundle = machine.bundle(HOLDER, user="root")
    bundle.config["linux"]["resources"] = {"pids": {"limit": 60}}
    bundle.write()
    rt = "rt --systemd-cgroup"
    background(machine, f"{rt} run -d -b {bundle.path} scoped")
    pid = saved_and_back(machine, bundle.path, "scoped", before=rt)
    where = machine.ok(f"cat /proc/{pid}/cgroup").strip()
    assert where.startswith("0::/") and "scoped.scope" in where
    scope = next(name for name in where.split("/") if name.endswith("scoped.scope"))
    shown = machine.ok(f"systemctl show --value -p ActiveState -p TasksMax {scope}")
    assert sorted(shown.split()) == ["60", "active"]
    assert machine.ok(f"cat /sys/fs/cgroup{where[3:]}/pids.max").strip() in ("60", "max")
    machine.ok("rt delete --force scoped")
    assert machine.run(f"systemctl is-active {scope}").stdout.strip() != "active"


@pytest.mark.covers("restore --lsm-profile")
def test_a_container_comes_back_under_its_profile_or_another(machine: Machine) -> None:
    rules = (
        "file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, mqueue, dbus, userns,"
    )
    flags = "flags=(attach_disconnected,mediate_deleted)"
    names = ("rt-saved", "rt-restored")
    profiles = "".join(f"profile {name} {flags} {{ {rules} }}\n" for name in names)
    machine.ok("apparmor_parser --replace", stdin=profiles)
    bundle = machine.bundle(HOLDER, user="root")
    bundle.config["process"]["apparmorProfile"] = "rt-saved"
    bundle.write()

    def profile(pid: str) -> str:
        return machine.ok(f"cat /proc/{pid}/attr/apparmor/current").strip()

    background(machine, f"rt run -d -b {bundle.path} confined")
    assert profile(saved_and_back(machine, bundle.path, "confined")) == "rt-saved (enforce)"
    other = saved_and_back(machine, bundle.path, "confined", "--lsm-profile", "apparmor:rt-restored")
    assert profile(other) == "rt-restored (enforce)"
    machine.ok("rt delete --force confined; apparmor_parser --remove", stdin=profiles)
