"""Files that others write: whatever is in them, they are read to an end, or refused in one line.

state.json, mountinfo, /proc/PID/cgroup, annotations, resources and the newer fields of config.json; subuid,
passwd and group files have their own tests (tests/unit/idmap). RT_FUZZ says how many of each.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lab.plans import compiled, decode, filter_of, spec_of, user_config, user_facts
from lab.spoil import ANYTHING, spoiled

from rootless_rt.cgroups import devices, host, limits, properties, resctrl
from rootless_rt.container import record
from rootless_rt.container.store import Store
from rootless_rt.errors import RtError
from rootless_rt.plan.build import plan
from rootless_rt.plan.model import Policy
from rootless_rt.plan.ops import encode

EXAMPLES = int(os.environ.get("RT_FUZZ", "100"))
SLOW = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def one_line(error: RtError) -> None:
    assert error.message and "\n" not in error.message and "Traceback" not in error.message


STATE: dict[str, Any] = {
    "id": "c",
    "ociVersion": "1.2.0",
    "phase": "created",
    "pid": 4711,
    "startTime": "1",
    "bootId": "b",
    "bundle": "/b",
    "rootfs": "/b/rootfs",
    "created": "2026",
    "annotations": {"a": "b"},
    "ownPid": True,
    "maker": {"pid": 1, "startTime": "1", "bootId": "b"},
    "degraded": [],
    "cgroup": {"kind": "v2", "path": "/sys/fs/cgroup/x", "paths": {"": "/sys/fs/cgroup/x"}, "reason": None},
    "startOps": {"first": 3, "ops": [["exec", "label"]]},
    "rdt": {"group": "x", "made": True, "monitor": False},
}


@SLOW
@given(st.data())
def test_a_spoiled_state_is_refused_and_what_is_salvaged_is_sound(data: st.DataObject) -> None:
    state = spoiled(data, STATE) if data.draw(st.booleans()) else data.draw(ANYTHING)
    record.wrong_field(state)
    saved = record.salvage(state, "c")
    assert record.wrong_field(saved) is None and saved["id"] == "c"
    try:
        record.manager(saved)
    except RtError as error:
        raise AssertionError("what is salvaged can be used") from error


@SLOW
@given(st.binary(max_size=300) | st.builds(lambda value: json.dumps(value).encode(), ANYTHING))
@example(json.dumps(STATE).encode()[:-1])
@example(b"[" * 100_000)
@example(b"\xff\xfe{}")
@example(b'{"pid": 1' + b"0" * 5000 + b"}")
def test_any_bytes_in_state_json_are_an_error_of_one_line(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "c").mkdir(mode=0o700)
        Path(folder).chmod(0o700)
        (Path(folder) / "c/state.json").write_bytes(data)
        handle = Store(folder, given=True).open("c")
        try:
            with pytest.raises(RtError) as told:
                handle.read_state()
            one_line(told.value)
            assert record.wrong_field(handle.salvage_state()) is None
        finally:
            handle.close()


LINE = b"36 35 98:0 / /sys/fs/cgroup rw,noatime shared:1 - cgroup2 cgroup2 rw\n"
WORDS = st.sampled_from(
    [b" ", b"\n", b" - ", b"cgroup2", b"cgroup", b"resctrl", b"/", b"rw,cpu", b"\\040", b"\\9", b":"]
)
MOUNTINFO = st.lists(WORDS | st.binary(max_size=6) | st.just(LINE), max_size=30).map(b"".join)


@pytest.mark.parametrize(
    "point", ["/sys/fs/cgroup\\000", "/sys/fs/cgroup\0", "/sys\\9", "/sys\\777", "/sys\\04"]
)
def test_odd_mount_points_are_no_names_of_files(tmp_path: Path, point: str) -> None:
    proc = tmp_path / "proc/self"
    proc.mkdir(parents=True)
    (proc / "mountinfo").write_text(f"36 35 98:0 / {point} rw - cgroup2 cgroup2 rw\n")
    (proc / "cgroup").write_text("0::/a\n")
    assert "\0" not in (host.view(str(tmp_path)).own_dir() or "")


@SLOW
@given(MOUNTINFO, MOUNTINFO)
def test_any_mountinfo_and_cgroup_file_is_read_to_an_end(mounts: bytes, own: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        proc = Path(folder) / "proc/self"
        proc.mkdir(parents=True)
        (proc / "mountinfo").write_bytes(mounts)
        (proc / "cgroup").write_bytes(own)
        view = host.view(folder)
        for controller in [*view.mounts, ""]:
            assert view.own_dir(controller) is None or "\0" not in (view.own_dir(controller) or "")
        assert host.own_of(own) is not None
        resctrl.mount_point(folder)


@SLOW
@given(
    st.text(max_size=12).map(lambda name: "org.systemd.property." + name)
    | st.sampled_from(["org.systemd.property.TimeoutStopUSec", "org.systemd.property.MemoryMaxSec"]),
    st.text(max_size=30) | st.sampled_from(["[[", "(1, 2)", "uint64 99999999999999999999", "'", "[" * 9999]),
)
def test_any_annotation_is_a_property_or_an_error_of_one_line(name: str, value: str) -> None:
    try:
        properties.from_annotations({name: value})
    except RtError as error:
        one_line(error)


RESOURCES: dict[str, Any] = {
    "memory": {
        "limit": 1 << 30,
        "reservation": 1 << 20,
        "swap": 1 << 31,
        "swappiness": 10,
        "disableOOMKiller": True,
    },
    "cpu": {"shares": 100, "quota": 1000, "period": 10000, "cpus": "0-1", "mems": "0", "idle": 1, "burst": 1},
    "pids": {"limit": 10},
    "blockIO": {
        "weight": 10,
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
        "weightDevice": [{"major": 8, "minor": 0, "weight": 10}],
    },
    "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
    "rdma": {"mlx5_0": {"hcaHandles": 1, "hcaObjects": 2}},
    "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 1}]},
    "unified": {"memory.high": "100"},
    "devices": [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1},
    ],
}
LINES = [{"containerID": 0, "hostID": 1000, "size": 1}]


NEWER = {
    *("scheduler", "ioPriority", "execCPUAffinity", "timeOffsets", "memoryPolicy", "netDevices", "intelRdt"),
    *("personality", "resources", "seccomp"),
}


def full() -> dict[str, Any]:
    """A config with all that came late: scheduling, memory, time, devices, caches, agents, maps of mounts."""
    config = user_config()
    config["process"].update(
        scheduler={"policy": "SCHED_DEADLINE", "runtime": 1000000, "deadline": 2000000, "period": 3000000},
        ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 5},
        execCPUAffinity={"initial": "0", "final": "0-1"},
        consoleSize={"height": 24, "width": 80},
    )
    config["linux"]["namespaces"].append({"type": "time"})
    config["linux"].update(
        timeOffsets={"monotonic": {"secs": 1, "nanosecs": 2}, "boottime": {"secs": -1}},
        memoryPolicy={"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        netDevices={"eth0": {"name": "net0"}, "eth1": {}},
        intelRdt={"closID": "x", "schemata": ["L3:0=f"], "enableMonitoring": True},
        personality={"domain": "LINUX32", "flags": []},
        resources=copy.deepcopy(RESOURCES),
        seccomp={
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": "/agent",
            "listenerMetadata": "x",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
        },
    )
    for options in (["bind", "idmap"], ["rbind", "ridmap=uids=0-1000-1;gids=0-1000-1"]):
        config["mounts"].append({"destination": "/v", "source": "/v", "type": "bind", "options": options})
    config["mounts"][-1].update(uidMappings=LINES, gidMappings=LINES)
    config["annotations"] = {"org.systemd.property.TimeoutStopUSec": "uint64 1"}
    return config


@SLOW
@given(st.data())
def test_a_config_with_every_new_field_spoiled_is_planned_or_an_error_of_one_line(
    data: st.DataObject,
) -> None:
    config = spoiled(data, full())
    facts = user_facts()
    facts.filter = filter_of(flags=8)
    try:
        made = plan(spec_of(config), facts, Policy("box", strict=data.draw(st.booleans())))
    except RtError as error:
        one_line(error)
        return
    assert decode(encode(made.ops)) == made.ops


def test_the_config_that_is_spoiled_is_mostly_sound() -> None:
    config = full()
    del config["mounts"][-2:], config["process"]["scheduler"]
    for name in ("netDevices", "intelRdt", "memoryPolicy"):
        del config["linux"][name]
    assert compiled(config).ops


@SLOW
@given(st.data())
def test_resources_spoiled_are_limits_or_an_error_of_one_line(data: st.DataObject) -> None:
    resources = spoiled(data, RESOURCES)
    config = user_config()
    config["linux"]["resources"] = resources
    try:
        checked = spec_of(config).data["linux"]["resources"]
        limits.check(checked)
        for version in (1, 2):
            limits.compile_limits(checked, version)
        devices.compile_rules(checked.get("devices", []))
        properties.limits_as_properties(checked, 252)
    except RtError as error:
        one_line(error)
