"""What only a whole kernel shows: every controller of cgroup v2, PSI, time namespaces, Landlock.

Each command takes a second or more here: few tests, which ask for much at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from lab.machines.machine import Machine
from lab.managers import (
    DELEGATED,
    ROOT_FILES,
    ROOT_SYSTEMD,
    USER_FILES,
    USER_SYSTEMD,
    Way,
    ended,
    limited,
    nothing_left,
    run,
    started,
)

MEGABYTE = 1 << 20
DROP_IN = "/etc/systemd/system/user@.service.d/delegate.conf"
RESTART = "systemctl daemon-reload; systemctl restart user@1000.service"
CPUSET = {"cpus": "1", "mems": "0"}
ROOTS = pytest.mark.parametrize("way", [ROOT_SYSTEMD, ROOT_FILES], ids=repr)
USERS = pytest.mark.parametrize("way", [USER_SYSTEMD, USER_FILES], ids=repr)
SHOW = (
    "cd /sys/fs/cgroup; for file in {}; do echo $file: $(cat $file); done;"
    " grep Cpus_allowed_list /proc/self/status"
)


@pytest.fixture(scope="module")
def disk(machine: Machine) -> tuple[int, int]:
    """The numbers of the machine's disk, on which weights count."""
    numbers = machine.ok("cat /sys/block/vda/dev").strip()
    machine.ok(f"echo '{numbers} enable=1' >/sys/fs/cgroup/io.cost.qos")
    major, minor = numbers.split(":")
    return int(major), int(minor)


@pytest.fixture(scope="module")
def drop_in(machine: Machine) -> Iterator[None]:
    """An administrator's word that users are given cpuset and io as well."""
    machine.ok(f"mkdir -p {DROP_IN.rpartition('/')[0]}")
    machine.write(DROP_IN, "[Service]\nDelegate=cpu cpuset io memory pids\n")
    machine.ok(f"{RESTART}; systemctl --user -M alice@ is-system-running --wait")
    yield
    machine.ok(f"rm {DROP_IN}; {RESTART}")


