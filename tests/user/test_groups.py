"""Additional groups: the config's, or the caller's own, kept when asked for. And the umask."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle, Config
from lab.execs import status
from lab.inside import held, read
from lab.ranges import map_ranges
from lab.runtime import Runtime
from lab.users import User

GROUP = 54321  # nobody's: whoever is in it was put there by the test
MEMBER: dict[str, Any] = {"extra_groups": [GROUP]}
ANNOTATION = "run.oci.keep_original_groups"

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to put users into a group")


def annotated(value: str) -> Any:
    def change(config: Config) -> None:
        config["annotations"] = {ANNOTATION: value}

    return change


def groups(rt: Runtime, box: Bundle, *options: str) -> list[str]:
    """The groups, as the host sees them, of a container's process whose maker is in GROUP."""
    rt.ok("run", "-d", *options, "-b", str(box.run("exec sleep 1000").path), "c", **MEMBER)
    return status(read(rt.state("c")["pid"], "status"))["Groups"].split()


def test_with_the_own_id_alone_they_stay_anyway(rt: Runtime, bundle: MakeBundle) -> None:
    assert groups(rt, bundle()) == [str(GROUP)]


@pytest.mark.covers("run --keep-groups")
def test_with_the_own_id_alone_the_option_is_fine(rt: Runtime, bundle: MakeBundle) -> None:
    assert groups(rt, bundle(), "--keep-groups") == [str(GROUP)]


def test_with_a_range_they_are_dropped(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    assert groups(rt, map_ranges(bundle(), alice)) == []
    assert "keepGroups" not in rt.state("c")


@pytest.mark.covers("run --keep-groups")
def test_with_a_range_they_stay_when_asked_for(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    box = map_ranges(bundle(), alice)
    assert groups(rt, box, "--keep-groups") == [str(GROUP)]
    assert rt.state("c")["keepGroups"] is True
    assert rt.ok("exec", "c", "id", "-G", **MEMBER) == "0 65534\n"  # not mapped, and there nevertheless


@pytest.mark.parametrize(("value", "kept"), [("1", [str(GROUP)]), ("0", []), ("", []), ("true", [])])
@pytest.mark.covers(f"annotations {ANNOTATION}")
def test_the_annotation_keeps_them_too(
    rt: Runtime, bundle: MakeBundle, alice: User, value: str, kept: list[str]
) -> None:
    box = map_ranges(bundle(), alice).change(annotated(value))
    assert groups(rt, box) == kept
    assert rt.ok("exec", "c", "id", "-G", **MEMBER) == ("0 65534\n" if kept else "0\n")


@pytest.mark.covers("exec --keep-groups")
def test_exec_keeps_them_when_asked_for(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    held(rt, map_ranges(bundle(), alice), "c")
    assert rt.ok("exec", "c", "id", "-G", **MEMBER) == "0\n"
    assert rt.ok("exec", "--keep-groups", "c", "id", "-G", **MEMBER) == "0 65534\n"


@pytest.mark.covers("create --keep-groups")
def test_a_file_of_the_group_can_be_read(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    box = map_ranges(bundle("cat /secret"), alice)
    secret = box.rootfs / "secret"
    secret.write_text("shown\n")
    os.chown(secret, 0, GROUP)
    secret.chmod(0o040)
    done = rt("run", "-b", str(box.path), "c", **MEMBER)
    assert done.returncode == 1 and "Permission denied" in done.stderr
    assert rt.ok("run", "--keep-groups", "-b", str(box.path), "c", **MEMBER) == "shown\n"
    # `create` and `start` are the same in two steps.
    box.run("cat /secret > /tmp/copy")
    rt.ok("create", "--keep-groups", "-b", str(box.path), "c", **MEMBER)
    rt.ok("start", "c")
    rt.wait_for("c", "stopped")
    assert (box.rootfs / "tmp/copy").read_text() == "shown\n"


def with_groups(*numbers: int) -> Any:
    def change(config: Config) -> None:
        config["process"]["user"]["additionalGids"] = list(numbers)

    return change


@pytest.mark.covers("process.user.additionalGids", "run --keep-groups")
def test_groups_cannot_be_both_kept_and_set(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    box = map_ranges(bundle("id -G"), alice).change(with_groups(7))
    done = rt("run", "--keep-groups", "-b", str(box.path), "c", **MEMBER)
    assert (done.returncode, done.stdout) == (0, "0 65534\n")
    line, hint = done.stderr.splitlines()
    assert line.startswith("rt: warning: process.user.additionalGids: 7 -> the caller's own groups: ")
    assert hint.startswith("hint: leave out additionalGids")
    strict = rt("--degrade=strict", "run", "--keep-groups", "-b", str(box.path), "c", **MEMBER)
    assert strict.returncode == 1 and "additionalGids: 7 is not possible" in strict.stderr


@pytest.mark.covers("process.user.additionalGids")
def test_mapped_groups_are_set_and_others_named(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    box = map_ranges(bundle("id -G"), alice).change(with_groups(7, 65536, 99999))
    done = rt("run", "-b", str(box.path), "c")
    assert (done.returncode, done.stdout) == (0, "0 7 65536\n"), done.stderr
    assert "additionalGids: 99999 -> without them" in done.stderr


@pytest.mark.covers("run --keep-groups", "process.user.additionalGids")
def test_root_s_groups_stay_only_when_asked_for(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    box = root_bundle("id -G")
    assert root_rt.ok("run", "-b", str(box.path), "c", **MEMBER) == "0\n"
    assert root_rt.ok("run", "--keep-groups", "-b", str(box.path), "c", **MEMBER).split() == ["0", str(GROUP)]
    box.change(with_groups(7, 8))
    assert root_rt.ok("run", "-b", str(box.path), "c", **MEMBER) == "0 7 8\n"


@pytest.mark.covers("plan")
def test_the_plan_says_what_becomes_of_groups(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    box = map_ranges(bundle(), alice).change(with_groups(7))
    assert "groups [7]" in rt.ok("plan", "-b", str(box.path))
    kept = json.loads(rt("plan", "--format=json", "-b", str(box.change(annotated("1")).path)).stdout)
    assert [op["set_groups"] for op in kept["ops"] if op.get("op") == "ids" or op.get("name") == "ids"] == [0]


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
@pytest.mark.covers("process.user.umask")
@pytest.mark.parametrize("who", ["user", "root"])
def test_every_umask_is_set(request: pytest.FixtureRequest, place: Path, umask: int, who: str) -> None:
    names = ("rt", "bundle") if who == "user" else ("root_rt", "root_bundle")
    rt, make = map(request.getfixturevalue, names)

    def change(config: Config) -> None:
        config["process"]["user"]["umask"] = umask

    box = make("umask").change(change)
    assert rt.ok("run", "-b", str(box.path), "c", umask=0o027) == f"{umask:04o}\n"
    held(rt, box, "c")
    assert rt.ok("exec", "c", "sh", "-c", "umask", umask=0o027) == f"{umask:04o}\n"
    process = {"args": ["sh", "-c", "umask"], "cwd": "/", "env": ["PATH=/bin"]}
    for user, shown in (({"uid": 0, "gid": 0}, "0022"), ({"uid": 0, "gid": 0, "umask": 0o70}, "0070")):
        (place / "process.json").write_text(json.dumps({**process, "user": user}))
        assert rt.ok("exec", "-p", str(place / "process.json"), "c", umask=0o027) == shown + "\n"
