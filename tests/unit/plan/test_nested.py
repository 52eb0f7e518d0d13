"""A process whose ids are not mapped, where one uid and one gid are: it gets a user namespace of its own."""

from __future__ import annotations

import pytest
from lab.plans import (
    add_namespace,
    compiled,
    degraded,
    map_range,
    names,
    one,
    root_config,
    root_facts,
    user_config,
)

from rootless_rt.errors import RtError, SpecError


def as_user(config, uid, gid, capabilities=()):
    config["process"]["user"] = {"uid": uid, "gid": gid}
    config["process"]["capabilities"] = {"permitted": list(capabilities)}
    return config


@pytest.mark.parametrize(("uid", "gid"), [(5, 0), (0, 5), (1000, 1000), (4294967294, 1)])
def test_its_numbers_become_the_mapped_ones(uid, gid):
    made = compiled(as_user(user_config(), uid, gid))
    assert one(made, "nest") == {"uid": uid, "outer_uid": 0, "gid": gid, "outer_gid": 0}
    assert one(made, "ids")["uid"] == uid and one(made, "ids")["set_groups"] == 0
    found = names(made)
    assert found.index("become") < found.index("chdir") < found.index("nest") < found.index("close_others")
    assert found[found.index("nest") - 1] == "dumpable" and made.degradations == []


def test_mapped_numbers_need_none():
    assert "nest" not in names(compiled(as_user(user_config(), 0, 0)))


def test_capabilities_that_no_longer_reach_far_are_announced():
    config = as_user(user_config(), 5, 5, ["CAP_KILL"])
    assert "further user namespace" in degraded(compiled(config))["process.capabilities"]
    with pytest.raises(RtError, match=r"process\.capabilities"):
        compiled(config, strict=True)


def test_with_a_range_of_ids_a_wrong_number_is_a_mistake():
    with pytest.raises(SpecError, match="unmapped"):
        compiled(as_user(map_range(user_config()), 70000, 0))


def test_it_is_not_done_among_the_processes_of_others():
    config = add_namespace(as_user(user_config(), 5, 5), "pid", "/proc/7/ns/pid")
    with pytest.raises(SpecError, match="unmapped"):
        compiled(config)


def test_beside_joined_namespaces_it_is_hidden_again():
    config = add_namespace(as_user(user_config(), 5, 5), "network", "/proc/7/ns/net")
    made = compiled(config)
    found = names(made)
    after = made.ops[found.index("nest") + 1]
    assert (after.name, after.args) == ("dumpable", (0,))


def test_root_without_a_user_namespace_is_any_user():
    assert "nest" not in names(compiled(as_user(root_config(), 5, 5), root_facts()))
