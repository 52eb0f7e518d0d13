"""Mounts with mapped ids in a plan: made by the runtime's own process, before all else."""

from __future__ import annotations

import pytest
from lab.plans import (
    add_namespace,
    compiled,
    every,
    map_range,
    names,
    one,
    root_config,
    root_facts,
    user_config,
)

from rootless_rt.errors import RtError, SpecError
from rootless_rt.plan.ops import NO_SLOT

MAP = [{"containerID": 0, "hostID": 1000, "size": 1}]
PRIVATE, SLAVE, RECURSIVE = 1 << 18, 1 << 19, 0x4000


def with_bind(config, *options, **fields):
    config["mounts"].append(
        {"destination": "/m", "type": "bind", "source": "/src", "options": list(options), **fields}
    )
    return config


def rooted(*options, **fields):
    return compiled(with_bind(root_config(), *options, **fields), root_facts())


def test_a_source_is_copied_and_mapped_before_anything_is_joined_or_made():
    config = add_namespace(root_config(), "network", "/proc/7/ns/net")
    made = compiled(with_bind(config, uidMappings=MAP, gidMappings=MAP), root_facts())
    found = names(made)
    assert found.index("idmap") < found.index("join") < found.index("clone")
    item = one(made, "idmap")
    assert (
        found[found.index("idmap") - 1] == "source"
        and one(made, "source", path="/src")["slot"] == item["slot"]
    )
    assert made.fds[item["userns"]] == ("userns", "0 1000 1\n;0 1000 1\n")
    assert item["slot"] in {bind["slot"] for bind in every(made, "mount_bind")}


@pytest.mark.parametrize(
    ("propagation", "flag"),
    [(None, SLAVE), ("private", PRIVATE), ("runbindable", PRIVATE), ("shared", 1 << 20)],
)
def test_the_copy_is_cut_off_from_the_host_s_mounts_as_all_others_are(propagation, flag):
    config = with_bind(root_config(), uidMappings=MAP, gidMappings=MAP)
    if propagation:
        config["linux"]["rootfsPropagation"] = propagation
    assert one(compiled(config, root_facts()), "idmap")["propagation"] == flag | RECURSIVE


@pytest.mark.parametrize(("word", "recursive"), [("idmap", 0), ("ridmap", 1)])
def test_the_word_alone_takes_the_container_s_own_map(word, recursive):
    config = with_bind(map_range(add_namespace(root_config(), "user")), "rbind", word)
    made = compiled(config, root_facts())
    assert one(made, "idmap")["recursive"] == recursive
    assert ("userns", "0 1000 1\n1 100000 65536\n;0 1000 1\n1 100000 65536\n") in made.fds


def test_mounts_of_one_map_share_the_user_namespace_that_holds_it():
    config = with_bind(root_config(), uidMappings=MAP, gidMappings=MAP)
    with_bind(config, "idmap=uids=0-1000-1;gids=0-1000-1")
    with_bind(config, "idmap=uids=0-1001-1;gids=0-1000-1")
    made = compiled(config, root_facts())
    assert len(every(made, "idmap")) == 3
    assert [kind for kind, _ in made.fds].count("userns") == 2


def test_a_joined_user_namespace_is_itself_the_map():
    config = with_bind(add_namespace(root_config(), "user", "/proc/7/ns/user"), "idmap")
    made = compiled(config, root_facts())
    assert made.fds[one(made, "idmap")["userns"]] == ("user", "/proc/7/ns/user")


def test_numbers_of_the_container_become_those_of_the_host():
    config = map_range(add_namespace(root_config(), "user"))
    made = compiled(with_bind(config, "idmap=uids=@5-33-2;gids=@5-0-1"), root_facts())
    assert ("userns", "5 100032 2\n;5 1000 1\n") in made.fds


def test_numbers_that_the_container_does_not_have_are_an_error():
    config = map_range(add_namespace(root_config(), "user"))
    with pytest.raises(SpecError, match="ids 65536 to 65537 are not one range") as caught:
        compiled(with_bind(config, "idmap=uids=@5-65536-2;gids=@5-0-1"), root_facts())
    assert caught.value.path.endswith(".uidMappings")


def test_without_a_map_to_take_it_is_an_error():
    with pytest.raises(SpecError, match="no map to take"):
        rooted("idmap")


@pytest.mark.parametrize("strict", [False, True])
def test_an_ordinary_user_is_told_why_it_cannot_be(strict):
    with pytest.raises(RtError, match="only root can map the ids of a mount"):
        compiled(with_bind(user_config(), "idmap"), strict=strict)


def test_other_mounts_are_taken_where_they_always_were():
    made = rooted("bind")
    assert "idmap" not in names(made) and one(made, "clone")["cgroup"] == NO_SLOT
    assert names(made).index("source") > names(made).index("clone")
