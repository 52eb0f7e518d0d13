"""Where a rootfs may lie, and what it may look like."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle, busybox_rootfs, rootless_config
from lab.inside import bind, map_ids, output, own_mounts, refusal, subordinate, told, with_mounts
from lab.runtime import Runtime
from lab.users import User, can_make_users

needs_root = pytest.mark.skipif(not can_make_users(), reason="root has to give the files to others")
FRAME = "ls / | tr '\\n' ' '"


def at(path: Path, alice: User, args: str = FRAME) -> Bundle:
    """A bundle of alice's at this path."""
    busybox_rootfs(path / "rootfs")
    made = Bundle(path, rootless_config(alice.uid, alice.gid, args=args))
    alice.owns(path)
    return made


@pytest.mark.parametrize(
    "name",
    ["with some  spaces", "comma,colon:semi;colon", "quote'\"s", "back\\slash", "new\nline", "-dash", "ünï"],
)
def test_a_bundle_may_have_any_name(name: str, rt: Runtime, place: Path, alice: User) -> None:
    made = at(place / name, alice)
    with_mounts(made, bind("/from bundle", made.path / "config.json", "ro"))
    assert "bin" in output(rt, made) and "from bundle" in output(rt, made)
    rt.ok("run", "--detach", "--bundle", str(made.run("sleep 1000").path), "c")
    assert rt.state("c")["bundle"] == str(made.path)
    rt.ok("delete", "--force", "c")


def test_a_bundle_may_have_a_name_that_is_no_text(rt: Runtime, place: Path, alice: User) -> None:
    made = at(Path(os.fsdecode(os.fsencode(place) + b"/\xff\xfe\x80")), alice)
    assert "bin" in output(rt, made)
    rt.ok("run", "--detach", "--bundle", str(made.run("sleep 1000").path), "c")
    assert rt.state("c")["status"] == "running"
    assert "c" in rt.ok("list")
    rt.ok("delete", "--force", "c")


def test_a_rootfs_may_lie_two_hundred_directories_deep(rt: Runtime, place: Path, alice: User) -> None:
    assert "bin" in output(rt, at(place.joinpath(*["d"] * 200), alice))


