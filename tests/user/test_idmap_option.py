"""--idmap of run, create and plan: other ids than the config's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.inside import output, refusal, set_namespace, subordinate, told
from lab.runtime import Runtime
from lab.users import User, can_make_users

ONE = '{"containerID": 0, "hostID": 5, "size": 9}'
TWICE = f'{{"uidMappings": [{ONE}, {ONE}], "gidMappings": [{ONE}]}}'
MAP = "tr -s ' ' < /proc/self/uid_map"


def lines(said: str) -> list[list[int]]:
    return [[int(word) for word in line.split()] for line in said.splitlines()]


@pytest.mark.covers("run --idmap")
@pytest.mark.parametrize("kind", ["full", "auto"])
def test_all_granted_ids_are_mapped(kind: str, rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    said = output(rt, bundle(), MAP, "--idmap", kind)
    assert lines(said) == [[0, alice.uid, 1], [1, subordinate(alice), 65536]]


@pytest.mark.covers("run --idmap")
def test_the_own_id_keeps_its_number(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    said = output(rt, bundle(), f"id -u; id -g; stat -c %u /; {MAP}", "--idmap", "keep-id").splitlines()
    assert said[:3] == [str(alice.uid), str(alice.gid), str(alice.uid)]
    first = subordinate(alice)
    assert lines("\n".join(said[3:])) == [
        [0, first, alice.uid],
        [alice.uid, alice.uid, 1],
        [alice.uid + 1, first + alice.uid, 65536 - alice.uid],
    ]


def test_a_user_of_the_config_s_own_stays_that_user(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    made = bundle().change(lambda config: config["process"].update(user={"uid": 33, "gid": 34}))
    assert output(rt, made, "id -u; id -g", "--idmap", "keep-id").split() == ["33", "34"]


def test_single_takes_the_ranges_of_a_config_away(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    assert lines(output(rt, bundle(), MAP, "--idmap", "single")) == [[0, alice.uid, 1]]


def test_a_config_for_root_gets_a_user_namespace_without_a_word(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    made = set_namespace(bundle(), "user", absent=True)
    made.change(lambda config: [config["linux"].pop(name) for name in ("uidMappings", "gidMappings")])
    assert lines(output(rt, made, MAP, "--idmap", "auto"))[0] == [0, alice.uid, 1]


def test_a_file_says_the_maps(rt: Runtime, bundle: MakeBundle, alice: User, place: Path) -> None:
    maps = {
        field: [{"containerID": 7, "hostID": own, "size": 1}]
        for field, own in (("uidMappings", alice.uid), ("gidMappings", alice.gid))
    }
    file = place / "maps.json"
    file.write_text(json.dumps(maps))
    made = bundle().change(lambda config: config["process"].update(user={"uid": 7, "gid": 7}))
    assert lines(output(rt, made, MAP, "--idmap", str(file))) == [[7, alice.uid, 1]]


@pytest.mark.covers("create --idmap", "exec")
def test_a_created_container_has_them_and_so_has_exec(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    made = bundle("exec sleep 1000")
    rt.ok("create", "--idmap", "keep-id", "--bundle", str(made.path), "box")
    rt.ok("start", "box")
    assert rt.ok("exec", "box", "id", "-u").strip() == str(alice.uid)
    assert rt.ok("exec", "--user", "5", "box", "id", "-u").strip() == "5"


@pytest.mark.covers("plan --idmap")
def test_a_plan_shows_them(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    made = bundle()
    said = json.loads(rt.ok("plan", "--idmap", "full", "--format", "json", "--bundle", str(made.path)))
    assert len(said["uidMap"]) == 2


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file"),
        ("{", "ends too early"),
        ("{}", "uidMappings: required"),
        ('{"uidMappings": [], "gidMappings": []}', "at least one mapping"),
        ('{"uidMappings": [{"containerID": 0, "hostID": "0", "size": 1}], "gidMappings": []}', "hostID"),
        (TWICE, "maps.json: uidMappings[1]: its containerID range overlaps that of uidMappings[0]"),
    ],
)
def test_a_wrong_file_is_named(
    content: str | None, problem: str, rt: Runtime, bundle: MakeBundle, place: Path
) -> None:
    file = place / "maps.json"
    if content is not None:
        file.write_text(content)
    said = refusal(rt, bundle(), "--idmap", str(file))
    assert problem in said and str(file) in said and "config.json" not in said


def test_a_joined_user_namespace_has_its_maps_already(rt: Runtime, bundle: MakeBundle) -> None:
    made = set_namespace(bundle(), "user", "/proc/self/ns/user")
    made.change(lambda config: [config["linux"].pop(name) for name in ("uidMappings", "gidMappings")])
    assert "joins a user namespace" in refusal(rt, made, "--idmap", "auto")


@pytest.mark.skipif(not can_make_users(), reason="needs root, to make a user without a range")
@pytest.mark.covers("run --idmap")
def test_without_a_grant_it_says_what_is_missing(
    rt: Runtime, bundle: MakeBundle, bare: User, place: Path
) -> None:
    made = bundle("id -u")
    bare.owns(made.path)
    root = place / "bare-state"
    root.mkdir(mode=0o700)
    bare.owns(root)
    theirs = Runtime(bare, root)
    said, notice = told(theirs, made, None, "--idmap", "keep-id")
    assert said == str(bare.uid) and "/etc/subuid" in notice and "usermod --add-subuids" in notice
    assert "/etc/subuid" in refusal(theirs, made, "--idmap", "full")
    assert "/etc/subuid" in refusal(theirs, made, "--idmap", "auto", before=("--degrade=strict",))
