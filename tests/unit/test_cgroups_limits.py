"""linux.resources as values for the kernel's files, for cgroup v1 and v2."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless_rt.cgroups.limits import compile_limits, is_number_list
from rootless_rt.cgroups.limits_v2 import io_weight_of, weight_of
from rootless_rt.errors import SpecError


def files(version: int, **resources: Any) -> list[tuple[str, str]]:
    """(first file, text) of every limit."""
    return [limit.writes[0] for limit in compile_limits(resources, version).limits]


def path_of(version: int = 2, **resources: Any) -> str:
    with pytest.raises(SpecError) as caught:
        compile_limits(resources, version)
    return caught.value.path


@pytest.mark.covers("linux.resources.cpu.shares")
@pytest.mark.parametrize(
    ("shares", "weight"),
    [
        (0, 1),
        (1, 1),
        (2, 1),
        (3, 2),
        (10, 4),
        (100, 17),
        (512, 59),
        (1024, 100),
        (2048, 174),
        (262144, 10000),
    ],
)
def test_shares_and_weight_agree_at_least_default_and_greatest(shares: int, weight: int) -> None:
    assert weight_of(shares) == weight and weight_of(1 << 60) == 10000


def test_a_larger_share_is_never_a_smaller_weight() -> None:
    weights = [weight_of(shares) for shares in range(2, 5000)]
    assert weights == sorted(weights)


def test_io_weight_spans_its_range() -> None:
    assert (io_weight_of(10), io_weight_of(1000)) == (1, 10000) and 900 < io_weight_of(100) < 920


@pytest.mark.covers(
    "linux.resources.memory.limit",
    "linux.resources.memory.swap",
    "linux.resources.memory.reservation",
    "linux.resources.memory.disableOOMKiller",
    "linux.resources.memory.kernel",
    "linux.resources.memory.kernelTCP",
    "linux.resources.memory.useHierarchy",
    "linux.resources.memory.swappiness",
)
@pytest.mark.parametrize(
    ("memory", "v2", "v1"),
    [
        ({"limit": 0, "swap": 0}, [], []),
        ({"limit": 512}, [("memory.max", "512")], [("memory.limit_in_bytes", "512")]),
        (
            {"limit": 512, "swap": 512},
            [("memory.max", "512"), ("memory.swap.max", "0")],
            [("memory.limit_in_bytes", "512"), ("memory.memsw.limit_in_bytes", "512")],
        ),
        (
            {"limit": 512, "swap": 1024},
            [("memory.max", "512"), ("memory.swap.max", "512")],
            [("memory.limit_in_bytes", "512"), ("memory.memsw.limit_in_bytes", "1024")],
        ),
        (
            {"limit": 512, "swap": -1},
            [("memory.max", "512"), ("memory.swap.max", "max")],
            [("memory.memsw.limit_in_bytes", "-1"), ("memory.limit_in_bytes", "512")],
        ),
        (
            {"limit": -1},
            [("memory.max", "max"), ("memory.swap.max", "max")],
            [("memory.memsw.limit_in_bytes", "-1"), ("memory.limit_in_bytes", "-1")],
        ),
        ({"reservation": 7}, [("memory.low", "7")], [("memory.soft_limit_in_bytes", "7")]),
        ({"reservation": -1}, [("memory.low", "max")], [("memory.soft_limit_in_bytes", "-1")]),
        ({"swappiness": 0}, [], [("memory.swappiness", "0")]),
        ({"disableOOMKiller": True}, [], [("memory.oom_control", "1")]),
        ({"kernel": 5, "kernelTCP": 5, "useHierarchy": True, "checkBeforeUpdate": True}, [], []),
    ],
)
def test_memory(memory: dict[str, Any], v2: list[tuple[str, str]], v1: list[tuple[str, str]]) -> None:
    assert files(2, memory=memory) == v2
    assert files(1, memory=memory) == v1


@pytest.mark.covers(
    "linux.resources.cpu.quota",
    "linux.resources.cpu.period",
    "linux.resources.cpu.burst",
    "linux.resources.cpu.idle",
    "linux.resources.cpu.cpus",
    "linux.resources.cpu.mems",
    "linux.resources.cpu.realtimeRuntime",
    "linux.resources.cpu.realtimePeriod",
)
@pytest.mark.parametrize(
    ("cpu", "v2", "v1"),
    [
        ({"shares": 0, "quota": 0, "period": 0}, [], []),
        ({"shares": 1024}, [("cpu.weight", "100")], [("cpu.shares", "1024")]),
        ({"quota": 5000}, [("cpu.max", "5000 100000")], [("cpu.cfs_quota_us", "5000")]),
        (
            {"quota": 5000, "period": 10000},
            [("cpu.max", "5000 10000")],
            [("cpu.cfs_period_us", "10000"), ("cpu.cfs_quota_us", "5000")],
        ),
        ({"quota": -1}, [("cpu.max", "max 100000")], [("cpu.cfs_quota_us", "-1")]),
        ({"period": 10000}, [("cpu.max", "max 10000")], [("cpu.cfs_period_us", "10000")]),
        (
            {"quota": 5000, "burst": 1000},
            [("cpu.max", "5000 100000"), ("cpu.max.burst", "1000")],
            [("cpu.cfs_quota_us", "5000"), ("cpu.cfs_burst_us", "1000")],
        ),
        ({"idle": 1, "shares": 1024}, [("cpu.idle", "1")], [("cpu.idle", "1")]),
        ({"idle": 0}, [("cpu.idle", "0")], [("cpu.idle", "0")]),
        (
            {"realtimePeriod": 10, "realtimeRuntime": 5},
            [],
            [("cpu.rt_period_us", "10"), ("cpu.rt_runtime_us", "5")],
        ),
        (
            {"cpus": "0-1", "mems": "0"},
            [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
            [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
        ),
    ],
)
def test_cpu(cpu: dict[str, Any], v2: list[tuple[str, str]], v1: list[tuple[str, str]]) -> None:
    assert files(2, cpu=cpu) == v2
    assert files(1, cpu=cpu) == v1


@pytest.mark.covers("linux.resources.pids.limit")
@pytest.mark.parametrize(("limit", "text"), [(7, "7"), (-1, "max"), (-9, "max"), (0, "1")])
def test_pids(limit: int, text: str) -> None:
    for version in (1, 2):
        assert files(version, pids={"limit": limit}) == [("pids.max", text)]
    assert files(2, pids={}) == []


@pytest.mark.covers(
    "linux.resources.blockIO.weight",
    "linux.resources.blockIO.leafWeight",
    "linux.resources.blockIO.weightDevice",
    "linux.resources.blockIO.throttleReadBpsDevice",
    "linux.resources.blockIO.throttleWriteBpsDevice",
    "linux.resources.blockIO.throttleReadIOPSDevice",
    "linux.resources.blockIO.throttleWriteIOPSDevice",
)
def test_block_io() -> None:
    device = {"major": 8, "minor": 16}
    block = {
        "weight": 100,
        "leafWeight": 10,
        "weightDevice": [{**device, "weight": 500, "leafWeight": 20}],
        "throttleReadBpsDevice": [{**device, "rate": 1000}],
        "throttleWriteBpsDevice": [{**device, "rate": 0}],
        "throttleReadIOPSDevice": [{**device, "rate": 3}],
        "throttleWriteIOPSDevice": [{**device, "rate": 4}],
    }
    made = compile_limits({"blockIO": block}, 2)
    assert [limit.writes for limit in made.limits] == [
        (("io.bfq.weight", "default 100"), ("io.weight", "default 910")),
        (("io.bfq.weight", "8:16 500"), ("io.weight", "8:16 4950")),
        (("io.max", "8:16 rbps=1000"),),
        (("io.max", "8:16 wbps=max"),),
        (("io.max", "8:16 riops=3"),),
        (("io.max", "8:16 wiops=4"),),
    ]
    assert [field for field, _ in made.notes] == ["linux.resources.blockIO.leafWeight"]
    assert [limit.writes[0] for limit in compile_limits({"blockIO": block}, 1).limits] == [
        ("blkio.weight", "100"),
        ("blkio.leaf_weight", "10"),
        ("blkio.weight_device", "8:16 500"),
        ("blkio.leaf_weight_device", "8:16 20"),
        ("blkio.throttle.read_bps_device", "8:16 1000"),
        ("blkio.throttle.write_bps_device", "8:16 0"),
        ("blkio.throttle.read_iops_device", "8:16 3"),
        ("blkio.throttle.write_iops_device", "8:16 4"),
    ]


@pytest.mark.covers(
    "linux.resources.hugepageLimits",
    "linux.resources.rdma",
    "linux.resources.network",
    "linux.resources.unified",
)
def test_the_others() -> None:
    resources: dict[str, Any] = {
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
        "rdma": {"mlx5_0": {"hcaHandles": 3, "hcaObjects": 0}},
        "network": {"classID": 0x100001, "priorities": [{"name": "eth0", "priority": 5}]},
    }
    assert files(2, **resources) == [
        ("hugetlb.2MB.max", "4194304"),
        ("hugetlb.2MB.rsvd.max", "4194304"),
        ("rdma.max", "mlx5_0 hca_handle=3 hca_object=0"),
    ]
    assert files(1, **resources)[-2:] == [("net_cls.classid", "1048577"), ("net_prio.ifpriomap", "eth0 5")]
    assert files(2, unified={"memory.high": "5", "io.max": "8:0 rbps=1\n8:16 rbps=2"}) == [
        ("memory.high", "5"),
        ("io.max", "8:0 rbps=1"),
        ("io.max", "8:16 rbps=2"),
    ]
    assert path_of(1, unified={"memory.high": "5"}) == 'linux.resources.unified["memory.high"]'


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"memory": {"limit": -2}}, "memory.limit"),
    ({"memory": {"swap": 5}}, "memory.swap"),
    ({"memory": {"limit": 10, "swap": 5}}, "memory.swap"),
    ({"memory": {"limit": -1, "swap": 5}}, "memory.swap"),
    ({"memory": {"swappiness": 201}}, "memory.swappiness"),
    ({"cpu": {"period": 999}}, "cpu.period"),
    ({"cpu": {"period": 1000001}}, "cpu.period"),
    ({"cpu": {"quota": 999}}, "cpu.quota"),
    ({"cpu": {"quota": 1 << 44}}, "cpu.quota"),
    ({"cpu": {"quota": (1 << 63) - 1}}, "cpu.quota"),
    ({"cpu": {"quota": 1000, "burst": 1001}}, "cpu.burst"),
    ({"cpu": {"cpus": "0-"}}, "cpu.cpus"),
    ({"cpu": {"mems": "a"}}, "cpu.mems"),
    ({"blockIO": {"weight": 9}}, "blockIO.weight"),
    (
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 1001}]}},
        "blockIO.weightDevice[0].weight",
    ),
    (
        {"blockIO": {"throttleReadBpsDevice": [{"major": -1, "minor": 0, "rate": 1}]}},
        "blockIO.throttleReadBpsDevice[0].major",
    ),
    ({"hugepageLimits": [{"pageSize": "2M", "limit": 1}]}, "hugepageLimits[0].pageSize"),
    ({"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}, "hugepageLimits[0].pageSize"),
    ({"hugepageLimits": [{"pageSize": "0MB", "limit": 1}]}, "hugepageLimits[0].pageSize"),
    ({"rdma": {"a b": {}}}, 'rdma["a b"]'),
    ({"network": {"priorities": [{"name": "e\nth", "priority": 1}]}}, "network.priorities"),
    ({"unified": {"../x.max": "1"}}, 'unified["../x.max"]'),
    ({"unified": {"memory/max": "1"}}, 'unified["memory/max"]'),
    ({"unified": {"memory": "1"}}, 'unified["memory"]'),
    ({"unified": {"memory..max": "1"}}, 'unified["memory..max"]'),
    ({"unified": {"cgroup.procs": "1"}}, 'unified["cgroup.procs"]'),
    ({"unified": {"cgroup.kill": "1"}}, 'unified["cgroup.kill"]'),
]


@pytest.mark.parametrize(("resources", "where"), WRONG, ids=lambda value: str(value)[:50])
def test_what_no_kernel_takes_is_an_error_with_its_path(resources: dict[str, Any], where: str) -> None:
    assert path_of(2, **resources) == f"linux.resources.{where}"
    assert path_of(1, **resources) == f"linux.resources.{where}"


def test_the_path_is_that_of_the_document_it_came_from() -> None:
    with pytest.raises(SpecError) as caught:
        compile_limits({"cpu": {"cpus": "x"}}, 2, "resources")
    assert caught.value.path == "resources.cpu.cpus"


@pytest.mark.parametrize(
    ("text", "sound"),
    [("", True), ("0", True), ("0-3,5,7-9", True), (",", False), ("3-1", False), ("1-", False), ("-1", False),
     ("0 1", False), ("0\n", False), ("+1", False), ("1_0", False), ("٣", False), ("9" * 30, False)],
)  # fmt: skip
def test_lists_of_cpus(text: str, sound: bool) -> None:
    assert is_number_list(text) is sound


@given(st.text(max_size=12))
def test_a_name_in_unified_never_leaves_its_directory(key: str) -> None:
    try:
        made = compile_limits({"unified": {key: "1"}}, 2)
    except SpecError:
        return
    assert "/" not in key and key not in (".", "..") and made.limits[0].writes[0][0] == key
