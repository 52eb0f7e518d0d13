"""Files that belong to ids of /etc/subuid: entering the map, removing, owning, copying them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import map_ids, output, subordinate
from lab.runtime import Runtime
from lab.users import User


@pytest.fixture
def left(rt: Runtime, bundle: MakeBundle, alice: User) -> Bundle:
    """A bundle in which a container has left a closed directory that belongs to its user 33."""
    made = map_ids(
        bundle(),
        (0, alice.uid, 1),
        (1, subordinate(alice), 65536),
        gids=((0, alice.gid, 1), (1, subordinate(alice, "gid"), 65536)),
    )
    kinds = ("bounding", "effective", "permitted")
    made.config["process"]["capabilities"] = {kind: ["CAP_CHOWN", "CAP_FOWNER"] for kind in kinds}
    script = "mkdir /tmp/d; echo text > /tmp/d/file; chmod 700 /tmp/d; chown -R 33:34 /tmp/d"
    assert output(rt, made, script) == ""
    return made


def as_alice(alice: User, *argv: str) -> int:
    options = {"user": alice.uid, "group": alice.gid, "extra_groups": []} if os.getuid() == 0 else {}
    return subprocess.run(argv, check=False, capture_output=True, **options).returncode  # type: ignore[call-overload, no-any-return]


@pytest.mark.covers("unshare")
def test_a_program_runs_as_root_of_all_granted_ids(rt: Runtime, left: Bundle, alice: User) -> None:
    assert as_alice(alice, "ls", str(left.rootfs / "tmp/d")) != 0
    said = rt.ok("unshare", "sh", "-c", f"id -u; cat {left.rootfs}/tmp/d/file; cat /proc/self/uid_map")
    assert said.split() == ["0", "text", "0", str(alice.uid), "1", "1", str(subordinate(alice)), "65536"]


@pytest.mark.covers("unshare")
def test_its_exit_code_and_its_directory_are_the_caller_s(rt: Runtime, left: Bundle) -> None:
    assert rt("unshare", "sh", "-c", "exit 7").returncode == 7
    assert rt("unshare", "sh", "-c", "kill -9 $$").returncode == 137
    assert rt.ok("unshare", "pwd", cwd=str(left.path)).strip() == str(left.path)
    missing = rt("unshare", "no-such-program")
    assert missing.returncode == 1 and "executable file not found" in missing.stderr
    assert "is the command spelt right" in missing.stderr and "process.args" not in missing.stderr
    (left.path / "data").write_text("")
    closed = rt("unshare", str(left.path / "data"))
    assert closed.returncode == 1 and "permission denied" in closed.stderr
    assert "hint: make it executable (chmod +x), on a mount" in closed.stderr


def test_what_it_makes_is_as_open_as_the_caller_has_it(rt: Runtime, place: Path, alice: User) -> None:
    work = place / "work"
    work.mkdir()
    alice.owns(work)
    (work / "open").write_text("")
    (work / "open").chmod(0o666)
    rt.ok("unshare", "sh", "-c", "touch file; mkdir dir", cwd=str(work), umask=0o027)
    rt.ok("cp", "open", "copy", cwd=str(work), umask=0o027)
    modes = {path.name: path.stat().st_mode & 0o777 for path in work.iterdir()}
    assert modes == {"open": 0o666, "file": 0o640, "dir": 0o750, "copy": 0o640}


def test_its_environment_is_the_caller_s(rt: Runtime) -> None:
    given = {"PATH": "/usr/bin:/bin", "ONE": "1"}
    said = rt.ok("unshare", "cat", "/proc/self/environ", env=given)
    assert sorted(filter(None, said.split("\0"))) == sorted(
        f"{name}={value}" for name, value in given.items()
    )


@pytest.mark.parametrize("path", [".", "", ":", ".:/usr/bin:/bin"])
def test_no_tool_of_the_working_directory_is_run(rt: Runtime, place: Path, alice: User, path: str) -> None:
    work = place / "work"
    work.mkdir()
    for name in ("cp", "rm", "chown", "newuidmap", "newgidmap"):
        (work / name).write_text(f"#!/bin/sh\ntouch {work}/planted\n")
        (work / name).chmod(0o755)
    (work / "file").touch()
    alice.owns(work)
    environment = {**alice.environment(), "PATH": path}
    for words in (["cp", "file", "copy"], ["chown", "copy"], ["rm", "file"]):
        rt.ok(*words, cwd=str(work), env=environment)
    assert (work / "copy").exists() and not (work / "file").exists() and not (work / "planted").exists()


def test_options_behind_the_program_are_its_own(rt: Runtime) -> None:
    assert rt.ok("unshare", "echo", "--help", "-x").strip() == "--help -x"


@pytest.mark.covers("rm")
def test_what_a_container_left_is_removed(rt: Runtime, left: Bundle, alice: User) -> None:
    assert as_alice(alice, "rm", "-rf", str(left.rootfs / "tmp/d")) != 0
    rt.ok("rm", str(left.rootfs / "tmp/d"))
    assert not (left.rootfs / "tmp/d").exists()


def test_a_name_that_looks_like_an_option_is_a_path(rt: Runtime, place: Path, alice: User) -> None:
    directory = place / "work"
    directory.mkdir()
    (directory / "-rf").touch()
    (directory / "kept").touch()
    alice.owns(directory)
    rt.ok("rm", "./-rf", cwd=str(directory))
    assert sorted(os.listdir(directory)) == ["kept"]


@pytest.mark.covers("chown")
def test_what_a_container_left_becomes_the_caller_s(rt: Runtime, left: Bundle, alice: User) -> None:
    rt.ok("chown", str(left.rootfs / "tmp/d"))
    status = (left.rootfs / "tmp/d/file").stat()
    assert (status.st_uid, status.st_gid) == (alice.uid, alice.gid)


@pytest.mark.covers("cp")
def test_files_are_copied_out_as_the_caller_s(rt: Runtime, left: Bundle, alice: User) -> None:
    rt.ok("cp", str(left.rootfs / "tmp/d"), str(left.path / "out"))
    copied = left.path / "out/file"
    assert copied.read_text() == "text\n" and copied.stat().st_uid == alice.uid


def test_odd_files_are_copied_as_what_they_are(rt: Runtime, place: Path, alice: User) -> None:
    source = place / "odd"
    source.mkdir()
    (source / "new\nline").write_text("x")
    (source / "-rf").write_text("dash")
    (source / "dangling").symlink_to("/nosuch")
    os.mkfifo(source / "pipe")
    with open(source / "sparse", "wb") as file:
        file.truncate(1 << 30)
    alice.owns(place)
    rt.ok("cp", str(source), str(place / "copy"))
    copy = place / "copy"
    assert {path.name for path in copy.iterdir()} == {"new\nline", "-rf", "dangling", "pipe", "sparse"}
    assert os.readlink(copy / "dangling") == "/nosuch" and (copy / "pipe").is_fifo()
    size = (copy / "sparse").stat()
    assert size.st_size == 1 << 30 and size.st_blocks < 1000, "the holes stay"
    rt.ok("rm", str(copy / "new\nline"), str(copy / "-rf"), str(copy / "dangling"))
    assert {path.name for path in copy.iterdir()} == {"pipe", "sparse"}


def test_hard_links_among_what_is_copied_stay(rt: Runtime, place: Path, alice: User) -> None:
    source, into = place / "tree", place / "into"
    (source / "below").mkdir(parents=True)
    into.mkdir()
    for path in (source / "one", place / "outside", into / "other"):
        path.write_text(path.name)
    (source / "below/two").hardlink_to(source / "one")
    (source / "three").hardlink_to(place / "outside")
    (source / "link").symlink_to("one")
    (into / "outside").hardlink_to(into / "other")  # to be replaced, not written through
    alice.owns(place)
    rt.ok("cp", str(source), str(place / "outside"), str(into))
    copy = into / "tree"
    assert (copy / "one").samefile(copy / "below/two") and (copy / "three").samefile(into / "outside")
    assert [(copy / name).stat().st_nlink for name in ("one", "three")] == [2, 2], "none leads to the sources"
    assert (into / "other").read_text() == "other" and (into / "outside").read_text() == "outside"
    assert os.readlink(copy / "link") == "one"
    rt.ok("cp", str(source / "below/two"), str(place / "single"))
    assert (place / "single").stat().st_nlink == 1


@pytest.mark.parametrize(("words", "said"), [
    (("cp", "/dev/null", "{place}/node"), "Operation not permitted"),
    (("cp", "{place}/none", "{place}/x"), "No such file"),
    (("cp", "{place}/own", "/usr/rt-test"), "Permission denied"),
    (("cp", "{place}/own", "{place}/own"), "the same file"),
    (("rm", "/etc/passwd"), "Permission denied"),
    (("rm", "{place}/.."), "refusing to remove"),
    (("chown", "/etc/passwd"), "Operation not permitted"),
])  # fmt: skip
def test_what_is_not_the_user_s_stays(
    rt: Runtime, place: Path, alice: User, words: tuple[str, ...], said: str
) -> None:
    if alice.uid == 0:
        pytest.skip("needs an ordinary user")
    (place / "own").write_text("mine")
    alice.owns(place)
    done = rt(*(word.format(place=place) for word in words))
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    assert (place / "own").read_text() == "mine" and Path("/etc/passwd").exists()


@pytest.mark.parametrize("link", ["{host}", "../../../../../../../..{host}"])
def test_no_link_of_the_image_leads_out_of_it(
    rt: Runtime, bundle: MakeBundle, place: Path, link: str
) -> None:
    """As of CVE-2018-15664: what is copied into an image, or removed from it, is the caller's own file."""
    made = bundle()
    host = place / "host"
    host.mkdir()
    (host / "file").write_text("mine\n")
    (made.path / "new").write_text("new\n")
    (made.path / "tree").mkdir()
    (made.path / "tree/name").write_text("new\n")
    root = made.rootfs
    (root / "home").symlink_to(link.format(host=host))
    (root / "one").symlink_to(link.format(host=host) + "/file")
    (root / "tree").mkdir()
    (root / "tree/name").symlink_to(link.format(host=host) + "/file")
    (root / "inner").symlink_to("var")
    rt.user.owns(place)
    for words in (
        ["cp", "new", f"{root}/home/made"],
        ["cp", "new", f"{root}/home"],
        ["cp", "new", "rootfs/one"],
        ["cp", f"{root}/home/file", "copy"],
        ["rm", f"{root}/home/file"],
        ["chown", "rootfs/tmp/../home/file"],
    ):
        done = rt(*words, cwd=str(made.path))
        assert done.returncode == 1 and "leads out of the root file system" in done.stderr, (words, done)
    rt.ok("cp", "tree", str(root), cwd=str(made.path))  # onto root/tree
    assert (root / "tree/name").read_text() == "new\n" and not (root / "tree/name").is_symlink()
    rt.ok("cp", "new", f"{root}/inner/made", cwd=str(made.path))
    rt.ok("rm", f"{root}/home", f"{root}/one", cwd=str(made.path))
    assert (root / "var/made").read_text() == "new\n" and not (root / "home").is_symlink()
    assert [path.name for path in host.iterdir()] == ["file"] and (host / "file").read_text() == "mine\n"


