"""The config of `rt spec --hardened`, and its list of system calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lab.plans import compiled, every, names, one, root_facts, user_facts

from rootless_rt.host import seccomp_compile
from rootless_rt.spec.hardened import HOME, USER, hardened_spec
from rootless_rt.spec.hardened_calls import ALLOWED, LEFT_OUT, profile
from rootless_rt.spec.load import from_bytes

LINE = [{"containerID": USER, "hostID": 1000, "size": 1}]
RANGE = [{"containerID": 0, "hostID": 100000, "size": 65536}]
CALLS = [name for _, calls in ALLOWED for name in calls.split()]


def config(**linux: Any) -> dict[str, Any]:
    made = hardened_spec(LINE, LINE, devices=False)
    made["process"]["terminal"] = False
    made["linux"].update(linux)
    return made


@pytest.mark.parametrize("maps", [LINE, RANGE])
@pytest.mark.parametrize("devices", [False, True])
def test_it_is_a_config_without_a_note(maps, devices):
    made = hardened_spec(maps, maps, devices=devices)
    assert from_bytes(json.dumps(made).encode(), "/bundle").notes == ()
    assert ("devices" in made["linux"]["resources"]) == devices


def test_the_plan_leaves_no_privilege_and_no_place_to_write_but_its_own():
    made = compiled(config(), user_facts())
    assert one(made, "bounding")["keep"] == 0 and one(made, "ambient")["caps"] == 0
    assert one(made, "caps") == {"effective": 0, "permitted": 0, "inheritable": 0}
    assert {"no_new_privs", "landlock", "root_attrs"} <= set(names(made))
    ids = one(made, "ids")
    assert (ids["uid"], ids["gid"], ids["groups"], ids["umask"]) == (USER, USER, [], 0o077)
    writable = {row["dest"] for row in every(made, "mount_fs", fstype="tmpfs") if not row["attrs"] & 1}
    assert writable == {"/dev", "/dev/shm", "/tmp", "/var/tmp", "/run", HOME}
    assert {"path": "user/max_user_namespaces", "value": "0"} in every(made, "sysctl")


def test_it_is_no_less_for_root_whose_ids_are_others_on_the_host():
    made = compiled(config(uidMappings=RANGE, gidMappings=RANGE), root_facts(), strict=True)
    assert made.uid_map == [(0, 100000, 65536)] and not made.degradations
    assert one(made, "bounding")["keep"] == 0


def test_every_place_to_write_is_bounded_and_only_one_can_hold_programs():
    places = [item for item in config()["mounts"] if item["type"] == "tmpfs"]
    assert all(any(word.startswith("size=") for word in item["options"]) for item in places)
    assert all("nosuid" in item["options"] for item in config()["mounts"])
    assert [item["destination"] for item in places if "noexec" not in item["options"]] == [HOME]
    assert [item["destination"] for item in places if "nodev" not in item["options"]] == ["/dev"]


def test_a_call_is_listed_once_and_on_one_side_only():
    assert len(set(CALLS)) == len(CALLS)
    left_out = [name for _, calls in LEFT_OUT for name in calls.split()]
    assert len(set(left_out)) == len(left_out) and not set(left_out) & set(CALLS)
    assert not {"clone", "clone3", "socket", "socketpair", "personality"} & set(CALLS)


def test_the_profile_compiles_without_a_warning():
    program, flags, warnings, _ = seccomp_compile.compile(profile())
    assert program and flags == 0 and warnings == []


def test_the_profile_names_no_architecture_so_that_only_the_machine_s_own_can_be_called():
    assert "architectures" not in profile()
    assert profile()["defaultErrnoRet"] == 1
