"""Time namespaces in a plan: made where their offsets can still be written."""

from __future__ import annotations

import pytest
from lab.plans import add_namespace, compiled, every, names, one, place, root_config, root_facts, user_config

from rootless_rt.plan.ops import SYNC_MAPS

NEWTIME = 0x80
OFFSETS = {"monotonic": {"secs": -3, "nanosecs": 7}, "boottime": {"secs": 5}}


def with_time(config, offsets=OFFSETS):
    add_namespace(config, "time")["linux"]["timeOffsets"] = offsets
    return config


@pytest.mark.parametrize("root", [True, False])
def test_it_is_made_by_the_container_s_own_process_once_its_ids_are_there(root):
    config = with_time(root_config() if root else user_config())
    made = compiled(config, root_facts() if root else None)
    assert not one(made, "clone")["flags"] & NEWTIME
    steps = [
        place(made, "sync", marker=SYNC_MAPS),
        place(made, "proc_file", path="self/timens_offsets"),
        place(made, "unshare", flags=NEWTIME),
        place(made, "proc_write", text="monotonic -3 7\nboottime 5 0\n"),
        place(made, "enter_own"),
    ]
    assert steps == sorted(steps)
    assert one(made, "enter_own") == {"name": "time_for_children", "flag": NEWTIME}
    if not root:
        assert steps[-1] < place(made, "become")


def test_without_offsets_there_is_nothing_to_write():
    made = compiled(with_time(user_config(), {}))
    assert "proc_write" not in names(made) and every(made, "unshare", flags=NEWTIME)


def test_in_a_joined_user_namespace_the_file_is_opened_before_and_the_clone_born_into_it():
    config = with_time(add_namespace(user_config(), "user", "/proc/7/ns/user"))
    for field in ("uidMappings", "gidMappings"):
        del config["linux"][field]
    made = compiled(config)
    found = names(made)
    assert found.index("proc_file") < found.index("dumpable") < found.index("join")
    assert found.index("join") < place(made, "unshare", flags=NEWTIME) < found.index("proc_write")
    assert found.index("proc_write") < found.index("clone") and "enter_own" not in found


def test_a_time_namespace_can_be_joined():
    made = compiled(add_namespace(root_config(), "time", "/proc/7/ns/time"), root_facts())
    assert one(made, "join") == {"slot": 0, "flag": NEWTIME, "kind": "time"}
