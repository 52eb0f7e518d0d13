"""--overlay: the rootfs stays as it is, whatever the container writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.inside import map_ids, output, refusal, subordinate
from lab.runtime import Runtime
from lab.users import User


def tree(path: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for where, names, files in os.walk(path):
        for name in names + files:
            status = (Path(where) / name).lstat()
            found[os.path.join(where, name)] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


@pytest.mark.covers("run --overlay")
@pytest.mark.parametrize("readonly", [True, False])
def test_what_is_written_goes_with_the_container(readonly: bool, rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle("true").change(lambda config: config["root"].update(readonly=readonly))
    output(rt, made, "true", "--overlay")  # mount points are made once
    before = tree(made.rootfs)
    said = output(
        rt, made, "echo new > /etc/new; echo more >> /etc/passwd; rm /bin/ls; cat /etc/new", "--overlay"
    )
    assert said == "new" and tree(made.rootfs) == before
    assert (
        output(rt, made, "test -e /etc/new || echo gone; test -e /bin/ls && echo back", "--overlay")
        == "gone\nback"
    )


@pytest.mark.covers("run --overlay-dir")
def test_what_is_written_is_kept_where_that_is_asked(
    rt: Runtime, bundle: MakeBundle, place: Path, alice: User
) -> None:
    kept = place / "kept: with, signs"
    made = bundle("true")
    alice.owns(place)
    output(rt, made, "echo new > /etc/new; rm /bin/ls", "--overlay-dir", str(kept))
    assert not (made.rootfs / "etc/new").exists() and (made.rootfs / "bin/ls").is_symlink()
    assert (kept / "upper/etc/new").read_text() == "new\n"
    said = output(rt, made, "cat /etc/new; test -e /bin/ls || echo gone", "--overlay-dir", str(kept))
    assert said == "new\ngone"


def test_an_unset_variable_for_the_directory_does_not_open_the_rootfs(
    rt: Runtime, bundle: MakeBundle
) -> None:
    assert "option --overlay-dir cannot be empty" in refusal(rt, bundle(), "--overlay-dir", "")


@pytest.mark.covers("create --overlay", "exec")
def test_a_created_container_and_a_further_program_see_the_same(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle("exec sleep 1000")
    rt.ok("create", "--overlay", "--bundle", str(made.path), "box")
    rt.ok("start", "box")
    rt.ok("exec", "box", "sh", "-c", "echo here > /etc/here")
    assert rt.ok("exec", "box", "cat", "/etc/here") == "here\n"
    assert not (made.rootfs / "etc/here").exists()


def test_with_a_range_of_ids_owners_are_kept_apart(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    made = map_ids(
        bundle(),
        (0, alice.uid, 1),
        (1, subordinate(alice), 65536),
        gids=((0, alice.gid, 1), (1, subordinate(alice, "gid"), 65536)),
    )
    kinds = ("bounding", "effective", "permitted")
    made.config["process"]["capabilities"] = {kind: ["CAP_CHOWN"] for kind in kinds}
    script = "chown 33:34 /etc/passwd; stat -c %u:%g /etc/passwd /"
    assert output(rt, made, script, "--overlay") == "33:34\n0:0"
    assert (made.rootfs / "etc/passwd").stat().st_uid == alice.uid


def test_many_containers_share_one_rootfs(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle("exec sleep 1000")
    for name in ("one", "two"):
        rt.ok("run", "--overlay", "--detach", "--bundle", str(made.path), name)
        rt.ok("exec", name, "sh", "-c", f"echo {name} > /etc/name")
    assert [rt.ok("exec", name, "cat", "/etc/name").strip() for name in ("one", "two")] == ["one", "two"]


def test_masked_paths_and_mounts_lie_on_top(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    (made.rootfs / "secret").write_text("told\n")
    made.change(lambda config: config["linux"]["maskedPaths"].append("/secret"))
    assert (
        output(
            rt, made, "cat /secret; stat -fc %T /; ls /proc/1 >/dev/null && echo proc", "--overlay"
        ).split()[-1]
        == "proc"
    )
    assert "told" not in output(rt, made, "cat /secret", "--overlay")


def test_a_directory_that_cannot_be_is_named(rt: Runtime, bundle: MakeBundle) -> None:
    assert "--overlay-dir: /no/such/place: mkdirat: no such file" in refusal(
        rt, bundle(), "--overlay-dir", "/no/such/place"
    )
    assert "not a directory" in refusal(rt, bundle(), "--overlay-dir", "/etc/passwd")


@pytest.mark.covers("create --overlay-dir", "start")
def test_a_created_container_keeps_what_it_writes_too(
    rt: Runtime, bundle: MakeBundle, place: Path, alice: User
) -> None:
    made = bundle("echo new > /etc/new")
    alice.owns(place)
    rt.ok("create", "--overlay-dir", str(place / "kept"), "--bundle", str(made.path), "box")
    rt.ok("start", "box")
    rt.wait_for("box", "stopped")
    rt.ok("delete", "box")
    assert (place / "kept/upper/etc/new").read_text() == "new\n"
    assert not (made.rootfs / "etc/new").exists()