def told(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def test_the_kernel_has_every_controller(machine: Machine) -> None:
    assert "QEMU" in machine.ok("cat /sys/class/dmi/id/sys_vendor")
    assert machine.run("systemctl is-system-running").stdout.strip() == "running"
    there = set(machine.ok("cat /sys/fs/cgroup/cgroup.controllers").split())
    assert {"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"} <= there


@ROOTS
@pytest.mark.covers(
    "linux.resources.cpu.cpus",
    "linux.resources.cpu.mems",
    "linux.resources.blockIO.weight",
    "linux.resources.blockIO.weightDevice[].weight",
    "linux.resources.hugepageLimits",
)
def test_root_has_what_other_kernels_lack(machine: Machine, way: Way, disk: tuple[int, int]) -> None:
    major, minor = disk
    resources: dict[str, Any] = {
        "cpu": CPUSET,
        "blockIO": {"weight": 10, "weightDevice": [{"major": major, "minor": minor, "weight": 1000}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MEGABYTE}],
    }
    files = ("cpuset.cpus", "cpuset.mems", "cpuset.cpus.effective", "io.weight", "hugetlb.2MB.max")
    done = run(machine, way, SHOW.format(" ".join(files)), **resources)
    assert (done.code, done.stderr) == (0, ""), done
    assert told(done.stdout) == {
        "cpuset.cpus": "1",
        "cpuset.mems": "0",
        "cpuset.cpus.effective": "1",
        "io.weight": f"default 1 {major}:{minor} 10000",
        "hugetlb.2MB.max": str(4 * MEGABYTE),
        "Cpus_allowed_list": "1",
    }
    nothing_left(machine, way)


@ROOTS
@pytest.mark.covers("linux.resources.hugepageLimits")
def test_more_huge_pages_than_allowed_are_refused(machine: Machine, way: Way) -> None:
    machine.ok("sysctl -w vm.nr_hugepages=8")
    script = "fallocate -l 4M /huge/some && echo some; fallocate -l 6M /huge/more || echo no more"
    bundle = limited(machine, way, script, hugepageLimits=[{"pageSize": "2MB", "limit": 4 * MEGABYTE}])
    bundle.config["mounts"].append({"destination": "/huge", "type": "hugetlbfs", "source": "hugetlbfs"})
    bundle.write()
    done = way.rt(machine, "run", "--bundle", bundle.path, "box")
    machine.ok("sysctl -w vm.nr_hugepages=0")
    assert (done.code, done.stdout) == (0, "some\nno more\n"), done


@ROOTS
@pytest.mark.covers("linux.resources.blockIO.weight", "linux.resources.blockIO.weightDevice[].weight")
def test_a_disk_that_bfq_schedules_has_weights_of_its_own(machine: Machine, way: Way) -> None:
    machine.ok("modprobe bfq && echo bfq >/sys/block/vda/queue/scheduler")
    numbers = machine.ok("cat /sys/block/vda/dev").strip()
    major, _, minor = numbers.partition(":")
    device = {"major": int(major), "minor": int(minor), "weight": 700}
    weights = {"weight": 20, "weightDevice": [device]}
    done = run(machine, way, "cat /sys/fs/cgroup/io.bfq.weight", blockIO=weights)
    machine.ok("echo none >/sys/block/vda/queue/scheduler && rmmod bfq")
    assert (done.code, done.stderr, done.stdout) == (0, "", f"default 20\n{numbers} 700\n"), done


@pytest.mark.covers("linux.resources.cpu.cpus")
def test_a_cpu_that_is_not_there_is_refused_before_anything_runs(machine: Machine) -> None:
    done = run(machine, ROOT_FILES, "echo ran", cpu={"cpus": "7"})
    assert done.code != 0 and done.stdout == "" and "cpu" in done.stderr, done
    nothing_left(machine, ROOT_FILES)


def test_without_the_drop_in_a_user_is_told_what_is_missing(machine: Machine) -> None:
    done = run(machine, USER_SYSTEMD, "echo ran", cpu=CPUSET, blockIO={"weight": 500})
    assert (done.code, done.stdout) == (0, "ran\n"), done
    for name in ("cpuset", "io"):
        assert f'controller "{name}" is not delegated to' in done.stderr


@USERS
@pytest.mark.usefixtures("drop_in")
@pytest.mark.covers(
    "linux.resources.cpu.cpus", "linux.resources.cpu.mems", "linux.resources.blockIO.weight", "update"
)
def test_a_user_is_given_cpuset_and_weights_of_io(machine: Machine, way: Way) -> None:
    assert {"cpuset", "io"} <= set(machine.ok(f"cat {DELEGATED}/cgroup.controllers").split())
    bundle = limited(machine, way, "exec sleep 4000", cpu=CPUSET, blockIO={"weight": 505})
    cgroup = started(machine, way, bundle)
    assert cgroup.startswith(DELEGATED)
    files = " ".join(f"{cgroup}/{name}" for name in ("cpuset.cpus", "cpuset.mems", "io.weight"))
    assert machine.ok(f"cat {files}").split("\n") == ["1", "0", "default 5000", ""]
    done = way.rt(machine, "update", "--cpuset-cpus", "0", "--blkio-weight", "1000", "box")
    assert (done.code, done.stderr) == (0, ""), done
    assert machine.ok(f"cat {files}").split("\n") == ["0", "0", "default 10000", ""]
    ended(machine, way, cgroup)


@pytest.mark.covers("events --stats")
def test_events_have_the_pressure_that_there_was(machine: Machine) -> None:
    """A busy container that is given a fifth of a CPU waits for it."""
    bundle = limited(machine, USER_SYSTEMD, "while :; do :; done", cpu={"quota": 10000, "period": 50000})
    cgroup = started(machine, USER_SYSTEMD, bundle)
    machine.ok(f"until grep -q '^some.*total=[1-9]' {cgroup}/cpu.pressure; do sleep 0.5; done")
    done = machine.rt("events", "--stats", "box")
    assert (done.code, done.stderr) == (0, ""), done
    data = json.loads(done.stdout)["data"]
    assert data["cpu"]["psi"]["some"]["total"] > 0
    for subject in ("cpu", "memory", "blkio"):
        psi = data[subject]["psi"]
        assert set(psi) == {"some", "full"}
        assert all(set(psi[kind]) == {"avg10", "avg60", "avg300", "total"} for kind in psi)
    ended(machine, USER_SYSTEMD, cgroup)


@pytest.mark.parametrize("user", ["root", "alice"])
@pytest.mark.covers("linux.timeOffsets", "annotations")
def test_clocks_are_set_apart_and_files_kept_by_landlock(machine: Machine, user: str) -> None:
    assert "landlock" in machine.ok("cat /sys/kernel/security/lsm")
    bundle = machine.bundle(
        "sed -n 's/boottime *//p' /proc/self/timens_offsets; echo a >/tmp/file && echo tmp;"
        " (echo b >/root/file) 2>&- || echo not-root",
        user=user,
    )
    bundle.config["linux"]["namespaces"].append({"type": "time"})
    bundle.config["linux"]["timeOffsets"] = {"boottime": {"secs": 1000000}}
    bundle.config["annotations"] = {"org.rootless-rt.landlock": json.dumps({"ro": ["/"], "rw": ["/tmp"]})}
    bundle.write()
    done = machine.rt("run", "--bundle", bundle.path, "box", user=user)
    assert (done.code, done.stderr) == (0, ""), done
    assert done.stdout.split() == ["1000000", "0", "tmp", "not-root"]
