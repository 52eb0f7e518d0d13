"""linux.resources under a kernel that has the controllers: read back and run into, with every manager."""

from __future__ import annotations

from typing import Any

import pytest
from lab.machines.machine import Machine
from lab.managers import (
    DELEGATED,
    NONE,
    ROOT_FILES,
    ROOT_SYSTEMD,
    USER_FILES,
    USER_SYSTEMD,
    WAYS,
    Way,
    ended,
    limited,
    nothing_left,
    run,
    started,
)

MEGABYTE = 1 << 20
EACH = pytest.mark.parametrize("way", WAYS, ids=repr)
DISK = {"major": 98, "minor": 0}  # of User-mode Linux, "ubd"

RESOURCES: dict[str, Any] = {
    "memory": {"limit": 64 * MEGABYTE, "swap": 96 * MEGABYTE, "reservation": 32 * MEGABYTE},
    "cpu": {"shares": 512, "quota": 50000, "period": 200000, "burst": 1000, "cpus": "0", "mems": "0"},
    "pids": {"limit": 20},
    "blockIO": {
        "throttleReadBpsDevice": [{**DISK, "rate": MEGABYTE}],
        "throttleWriteBpsDevice": [{**DISK, "rate": 2 * MEGABYTE}],
        "throttleReadIOPSDevice": [{**DISK, "rate": 100}],
        "throttleWriteIOPSDevice": [{**DISK, "rate": 200}],
    },
    "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MEGABYTE}],
    "rdma": {"mlx5_1": {"hcaHandles": 3}},
    "unified": {"memory.high": str(48 * MEGABYTE), "cgroup.max.depth": "7"},
}
FILES = {
    "memory.max": str(64 * MEGABYTE),
    "memory.swap.max": str(32 * MEGABYTE),
    "memory.low": str(32 * MEGABYTE),
    "memory.high": str(48 * MEGABYTE),
    "cpu.weight": "59",
    "cpu.max": "50000 200000",
    "cpu.max.burst": "1000",
    "pids.max": "20",
    "cgroup.max.depth": "7",
}
IO = f"98:0 rbps={MEGABYTE} wbps={2 * MEGABYTE} riops=100 wiops=200"
# The kernel of this machine has none of these controllers, so that they are missing for root as well.
LACKING = {
    "cpu.cpus": ("cpuset.cpus=0", "cpuset"),
    "cpu.mems": ("cpuset.mems=0", "cpuset"),
    "hugepageLimits[0]": ("hugetlb.2MB.max=4194304", "hugetlb"),
    'rdma["mlx5_1"]': ("rdma.max=mlx5_1 hca_handle=3", "rdma"),
}
SHOW = "cd /sys/fs/cgroup; for file in {}; do echo $file: $(cat $file); done"


def shown(text: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.splitlines())


@EACH
@pytest.mark.covers(
    "linux.resources.memory.limit",
    "linux.resources.memory.swap",
    "linux.resources.memory.reservation",
    "linux.resources.cpu.shares",
    "linux.resources.cpu.quota",
    "linux.resources.cpu.period",
    "linux.resources.cpu.burst",
    "linux.resources.pids.limit",
    "linux.resources.blockIO.throttleReadBpsDevice",
    "linux.resources.blockIO.throttleWriteBpsDevice",
    "linux.resources.blockIO.throttleReadIOPSDevice",
    "linux.resources.blockIO.throttleWriteIOPSDevice",
    "linux.resources.unified",
    "--cgroup-manager",
    "--systemd-cgroup",
)
def test_the_kernel_has_what_was_asked_and_what_it_has_not_is_announced(machine: Machine, way: Way) -> None:
    files = {**FILES, "io.max": IO} if way.user == "root" else FILES
    done = run(machine, way, SHOW.format(" ".join(files)), **RESOURCES)
    assert done.code == 0, done
    assert shown(done.stdout) == files
    for field, (asked, controller) in LACKING.items():
        line = f"linux.resources.{field}: {asked} -> no limit: the kernel, or what surrounds this container"
        assert f'{line}, has no controller "{controller}" for it' in done.stderr
    io = f'controller "io" is not delegated to {DELEGATED.removeprefix("/sys/fs/cgroup")}'
    assert (io in done.stderr) == (way.user != "root"), done.stderr
    nothing_left(machine, way)


@pytest.mark.covers("linux.resources.cpu.idle")
@EACH
def test_an_idle_container_has_no_share(machine: Machine, way: Way) -> None:
    done = run(machine, way, "cat /sys/fs/cgroup/cpu.idle", cpu={"idle": 1, "shares": 512})
    assert (done.code, done.stderr, done.stdout) == (0, "", "1\n")


@EACH
@pytest.mark.covers("linux.resources.memory.limit", "linux.resources.memory.swap")
def test_more_memory_than_allowed_ends_it(machine: Machine, way: Way) -> None:
    eat = "exec dd if=/dev/zero of=/dev/null bs=100M count=1 iflag=fullblock"
    done = run(machine, way, eat, memory={"limit": 24 * MEGABYTE, "swap": 24 * MEGABYTE})
    assert done.code == 137, done
    nothing_left(machine, way)


@EACH
@pytest.mark.covers("linux.resources.pids.limit")
def test_more_processes_than_allowed_are_refused(machine: Machine, way: Way) -> None:
    script = "for i in 1 2 3 4 5 6; do sleep 1000 & done"
    done = run(machine, way, script, pids={"limit": 4})
    assert done.code != 0 and "can't fork" in done.stderr, done