@pytest.mark.covers("delete --purge")
def test_a_rootfs_goes_with_its_container_when_asked(rt: Runtime, left: Bundle) -> None:
    rt.ok("run", "--detach", "--bundle", str(left.run("exec sleep 1000").path), "box")
    rt.ok("delete", "--force", "--purge", "box")
    assert not left.rootfs.exists() and (left.path / "config.json").exists()


def test_a_rootfs_elsewhere_stays_and_so_does_the_container(
    rt: Runtime, bundle: MakeBundle, place: Path, alice: User
) -> None:
    made = bundle("exec sleep 1000")
    made.rootfs.rename(place / "elsewhere")
    made.change(lambda config: config["root"].update(path=str(place / "elsewhere")))
    rt.ok("run", "--detach", "--bundle", str(made.path), "box")
    refused = rt("delete", "--force", "--purge", "box")
    assert refused.returncode == 1 and "does not lie in the bundle" in refused.stderr
    assert (place / "elsewhere/bin").is_dir() and rt.state("box")["status"] == "running"


@pytest.mark.covers("delete --purge")
def test_a_container_that_does_not_exist_is_as_without(rt: Runtime) -> None:
    assert rt("delete", "--purge", "nobody").returncode == 1
    rt.ok("delete", "--force", "--purge", "nobody")