@pytest.mark.covers("run --bundle")
def test_a_bundle_may_be_given_relative_to_the_current_directory(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle(FRAME)
    assert "bin" in rt.ok("run", "--bundle", made.path.name, "c", cwd=made.path.parent)
    assert "bin" in rt.ok("run", "--bundle", "../" + made.path.name + "/./", "c", cwd=made.path)
    assert "bin" in rt.ok("run", "c", cwd=made.path)


@pytest.mark.covers("root.path")
def test_root_path_may_be_absolute(rt: Runtime, bundle: MakeBundle) -> None:
    made, other = bundle(FRAME), bundle()
    (other.rootfs / "other").touch()
    made.config["root"]["path"] = str(other.rootfs)
    made.write()
    assert "other" in output(rt, made).split()


@pytest.mark.covers("root.path")
def test_root_path_may_lie_beside_the_bundle(rt: Runtime, bundle: MakeBundle) -> None:
    made, other = bundle(FRAME), bundle()
    (other.rootfs / "other").touch()
    made.config["root"]["path"] = f"../{other.path.name}/./rootfs"
    made.write()
    assert "other" in output(rt, made).split()


def test_a_bundle_may_be_reached_through_a_link(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    made = bundle(FRAME)
    (place / "link").symlink_to(made.path)
    assert "bin" in rt.ok("run", "--bundle", str(place / "link"), "c")


@pytest.mark.covers("root.path")
def test_a_rootfs_that_is_a_link_a_file_or_missing_is_refused(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    made.rootfs.rename(made.path / "real")
    assert "root.path" in refusal(rt, made) and "does not exist" in refusal(rt, made)
    made.rootfs.symlink_to("real")
    assert "root.path" in refusal(rt, made) and "symbolic link" in refusal(rt, made)
    made.rootfs.unlink()
    made.rootfs.touch()
    assert "root.path" in refusal(rt, made) and "not a directory" in refusal(rt, made)


def test_an_empty_rootfs_only_lacks_the_program(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle(["/bin/true"])
    shutil.rmtree(made.rootfs)
    made.rootfs.mkdir()
    rt.user.owns(made.rootfs)
    assert 'exec: "/bin/true": stat /bin/true: no such file or directory' in refusal(rt, made)


@needs_root
def test_a_rootfs_that_its_user_cannot_write_runs_when_it_is_complete(
    rt: Runtime, bundle: MakeBundle
) -> None:
    made = bundle("ls / | tr '\\n' ' '; touch /x 2>&1; true")
    for name in ("dev/pts", "dev/shm", "dev/mqueue"):
        (made.rootfs / name).mkdir(parents=True, exist_ok=True)
    os.chown(made.rootfs, 0, 0)
    said, _ = told(rt, made)
    assert "bin" in said and "denied" in said


@needs_root
def test_a_missing_mount_point_in_such_a_rootfs_is_named(rt: Runtime, bundle: MakeBundle) -> None:
    made = with_mounts(bundle(), bind("/missing", "/etc"))
    os.chown(made.rootfs, 0, 0)
    error = refusal(rt, made)
    assert (
        "mounts[7]: /missing: destination: permission denied" in error and "make it there beforehand" in error
    )


@needs_root
def test_a_rootfs_in_a_closed_home_works_where_root_is_another_id(rt: Runtime, alice: User) -> None:
    """Root of the container is a subordinate id, which cannot search the home: opened before becoming it."""
    alice.home.chmod(0o700)
    made = at(alice.home / "bundle", alice, args="id -u; cat /shared; touch /tmp/x; stat -c %u /tmp/x")
    try:
        (alice.home / "file").write_text("from home\n")
        (alice.home / "file").chmod(0o644)
        with_mounts(made, bind("/shared", alice.home / "file"))
        (made.rootfs / "shared").touch()
        for name in ("dev/pts", "dev/shm", "dev/mqueue"):
            (made.rootfs / name).mkdir(parents=True, exist_ok=True)
        map_ids(made, (0, subordinate(alice), 65536), gids=((0, subordinate(alice, "gid"), 65536),))
        assert output(rt, made).split() == ["0", "from", "home", "0"]
        made.config["root"]["readonly"] = True
        made.write()
        assert output(rt, made, "id -u") == "0"
    finally:
        shutil.rmtree(made.path)
        (alice.home / "file").unlink()


@needs_root
def test_a_rootfs_behind_somebody_else_s_closed_directory_is_refused(
    rt: Runtime, place: Path, alice: User
) -> None:
    made = at(place / "closed" / "bundle", alice)
    (place / "closed").chmod(0o700)
    (place / "open").mkdir()
    outside = Bundle(place / "open", made.config)
    outside.config["root"]["path"] = str(made.rootfs)
    outside.write()
    assert "permission denied" in refusal(rt, outside)


@needs_root
def test_a_rootfs_on_a_noexec_mount_is_an_exec_error_with_its_cause(
    rt: Runtime, place: Path, alice: User
) -> None:
    (place / "noexec").mkdir()
    with own_mounts() as host:
        host.sh(
            'mount -t tmpfs -o noexec,mode=777 t "$1"; mkdir "$1/b"; chown "$2" "$1/b"',
            str(place / "noexec"),
            str(alice.uid),
        )
        source = at(place / "source", alice, args="true")
        host.sh('cp -a "$1/." "$2/b/"', str(source.path), str(place / "noexec"))
        done = host.runtime(rt)("run", "--bundle", str(place / "noexec/b"), "c")
        assert done.returncode != 0
        assert 'exec: "/bin/sh": permission denied' in done.stderr and "noexec" in done.stderr


@needs_root
def test_a_rootfs_that_is_the_top_of_a_shared_mount_works(rt: Runtime, place: Path, alice: User) -> None:
    source = at(place / "source", alice)
    (place / "top").mkdir()
    with own_mounts("shared") as host:
        host.sh(
            'mount -t tmpfs -o mode=755 t "$1"; cp -a "$2/." "$1/"', str(place / "top"), str(source.rootfs)
        )
        source.config["root"]["path"] = str(place / "top")
        source.write()
        for words in (("--no-pivot",), ()):
            done = host.runtime(rt)("run", *words, "--bundle", str(source.path), "c")
            assert done.returncode == 0 and "bin" in done.stdout, done.stderr