@EACH
@pytest.mark.covers("linux.resources.cpu.quota")
def test_more_time_than_allowed_is_not_given(machine: Machine, way: Way) -> None:
    """Some work of the CPU, that is stopped several times on its way."""
    script = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; cat /sys/fs/cgroup/cpu.stat"
    done = run(machine, way, script, cpu={"quota": 5000, "period": 50000})
    told = dict(line.split() for line in done.stdout.splitlines())
    assert int(told["nr_throttled"]) >= 2, told


@EACH
def test_it_is_frozen_and_thawed(machine: Machine, way: Way) -> None:
    # It must not fork: when a process is killed in fork(2), Linux 6.12 as a program of users panics now and
    # then (copy_process, exit_mmap, flush_tlb_mm).
    cgroup = started(machine, way, limited(machine, way, "while :; do :; done"))
    assert machine.rt("pause", "box", user=way.user).code == 0
    assert "frozen 1" in machine.ok(f"cat {cgroup}/cgroup.events")
    assert machine.rt("resume", "box", user=way.user).code == 0
    assert "frozen 0" in machine.ok(f"cat {cgroup}/cgroup.events")
    ended(machine, way, cgroup)


NESTING = """
cd /sys/fs/cgroup && mkdir -p init deep/er deep/est && echo $$ >init/cgroup.procs
echo '+pids +memory' >cgroup.subtree_control || exit 1
for place in deep/er deep/est; do sh -c "echo \\$\\$ >$place/cgroup.procs; exec sleep 4000" & done
setsid sleep 4000 &
wait
"""


@EACH
@pytest.mark.covers("kill --all", "delete --force")
def test_cgroups_that_a_container_has_made_end_with_it(machine: Machine, way: Way) -> None:
    """The container is given its cgroup to fill (mounted writable), and gives controllers on to its own."""
    given = {"memory": {"limit": 64 * MEGABYTE}, "pids": {"limit": 30}}
    cgroup = started(machine, way, limited(machine, way, NESTING, writable=True, **given))
    cgroup = cgroup.removesuffix("/init")
    ready = f"test $(cat {cgroup}/deep/er/cgroup.procs {cgroup}/deep/est/cgroup.procs | wc -l) = 2"
    machine.ok(f"until {ready} && test $(pgrep -c -x sleep) = 3; do sleep 0.05; done")
    inside = way.rt(machine, "exec", "box", "cat", "/proc/self/cgroup")
    assert inside.stdout == "0::/init\n", inside  # where processes may be: beside the first one
    ended(machine, way, cgroup)
    assert machine.run("pgrep -x sleep").stdout == ""


@EACH
def test_a_container_that_cannot_start_leaves_nothing(machine: Machine, way: Way) -> None:
    bundle = limited(machine, way, "true", memory={"limit": 64 * MEGABYTE}, pids={"limit": 9})
    bundle.change(lambda config: config["process"].update(args=["/no/such/program"]))
    done = way.rt(machine, "run", "--bundle", bundle.path, "box")
    assert done.code == 1 and "/no/such/program" in done.stderr
    nothing_left(machine, way)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"memory": {"limit": 100, "swap": 50}}, "memory.swap"),
    ({"cpu": {"period": 5}}, "cpu.period"),
    ({"unified": {"memory.nothing": "5"}}, 'unified["memory.nothing"]'),
    ({"unified": {"memory.high": "much"}}, 'unified["memory.high"]'),
    ({"unified": {"pids.max": "5/../../x"}}, 'unified["pids.max"]'),
]


@EACH
def test_a_value_that_cannot_be_is_an_error_with_its_path(machine: Machine, way: Way) -> None:
    bundle = limited(machine, way, "echo ran")
    for resources, where in WRONG:
        bundle.change(lambda config, given=resources: config["linux"].update(resources=given))
        done = way.rt(machine, "run", "--bundle", bundle.path, "box")
        assert (done.code, done.stdout) == (1, "")
        assert f"linux.resources.{where}" in done.stderr.splitlines()[0], done
    nothing_left(machine, way)


@pytest.mark.covers("--cgroup-manager")
def test_without_a_cgroup_each_limit_is_announced(machine: Machine) -> None:
    wanted = {"memory": {"limit": 64 * MEGABYTE}, "pids": {"limit": 9}}
    done = run(machine, NONE, "echo ran", **wanted)
    assert (done.code, done.stdout) == (0, "ran\n")
    for field in ("memory.limit", "pids.limit"):
        assert f"linux.resources.{field}" in done.stderr
    assert "disabled by --cgroup-manager" in done.stderr


@pytest.mark.parametrize("way", [ROOT_FILES, ROOT_SYSTEMD], ids=repr)
def test_root_is_refused_what_cannot_be_had(machine: Machine, way: Way) -> None:
    bundle = limited(machine, way, "echo ran", hugepageLimits=[{"pageSize": "2MB", "limit": 1 << 21}])
    done = machine.rt(*way.options, "run", "--bundle", bundle.path, "box", user="root")
    assert (done.code, done.stdout) == (1, "")
    assert "linux.resources.hugepageLimits[0]: hugetlb.2MB.max=2097152 is not possible" in done.stderr
    nothing_left(machine, way)


@pytest.mark.parametrize("way", [USER_FILES, USER_SYSTEMD], ids=repr)
def test_limits_of_the_unit_above_hold_as_well(machine: Machine, way: Way) -> None:
    """systemd keeps what it was told of the scope when it is reloaded."""
    bundle = limited(machine, way, "exec sleep 4000", memory={"limit": 64 * MEGABYTE}, pids={"limit": 9})
    cgroup = started(machine, way, bundle)
    machine.ok("systemctl --user daemon-reload", way.user)
    assert machine.ok(f"cd {cgroup}; cat memory.max pids.max").split() == [str(64 * MEGABYTE), "9"]
    ended(machine, way, cgroup)
