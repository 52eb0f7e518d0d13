"""Which state records are believed, and what of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rootless_rt.container import record
from rootless_rt.errors import RtError

State = dict[str, Any]


def sound() -> State:
    return {
        "version": 1,
        "id": "c",
        "ociVersion": "1.2.0",
        "phase": "created",
        "pid": 42,
        "startTime": "77",
        "bootId": "b",
        "bundle": "/b",
        "rootfs": "/b/rootfs",
        "created": "2026-01-01T00:00:00Z",
        "annotations": {},
        "ownPid": True,
        "maker": {"pid": 41, "startTime": "76", "bootId": "b"},
        "cgroup": {"kind": "none", "reason": "none"},
        "degraded": [],
        "startOps": {"first": 3, "ops": [["wait_start", ""], ["exec", "process.args[0]"]]},
    }


def test_a_sound_record_has_no_wrong_field() -> None:
    assert record.wrong_field(sound()) is None
    without = sound()
    del without["startOps"]
    assert record.wrong_field(without) is None


@pytest.mark.parametrize("name", [name for name in sound() if name not in ("version", "startOps")])
@pytest.mark.parametrize("value", [None, 1.5, b"", ("x",)], ids=repr)
def test_each_field_has_one_type_and_must_be_there(name: str, value: object) -> None:
    state = sound()
    state[name] = value
    assert record.wrong_field(state) == name
    del state[name]
    assert record.wrong_field(state) == name


@pytest.mark.parametrize("pid", ["42", True, -1, 1 << 31, 1 << 70, 4.0, None])
def test_a_pid_is_a_number_that_a_process_can_have(pid: object) -> None:
    for change in ({"pid": pid}, {"maker": {"pid": pid, "startTime": "1", "bootId": "b"}}):
        assert record.wrong_field({**sound(), **change}) in ("pid", "maker")


@pytest.mark.parametrize(
    "ops",
    [
        [],
        {"first": -1, "ops": []},
        {"first": 1 << 40, "ops": []},
        {"first": True, "ops": []},
        {"first": 1, "ops": [["exec"]]},
        {"first": 1, "ops": [["exec", 1]]},
        {"first": 1, "ops": "xy"},
    ],
)
def test_the_ops_of_start_are_few_and_named(ops: object) -> None:
    assert record.wrong_field({**sound(), "startOps": ops}) == "startOps"


RDT = {"group": "c", "made": True, "monitor": False}
WRONG_RDT: list[object] = [
    None,
    [],
    "c",
    {},
    {**RDT, "group": 1},
    {**RDT, "group": ""},
    {**RDT, "group": "."},
    {**RDT, "group": ".."},
    {**RDT, "group": "../cgroup/c"},
    {**RDT, "group": "/etc"},
    {**RDT, "group": "a/b"},
    {**RDT, "group": "a\nb"},
    {**RDT, "group": "mon_groups"},
    {**RDT, "group": "g" * 256},
    {**RDT, "group": "/"},
    {**RDT, "made": 1},
    {**RDT, "monitor": "c"},
    {"group": "c", "made": True},
]


@pytest.mark.parametrize("rdt", WRONG_RDT, ids=lambda value: repr(value)[:50])
def test_a_group_of_resctrl_is_one_directory_of_its_own(rdt: object) -> None:
    assert record.wrong_field({**sound(), "rdt": rdt}) == "rdt"
    assert "rdt" not in record.salvage({**sound(), "rdt": rdt}, "c"), "nothing is removed by such a record"


def test_a_sound_group_of_resctrl_is_kept_in_a_salvaged_record() -> None:
    for rdt in (RDT, {"group": "/", "made": False, "monitor": True}):
        assert record.wrong_field({**sound(), "rdt": rdt}) is None
        assert record.salvage({**sound(), "rdt": rdt, "bundle": 7}, "c")["rdt"] == rdt


NETWORK = {"kind": "pasta", "pid": 42, "startTime": "77", "bootId": "b"}
WRONG_NETWORK: list[object] = [
    None, [], "x", {}, {**NETWORK, "kind": 1}, {**NETWORK, "pid": "42"}, {**NETWORK, "pid": -1},
    {**NETWORK, "pid": 1 << 31}, {**NETWORK, "pid": True}, {**NETWORK, "startTime": 77},
    {**NETWORK, "bootId": None},
]  # fmt: skip


@pytest.mark.parametrize("network", WRONG_NETWORK, ids=lambda value: repr(value)[:50])
def test_a_helper_of_the_network_is_a_process_that_can_be_known_again(network: object) -> None:
    assert record.wrong_field({**sound(), "network": network}) == "network"
    assert "network" not in record.salvage({**sound(), "network": network}, "c"), (
        "nobody is ended by such a record"
    )


def test_a_sound_helper_is_kept_in_a_salvaged_record() -> None:
    assert record.wrong_field({**sound(), "network": NETWORK}) is None
    assert record.salvage({**sound(), "network": NETWORK, "bundle": 7}, "c")["network"] == NETWORK


@pytest.mark.parametrize("state", [None, [], "x", 1, {}])
def test_what_can_be_salvaged_is_always_sound(state: object) -> None:
    saved = record.salvage(state, "c")
    assert record.wrong_field(saved) is None
    assert saved["pid"] == 0 and not record.has_cgroup(saved)


def test_a_sound_identity_is_salvaged_from_a_damaged_record() -> None:
    saved = record.salvage({**sound(), "cgroup": [], "bundle": 7, "id": "other"}, "c")
    assert (saved["id"], saved["pid"], saved["startTime"], saved["bootId"]) == ("c", 42, "77", "b")
    assert saved["ownPid"] is True


@pytest.mark.parametrize("name", ["pid", "startTime", "bootId"])
def test_an_identity_with_a_damaged_part_is_nobodys(name: str) -> None:
    assert record.salvage({**sound(), name: []}, "c")["pid"] == 0


def cgroup(path: str) -> State:
    return {**sound(), "cgroup": {"kind": "v2", "path": path, "reason": None}}


@pytest.mark.parametrize(
    "path", ["/", "/sys", "/sys/fs/cgroup", "/tmp", "/proc/self", "/nowhere/../tmp", "/x\0y"]
)
def test_a_directory_that_is_no_cgroup_or_holds_ours_is_refused(path: str) -> None:
    with pytest.raises(RtError, match="no cgroup of a container"):
        record.manager(cgroup(path))
    assert not record.has_cgroup(record.salvage(cgroup(path), "c"))


def test_a_link_to_a_cgroup_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/sys/fs/cgroup")
    with pytest.raises(RtError, match="no cgroup of a container"):
        record.manager(cgroup(f"{tmp_path}/link"))


def test_a_cgroup_that_is_gone_is_none_to_worry_about() -> None:
    assert record.manager(cgroup("/sys/fs/cgroup/nowhere/c")).paths == ["/sys/fs/cgroup/nowhere/c"]


@pytest.mark.parametrize(
    "kind", [{"kind": "v3"}, {"kind": 1}, {"kind": "v2"}, {"kind": "v1", "paths": ["/"]}]
)
def test_an_unknown_cgroup_record_is_refused_and_not_salvaged(kind: State) -> None:
    with pytest.raises(RtError):
        record.manager({**sound(), "cgroup": kind})
    assert not record.has_cgroup(record.salvage({**sound(), "cgroup": kind}, "c"))


@pytest.mark.parametrize(
    "resources",
    [None, [], "", 5, {"memory": 5}, {"memory": {"limit": "5"}}, {"cpu": {"idle": 2}},
     {"pids": {"limit": 1.5}}, {"hugepageLimits": [{"limit": 1}]}, {"unified": {"a": 1}},
     {"memory": {"limit": 1 << 64}}],
)  # fmt: skip
def test_limits_that_no_update_wrote_are_not_believed(resources: object) -> None:
    assert record.wrong_field({**sound(), "resources": resources}) == "resources"
    assert "resources" not in record.salvage({**sound(), "resources": resources}, "c")


def test_limits_that_an_update_wrote_are_sound() -> None:
    assert record.wrong_field({**sound(), "resources": {"memory": {"limit": -1}}}) is None
