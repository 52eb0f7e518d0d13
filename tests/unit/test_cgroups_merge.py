"""New resources put into those a container has."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from rootless_rt.cgroups.merge import asked_of, before, completed, merged

Resources = dict[str, Any]

# What engines send: whole objects, in which zeros mean "as it is".
ZEROS: Resources = {
    "devices": [{"allow": False}],
    "memory": {"limit": 0, "reservation": 0, "swap": 0, "kernel": 0, "kernelTCP": 0},
    "cpu": {"shares": 0, "quota": 0, "period": 0,
            "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": "", "mems": ""},
    "blockIO": {"weight": 0, "leafWeight": 0, "weightDevice": [], "throttleReadBpsDevice": []},
    "pids": {},
    "hugepageLimits": [],
    "network": {"classID": 0, "priorities": []},
    "rdma": {},
    "unified": {},
    "unknown": {"a": 1},
}  # fmt: skip


def test_zeros_and_device_rules_ask_for_nothing() -> None:
    assert asked_of(ZEROS) == {}


def test_zeros_that_mean_something_are_kept() -> None:
    asked = {
        "memory": {"swappiness": 0, "disableOOMKiller": False, "checkBeforeUpdate": False},
        "cpu": {"idle": 0, "burst": 0},
        "pids": {"limit": 0},
    }
    assert asked_of(asked) == asked


@pytest.mark.parametrize(
    ("current", "asked", "result"),
    [
        ({}, {"memory": {"limit": 5}}, {"memory": {"limit": 5}}),
        (
            {"memory": {"limit": 5, "swap": 9}, "devices": []},
            {"memory": {"limit": 6}},
            {"memory": {"limit": 6, "swap": 9}},
        ),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 2}]},
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 3}]},
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 3}, {"pageSize": "1GB", "limit": 2}]},
        ),
        (
            {"blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]}},
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 16, "rate": 2}]}},
            {
                "blockIO": {
                    "weight": 10,
                    "throttleReadBpsDevice": [
                        {"major": 8, "minor": 0, "rate": 1},
                        {"major": 8, "minor": 16, "rate": 2},
                    ],
                }
            },
        ),
        (
            {"network": {"priorities": [{"name": "eth0", "priority": 1}]}},
            {"network": {"classID": 3, "priorities": [{"name": "eth0", "priority": 2}]}},
            {"network": {"priorities": [{"name": "eth0", "priority": 2}], "classID": 3}},
        ),
        (
            {"unified": {"memory.high": "1"}, "rdma": {"a": {"hcaHandles": 1}}},
            {"unified": {"memory.low": "2"}, "rdma": {"a": {"hcaObjects": 2}}},
            {"unified": {"memory.high": "1", "memory.low": "2"}, "rdma": {"a": {"hcaObjects": 2}}},
        ),
    ],
    ids=str,
)
def test_new_values_take_the_place_of_old_ones(
    current: Resources, asked: Resources, result: Resources
) -> None:
    before = copy.deepcopy((current, asked))
    assert merged(current, asked) == result
    assert (current, asked) == before


@pytest.mark.parametrize(
    ("current", "asked", "result"),
    [
        # memory: no limit means none of swap either; each limit goes with the other
        ({}, {"memory": {"limit": -1}}, {"memory": {"limit": -1, "swap": -1}}),
        ({}, {"memory": {"limit": -1, "swap": 5}}, {"memory": {"limit": -1, "swap": 5}}),
        ({"memory": {"swap": 9}}, {"memory": {"limit": 5}}, {"memory": {"limit": 5, "swap": 9}}),
        ({"memory": {"swap": -1}}, {"memory": {"limit": 5}}, {"memory": {"limit": 5}}),
        ({"memory": {"limit": 5}}, {"memory": {"swap": 9}}, {"memory": {"limit": 5, "swap": 9}}),
        ({"memory": {"limit": 5}}, {"memory": {"reservation": 2}}, {"memory": {"reservation": 2}}),
        # quota, period and burst are one value
        (
            {"cpu": {"quota": 50000, "period": 100000, "burst": 10, "shares": 5}},
            {"cpu": {"period": 200000}},
            {"cpu": {"period": 200000, "quota": 50000, "burst": 10}},
        ),
        ({"cpu": {"period": 200000}}, {"cpu": {"quota": -1}}, {"cpu": {"quota": -1, "period": 200000}}),
        ({"cpu": {"quota": 5000}}, {"cpu": {"cpus": "0"}}, {"cpu": {"cpus": "0"}}),
        # shares or idle
        ({"cpu": {"shares": 5, "idle": 1}}, {"cpu": {"idle": 0}}, {"cpu": {"idle": 0, "shares": 5}}),
        ({"cpu": {"shares": 5}}, {"cpu": {"idle": 1}}, {"cpu": {"idle": 1}}),
        ({"cpu": {"idle": 1}}, {"cpu": {"shares": 5}}, {"cpu": {"shares": 5, "idle": 0}}),
        ({"cpu": {"idle": 1}}, {"cpu": {"idle": 0}}, {"cpu": {"idle": 0, "shares": 1024}}),
        ({}, {"cpu": {"idle": 0}}, {"cpu": {"idle": 0}}),
        ({"cpu": {"idle": 0}}, {"cpu": {"shares": 5}}, {"cpu": {"shares": 5}}),
    ],
    ids=str,
)
def test_what_the_kernel_wants_together_is_asked_together(
    current: Resources, asked: Resources, result: Resources
) -> None:
    before = copy.deepcopy((current, asked))
    assert completed(current, asked) == result
    assert (current, asked) == before


def test_the_way_back_takes_new_limits_off() -> None:
    current = {"memory": {"limit": 5, "swap": 0}, "cpu": {"cpus": "0"}}
    asked = {"memory": {"limit": 6, "swap": 7}, "cpu": {"quota": 8, "cpus": "1"}, "pids": {"limit": 9}}
    assert before(current, asked) == {
        "memory": {"limit": 5, "swap": -1},
        "cpu": {"quota": -1, "cpus": "0"},
        "pids": {"limit": -1},
    }
    assert before(current, {}) == current
