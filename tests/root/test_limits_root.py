"""linux.resources of root's containers on this machine's cgroups: read back, and run into."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import held, output, refusal, told
from lab.runtime import Runtime

from rootless_rt import cgroups

CGROUPS = Path("/sys/fs/cgroup")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="root's cgroups"),
    pytest.mark.skipif(not (CGROUPS / "memory").is_dir(), reason="needs the controllers on cgroup v1"),
]
MEGABYTE = 1 << 20


def limited(bundle: Bundle, **resources: Any) -> Bundle:
    return bundle.change(lambda config: config["linux"]["resources"].update(resources))


def shown(rt: Runtime, bundle: Bundle, *files: str) -> list[str]:
    """What the container reads in its own cgroup files."""
    script = "".join(f"cat /sys/fs/cgroup/{file};" for file in files)
    return output(rt, bundle, script).splitlines()


@pytest.mark.covers(
    "linux.resources.memory.limit",
    "linux.resources.memory.swap",
    "linux.resources.memory.reservation",
    "linux.resources.memory.swappiness",
    "linux.resources.cpu.shares",
    "linux.resources.cpu.quota",
    "linux.resources.cpu.period",
    "linux.resources.cpu.burst",
    "linux.resources.cpu.cpus",
    "linux.resources.cpu.mems",
    "linux.resources.pids.limit",
)
def test_the_kernel_has_what_was_asked(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = limited(
        root_bundle(),
        memory={"limit": 64 * MEGABYTE, "swap": 96 * MEGABYTE, "reservation": 32 * MEGABYTE, "swappiness": 7},
        cpu={"shares": 512, "quota": 50000, "period": 200000, "burst": 1000, "cpus": "0", "mems": "0"},
        pids={"limit": 20},
    )
    wanted = {
        "memory/memory.limit_in_bytes": 64 * MEGABYTE,
        "memory/memory.memsw.limit_in_bytes": 96 * MEGABYTE,
        "memory/memory.soft_limit_in_bytes": 32 * MEGABYTE,
        "memory/memory.swappiness": 7,
        "cpu/cpu.shares": 512,
        "cpu/cpu.cfs_quota_us": 50000,
        "cpu/cpu.cfs_period_us": 200000,
        "cpu/cpu.cfs_burst_us": 1000,
        "cpuset/cpuset.cpus": 0,
        "cpuset/cpuset.mems": 0,
        "pids/pids.max": 20,
    }
    assert shown(root_rt, made, *wanted) == [str(value) for value in wanted.values()]


@pytest.mark.covers("linux.resources.cpu.idle")
def test_an_idle_container_has_no_shares(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = limited(root_bundle(), cpu={"idle": 1, "shares": 512})
    assert shown(root_rt, made, "cpu/cpu.idle") == ["1"]


@pytest.mark.covers(
    "linux.resources.blockIO.throttleReadBpsDevice", "linux.resources.blockIO.throttleWriteIOPSDevice"
)
def test_a_disk_is_throttled(root_rt: Runtime, root_bundle: MakeBundle, place: Path) -> None:
    number = os.stat(place).st_dev
    device = {"major": os.major(number), "minor": os.minor(number)}
    if not Path(f"/sys/dev/block/{device['major']}:{device['minor']}").exists():
        pytest.skip("the tests' directory is on no block device")
    block = {
        "throttleReadBpsDevice": [{**device, "rate": 1000000}],
        "throttleWriteIOPSDevice": [{**device, "rate": 50}],
    }
    files = ("blkio/blkio.throttle.read_bps_device", "blkio/blkio.throttle.write_iops_device")
    name = f"{device['major']}:{device['minor']}"
    assert shown(root_rt, limited(root_bundle(), blockIO=block), *files) == [f"{name} 1000000", f"{name} 50"]


@pytest.mark.covers("linux.resources.hugepageLimits")
def test_huge_pages_are_limited_wherever_their_controller_is(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    files = [*CGROUPS.glob("hugetlb/hugetlb.*.limit_in_bytes"), *CGROUPS.glob("unified/*/hugetlb.*.max")]
    if not files and "hugetlb" not in (CGROUPS / "unified/cgroup.controllers").read_text():
        pytest.skip("no hugetlb controller")
    sizes = [path.name for path in Path("/sys/kernel/mm/hugepages").iterdir()]
    if "hugepages-2048kB" not in sizes:
        pytest.skip("no huge pages of 2 MB")
    made = limited(root_bundle(), hugepageLimits=[{"pageSize": "2MB", "limit": 4 * MEGABYTE}])
    pid = held(root_rt, made)
    found = []
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, names, path = line.split(":", 2)
        folder = CGROUPS / ("unified" if number == "0" else names) / path.strip("/")
        for name in ("hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"):
            if (folder / name).exists():
                found.append((folder / name).read_text().strip())
    assert found == [str(4 * MEGABYTE)]


@pytest.mark.covers("linux.resources.memory.limit")
def test_more_memory_than_allowed_ends_it(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = limited(
        root_bundle("dd if=/dev/zero of=/dev/null bs=80M count=1 iflag=fullblock"),
        memory={"limit": 24 * MEGABYTE, "swap": 24 * MEGABYTE},
    )
    done = root_rt("run", "--bundle", str(made.path), "box")
    assert done.returncode == 137 or "Killed" in done.stderr, (done.returncode, done.stderr)


@pytest.mark.covers("linux.resources.pids.limit")
def test_more_processes_than_allowed_are_refused(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = limited(root_bundle("for i in 1 2 3 4 5 6; do sleep 100 & done"), pids={"limit": 4})
    done = root_rt("run", "--bundle", str(made.path), "box")
    assert "can't fork" in done.stderr


def test_limits_of_nothing_ask_for_nothing(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    """As engines send them."""
    made = limited(
        root_bundle(),
        memory={"limit": 0, "swap": 0, "disableOOMKiller": False},
        cpu={"shares": 0, "quota": 0, "period": 0},
        pids={"limit": -1},
        blockIO={"weight": 0},
    )
    assert output(root_rt, made, "echo fine") == "fine"


def places_for_ours() -> list[Path]:
    """Where containers that we start have their cgroups: below our own, and in a v2 tree beside it."""
    view = cgroups.view()
    found = [Path(own) for name in view.mounts if (own := view.own_dir(name))]
    return found + ([Path(own).parent] if (own := view.own_dir()) else [])


def test_its_cgroups_are_where_they_are_looked_for(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    held(root_rt, root_bundle(), "refused")
    assert all((place / "refused").is_dir() for place in places_for_ours())


@pytest.mark.parametrize(
    ("resources", "where"),
    [
        ({"memory": {"limit": 100, "swap": 50}}, "memory.swap"),
        ({"cpu": {"period": 5}}, "cpu.period"),
        ({"cpu": {"cpus": "0-"}}, "cpu.cpus"),
        ({"cpu": {"cpus": "900"}}, "cpu.cpus"),
        ({"unified": {"memory.high": "5"}}, 'unified["memory.high"]'),
        ({"rdma": {"no0": {"hcaHandles": 1}}}, 'rdma["no0"]'),
        ({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}, "hugepageLimits[0]"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_its_path_and_leaves_no_cgroup(
    resources: dict[str, Any], where: str, root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    error = refusal(root_rt, limited(root_bundle(), **resources))
    assert f"linux.resources.{where}" in error
    assert not [place for place in places_for_ours() if (place / "refused").exists()]


def test_without_a_cgroup_each_limit_is_announced(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = limited(root_bundle(), memory={"limit": 64 * MEGABYTE}, pids={"limit": 9})
    manager = ("--cgroup-manager", "disabled")
    error = refusal(root_rt, made, before=manager)
    assert "linux.resources.memory.limit: memory.max=67108864 is not possible" in error
    made.run("true")
    done = root_rt("--degrade", "warn", *manager, "run", "--bundle", str(made.path), "box")
    assert done.returncode == 0
    assert "linux.resources.memory.limit" in done.stderr and "linux.resources.pids.limit" in done.stderr


def test_what_has_no_effect_is_said(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = limited(root_bundle(), memory={"kernel": MEGABYTE})
    assert "linux.resources.memory.kernel: has no effect" in told(root_rt, made, "true")[1]


@pytest.mark.covers("linux.resources.cpu.cpus")
def test_a_cpuset_holds_for_a_caller_that_is_tied_to_other_cpus(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU is all there is")
    made = limited(root_bundle("exec sleep 1000"), cpu={"cpus": "0-1"})
    allowed = "Cpus_allowed_list:"

    def tied() -> None:
        os.sched_setaffinity(0, {0})

    done = root_rt("run", "--detach", "--bundle", str(made.path), "tied", preexec_fn=tied)
    assert done.returncode == 0, done.stderr
    pid = root_rt.state("tied")["pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    assert next(line.split()[1] for line in status.splitlines() if line.startswith(allowed)) == "0-1"
    said = root_rt("exec", "tied", "grep", allowed, "/proc/self/status", preexec_fn=tied)
    assert said.stdout.split()[1] == "0-1"
