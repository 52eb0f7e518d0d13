"""Statistics out of files that stand for the kernel's, sound and hostile, in the shape that others print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lab.resctrl import FakeResctrl

from rootless_rt.cgroups import load, oom, resctrl_stats, stats
from rootless_rt.cgroups.none import NoCgroup
from rootless_rt.cgroups.v1 import V1
from rootless_rt.cgroups.v2 import V2
from rootless_rt.spec.jsonio import dumps

MOST = (1 << 64) - 1
JUNK = [None, b"", b"\n\n", b"\xff\xfe\0", b"a", b"a b c d", b"x " + b"9" * 400, b"x -5", b"x 1e9", b"x 0x5",
        b"-", b"8:0", b"8:0 Read", b":: :", b"8:0 Read -1", b"8 Read 5", b"a:b Read 5", b"some",
        b"some avg10",
        b"some avg10=nan total=x", b"\xd9\xa5 \xd9\xa5", b"18446744073709551616",
        b"1-0,x,-,3-,99999999-999999999",
        b"8:0 rbytes rbytes= =5 rbytes=-1"]  # fmt: skip

V2_FILES = {
    "cpu.stat": "usage_usec 12\nuser_usec 5\nsystem_usec 7\nx y\n"
    "nr_periods 3\nnr_throttled 2\nthrottled_usec 9\n",
    "cpu.pressure": "some avg10=0.50 avg60=0.00 avg300=1.25 total=77\n",
    "cpuset.cpus.effective": "0-2,5\n",
    "cpuset.mems.effective": "0\n",
    "memory.stat": "file 4096\nanon 8192\nkernel 5\nsock 6\n",
    "memory.current": "20000\n",
    "memory.max": "max\n",
    "memory.peak": "30000\n",
    "memory.events": "low 0\nmax 4\noom 2\noom_kill 1\n",
    "memory.swap.current": "100\n",
    "memory.swap.max": "200\n",
    "memory.pressure": "some avg10=1.00 avg60=0.00 avg300=0.00 total=1\n"
    "full avg10=2.00 avg60=0.00 avg300=0.00 total=2\n",
    "pids.current": "4\n",
    "pids.max": "max\n",
    "io.stat": "8:0 rbytes=1 wbytes=0 rios=3 wios=4 dbytes=5 dios=6\n8:16 \n",
    "hugetlb.2MB.current": "2097152\n",
    "hugetlb.2MB.events": "max 3\n",
    "hugetlb.2MB.rsvd.current": "0\n",
}  # fmt: skip
NONE = {"avg10": 0, "avg60": 0, "avg300": 0, "total": 0}
V2_STATS = {
    "cpu": {
        "usage": {"total": 12000, "kernel": 7000, "user": 5000},
        "throttling": {"periods": 3, "throttledPeriods": 2, "throttledTime": 9000},
        "psi": {"some": {"avg10": 0.5, "avg60": 0, "avg300": 1.25, "total": 77}, "full": NONE},
    },
    "cpuset": {
        "cpus": [0, 1, 2, 5],
        "cpu_exclusive": 0,
        "mems": [0],
        "mem_hardwall": 0,
        "mem_exclusive": 0,
        "memory_migrate": 0,
        "memory_spread_page": 0,
        "memory_spread_slab": 0,
        "memory_pressure": 0,
        "sched_load_balance": 0,
        "sched_relax_domain_level": 0,
    },
    "memory": {
        "cache": 4096,
        "usage": {"limit": MOST, "usage": 20000, "max": 30000, "failcnt": 4},
        "swap": {"limit": MOST, "usage": 20100, "failcnt": 0},
        "kernel": {"limit": 0, "usage": 5, "failcnt": 0},
        "kernelTCP": {"limit": 0, "usage": 6, "failcnt": 0},
        "raw": {"anon": 8192, "file": 4096, "kernel": 5, "sock": 6},
        "psi": {"some": {**NONE, "avg10": 1, "total": 1}, "full": {**NONE, "avg10": 2, "total": 2}},
    },
    "pids": {"current": 4},
    "blkio": {
        "ioServiceBytesRecursive": [
            {"major": 8, "op": "Read", "value": 1},
            {"major": 8, "op": "Write"},
        ],
        "ioServicedRecursive": [
            {"major": 8, "op": "Read", "value": 3},
            {"major": 8, "op": "Write", "value": 4},
        ],
    },
    "hugetlb": {"2MB": {"usage": 2097152, "failcnt": 3}},
    "intel_rdt": {},
    "network_interfaces": None,
}


def cgroup(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (folder / name).write_text(text)
    return str(folder)


def test_a_v2_cgroup_is_told_in_the_shape_of_runc(tmp_path: Path) -> None:
    found = stats.collect(V2(cgroup(tmp_path, V2_FILES)))
    assert found == V2_STATS
    assert list(found) == list(V2_STATS)


def test_an_empty_cgroup_has_the_same_parts(tmp_path: Path) -> None:
    for manager in (V2(str(tmp_path)), V1({"memory": str(tmp_path)}), V1({}), V2(str(tmp_path / "gone"))):
        found = stats.collect(manager)
        assert list(found) == list(V2_STATS)
        assert found["cpu"]["usage"] == {"kernel": 0, "user": 0}
        assert found["memory"]["usage"] == {"limit": 0, "failcnt": 0}
        dumps(found)


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_no_content_of_a_file_breaks_anything(junk: bytes | None, tmp_path: Path) -> None:
    names = {*V2_FILES, "cpuacct.usage_all", "cpuacct.usage_percpu", "cpuacct.usage", "cpuacct.stat",
             "cpuset.cpus", "cpuset.mems", "memory.limit_in_bytes", "memory.memsw.usage_in_bytes",
             "blkio.throttle.io_serviced_recursive", "hugetlb.2MB.usage_in_bytes", "memory.oom_control",
             "cgroup.procs"}  # fmt: skip
    for name in names:
        if junk is not None:
            (tmp_path / name).write_bytes(junk)
    every = dict.fromkeys(("cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb"), str(tmp_path))
    for manager in (V2(str(tmp_path)), V1(every)):
        dumps(stats.collect(manager))
        assert oom.explanation(manager) is None
    stats.pressure(junk), stats.numbers(junk), stats.block_entries(junk), stats.io_stat(junk)


def test_numbers_are_those_of_the_kernel_alone() -> None:
    assert stats.single(b"max\n") == MOST
    assert [stats.single(text) for text in (b"-1", b"-2", b"1_0", b" 5 ", b"", None)] == [-1, 0, 0, 5, 0, 0]
    assert stats.numbers(b"0,2-3,7\n") == [0, 2, 3, 7]
    assert stats.numbers(b"0-99999999\n") == []


def test_totals_over_all_disks_are_left_out() -> None:
    data = b"8:0 Read 5\n8:0 Total 5\n8:16 7\nTotal 12\n"
    assert stats.block_entries(data) == [
        {"major": 8, "op": "Read", "value": 5},
        {"major": 8, "op": "Total", "value": 5},
        {"major": 8, "minor": 16, "value": 7},
    ]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, None),
        ({"memory.events": "oom 3\noom_kill 0\n", "memory.max": "5\n"}, None),
        (
            {"memory.events": "oom 1\noom_kill 1\n", "memory.max": "5\n"},
            "the container ran out of memory (memory.max=5)",
        ),
        (
            {"memory.events": "oom 0\noom_kill 1\n", "memory.max": "max\n"},
            "a cgroup above it, or on the host",
        ),
        (
            {
                "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
                "memory.limit_in_bytes": "1000000\n",
                "memory.max_usage_in_bytes": "999000\n",
            },
            "the container ran out of memory (memory.limit_in_bytes=1000000)",
        ),
        (
            {
                "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
                "memory.limit_in_bytes": "9223372036854771712\n",
                "memory.max_usage_in_bytes": "999000\n",
            },
            "a cgroup above it, or on the host",
        ),
    ],
)
def test_why_a_container_was_killed(files: dict[str, str], said: str | None, tmp_path: Path) -> None:
    found = oom.explanation(V2(cgroup(tmp_path, files)))
    assert found is None if said is None else found is not None and said in found


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (
            3,
            "oom_kill 4\n",
            "the container most likely ran out of memory: the kernel has killed for that in a.slice",
        ),
        (3, "oom_kill 3\n", None),
        (0, "oom_kill 1\n", "most likely"),
        (None, "oom_kill 4\n", None),
        ("3", "oom_kill 4\n", None),
        (3, None, None),
    ],
)
def test_of_a_scope_that_has_gone_the_slice_tells(
    before: object, now: str | None, said: str | None, tmp_path: Path
) -> None:
    inner = V2(str(tmp_path / "rt-c.scope")).to_state()
    state = {"kind": "systemd", "bus": "user", "unit": "rt-c.scope", "slice": "a.slice", "inner": inner}
    scope = load({**state, "killedBefore": before})
    if now is not None:
        (tmp_path / "memory.events").write_text(now)
    found = oom.explanation(scope)
    assert found is None if said is None else found is not None and said in found


def test_without_a_cgroup_nobody_knows_of_memory(tmp_path: Path) -> None:
    assert oom.explanation(NoCgroup("none")) is None
    assert oom.watch(NoCgroup("none")) is None
    assert oom.watch(V2(str(tmp_path))) is None


def test_new_kills_are_counted_from_the_beginning_of_the_watch(tmp_path: Path) -> None:
    manager = V2(cgroup(tmp_path, {"memory.events": "oom_kill 3\n"}))
    watched = oom.watch(manager)
    assert watched is not None
    found = []
    for text in ("oom_kill 3\n", "oom_kill 5\n", "oom_kill 5\n", "junk\n", "oom_kill 6\n"):
        (tmp_path / "memory.events").write_text(text)
        found.append(watched.fresh())
    (tmp_path / "memory.events").write_text("oom_kill 7\n")
    assert (found, watched.last()) == ([0, 2, 0, 0, 1], 1)
    watched.close()


def test_a_group_of_resctrl_is_told_in_the_shape_of_runc(tmp_path: Path) -> None:
    fake = FakeResctrl(tmp_path)
    box = fake.group("box", "    L3:0=f;1=f\n    MB:0=50;1=50\n")
    for name, text in {"cbm_mask": "fff", "min_cbm_bits": "1", "num_closids": "16"}.items():
        (fake.top / "info/L3").mkdir(exist_ok=True)
        (fake.top / "info/L3" / name).write_text(text + "\n")
    for domain, amount in (("mon_L3_00", "4096"), ("mon_L3_01", "Unavailable")):
        (box / "mon_data" / domain).mkdir(parents=True)
        (box / "mon_data" / domain / "llc_occupancy").write_text(amount + "\n")
    state: dict[str, Any] = {"group": "box", "made": True, "monitor": False}
    assert resctrl_stats.collect(state, "box", str(tmp_path)) == {
        "l3_cache_info": {"cbm_mask": "fff", "min_cbm_bits": 1, "num_closids": 16},
        "l3_cache_schema_root": "L3:0=fff;1=fff",
        "l3_cache_schema": "L3:0=f;1=f",
        "mem_bw_schema_root": "MB:0=100;1=100",
        "mem_bw_schema": "MB:0=50;1=50",
        "cmt_stats": [{"llc_occupancy": 4096}, {}],
    }
    assert resctrl_stats.collect(state, "box", str(tmp_path / "nowhere")) == {}
