"""tmpcopyup: a tmpfs that begins with what it covers, for an ordinary user's container."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import bind, map_ids, mount, mounts_of, output, refusal, subordinate, told, with_mounts
from lab.runtime import Runtime
from lab.users import User, can_make_users

pytestmark = pytest.mark.covers("mounts[].options tmpcopyup")


def copied(made: Bundle, *options: str) -> Bundle:
    return with_mounts(made, mount("/data", "tmpfs", "tmpfs", "tmpcopyup", *options))


@pytest.fixture
def data(bundle: MakeBundle, alice: User) -> tuple[Bundle, Path]:
    """A bundle with a directory /data of alice's in its rootfs."""
    made = bundle()
    path = made.rootfs / "data"
    path.mkdir()
    alice.owns(path)
    return made, path


def test_files_directories_links_and_fifos_are_there(rt: Runtime, data: tuple[Bundle, Path]) -> None:
    made, path = data
    (path / "sub/deeper").mkdir(parents=True)
    (path / "sub/deeper/file").write_text("text\n")
    (path / "link").symlink_to("sub/deeper/file")
    (path / "dangling").symlink_to("/no/where")
    (path / ".hidden").write_text("")
    os.mkfifo(path / "fifo")
    rt.user.owns(path)
    script = "cd /data; find . | sort; cat link; readlink dangling; test -p fifo && echo fifo; rm -r sub"
    assert output(rt, copied(made), script).split() == [
        ".",
        "./.hidden",
        "./dangling",
        "./fifo",
        "./link",
        "./sub",
        "./sub/deeper",
        "./sub/deeper/file",
        "text",
        "/no/where",
        "fifo",
    ]
    assert (path / "sub/deeper/file").read_text() == "text\n", "the image stays as it was"


def test_modes_and_times_are_kept(rt: Runtime, data: tuple[Bundle, Path]) -> None:
    made, path = data
    (path / "sub").mkdir()
    for name, mode in (("set", 0o4755), ("group", 0o2750), ("none", 0), ("all", 0o777)):
        (path / name).write_text(name)
        rt.user.owns(path / name)
        (path / name).chmod(mode)
        os.utime(path / name, (1, 1_000_000_000))
    rt.user.owns(path / "sub")
    (path / "sub").chmod(0o1711)
    os.utime(path / "sub", (1, 1_000_000_000))
    said = output(rt, copied(made), "cd /data; stat -c '%n %a %Y' *")
    assert said.splitlines() == [
        "all 777 1000000000",
        "group 2750 1000000000",
        "none 0 1000000000",
        "set 4755 1000000000",
        "sub 1711 1000000000",
    ]


def test_the_tmpfs_has_the_mode_of_the_directory_unless_one_is_given(
    rt: Runtime, data: tuple[Bundle, Path]
) -> None:
    made, path = data
    path.chmod(0o711)
    with_mounts(copied(made), mount("/root", "tmpfs", "tmpfs"), mount("/new", "tmpfs", "tmpfs"))
    (made.rootfs / "root").chmod(0o700)
    assert output(rt, made, "stat -c %a /data /root /new").split() == ["711", "700", "1777"]
    made.config["mounts"] = made.config["mounts"][:-3]
    assert output(rt, copied(made, "mode=755"), "stat -c %a /data").split() == ["755"]


def test_owners_are_kept(rt: Runtime, data: tuple[Bundle, Path], alice: User) -> None:
    if not can_make_users():
        pytest.skip("needs root, to give files to subordinate ids")
    made, path = data
    first_uid, first_gid = subordinate(alice), subordinate(alice, "gid")
    map_ids(
        made,
        (0, alice.uid, 1),
        (1, first_uid, 1000),
        gids=((0, alice.gid, 1), (1, first_gid, 1000)),
    )
    (path / "dir").mkdir()
    (path / "file").write_text("")
    (path / "link").symlink_to("file")
    for item in (path, path / "dir", path / "file", path / "link"):
        os.chown(item, first_uid + 32, first_gid + 33, follow_symlinks=False)
    (path / "file").chmod(0o6755)
    said = output(rt, copied(made), "cd /data; stat -c '%u:%g %a' . dir file; stat -c %u:%g link")
    assert said.splitlines() == ["33:34 755", "33:34 755", "33:34 6755", "33:34"]
    made.config["mounts"].pop()
    said = output(rt, copied(made, "uid=7", "gid=8"), "stat -c %u:%g /data /data/file")
    assert said.split() == ["7:8", "33:34"]


@pytest.mark.skipif(not can_make_users(), reason="needs root, to make a file of somebody else's")
def test_a_setuid_file_of_an_owner_that_is_not_mapped_gives_nobody_its_rights(
    rt: Runtime, data: tuple[Bundle, Path]
) -> None:
    made, path = data
    (path / "tool").write_text("tool\n")
    os.chown(path / "tool", 12345, 12345)
    (path / "tool").chmod(0o6755)
    assert output(rt, copied(made), "stat -c '%a %u' /data/tool; cat /data/tool").split() == [
        "755",
        "0",
        "tool",
    ]


def test_extended_attributes_are_kept_where_a_tmpfs_takes_them(
    rt: Runtime, data: tuple[Bundle, Path]
) -> None:
    made, path = data
    (path / "file").write_text("")
    rt.user.owns(path)
    acl = bytes.fromhex("02000000 01000700ffffffff 02000400" + rt.user.uid.to_bytes(4, "little").hex())
    acl += bytes.fromhex("04000500ffffffff 10000700ffffffff 20000500ffffffff")
    try:
        os.setxattr(path / "file", "user.colour", b"red")
        os.setxattr(path / "file", "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("this filesystem takes no extended attributes")
    rt.ok("run", "--detach", "--bundle", str(copied(made).run("exec sleep 1000").path), "c")
    there = f"/proc/{rt.state('c')['pid']}/root/data/file"
    try:
        names = os.listxattr(there)
    except PermissionError:
        pytest.skip("the container's files cannot be looked at from here")
    assert "system.posix_acl_access" in names
    # Attributes of users came to tmpfs with Linux 6.6.
    assert "user.colour" not in names or os.getxattr(there, "user.colour") == b"red"


def test_the_names_of_one_file_stay_names_of_one_file(rt: Runtime, data: tuple[Bundle, Path]) -> None:
    made, path = data
    (path / "a/b").mkdir(parents=True)
    (path / "one").write_bytes(b"x" * 60000)
    os.link(path / "one", path / "two")
    os.link(path / "one", path / "a/b/three")
    (made.rootfs / "outside").write_text("outside\n")
    os.link(made.rootfs / "outside", path / "half")
    rt.user.owns(made.rootfs)
    script = (
        "cd /data; stat -c %i one two a/b/three | uniq | wc -l; stat -c %h one half; cat half; echo y > half"
    )
    # Only one copy of it fits.
    assert output(rt, copied(made, "size=96k"), script).split() == ["1", "3", "1", "outside"]
    assert (made.rootfs / "outside").read_text() == "outside\n"


def test_a_sparse_file_stays_sparse(rt: Runtime, data: tuple[Bundle, Path]) -> None:
    made, path = data
    with (path / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(1 << 39)
        file.write(b"end")
        file.truncate(1 << 40)
    rt.user.owns(path)
    script = "cd /data; stat -c %s sparse; head -c 5 sparse; echo; "
    script += "dd if=sparse bs=1M skip=524288 count=1 2>/dev/null | head -c 3; "
    said = output(rt, copied(made, "size=1m"), script + "echo; du -k sparse | cut -f 1").split()
    assert said[:3] == [str(1 << 40), "begin", "end"] and int(said[3]) <= 64


def test_what_does_not_fit_is_an_error_that_says_so(rt: Runtime, data: tuple[Bundle, Path]) -> None:
    made, path = data
    (path / "big").write_bytes(bytes(range(256)) * 4096)
    rt.user.owns(path)
    error = refusal(rt, copied(made, "size=64k"))
    assert "mounts[7]" in error and "no space left" in error and "size=" in error
    made.config["mounts"].pop()
    error = refusal(rt, copied(made, "nr_inodes=1"))
    assert "no space left" in error


def test_a_read_only_tmpfs_is_filled_first(rt: Runtime, data: tuple[Bundle, Path]) -> None:
    made, path = data
    (path / "file").write_text("text\n")
    said = output(
        rt, copied(made, "ro", "nosuid"), "cat /data/file; touch /data/x 2>&1; cat /proc/self/mountinfo"
    )
    lines = said.splitlines()
    assert lines[0] == "text" and "Read-only" in lines[1]
    assert {"ro", "nosuid"} <= mounts_of("\n".join(lines[2:]))["/data"].options


def test_a_directory_that_is_not_there_is_an_empty_tmpfs(rt: Runtime, bundle: MakeBundle) -> None:
    assert output(rt, copied(bundle()), "ls -A /data; touch /data/x && echo made") == "made"


def test_a_symlink_of_the_rootfs_names_the_directory_to_copy(
    rt: Runtime, data: tuple[Bundle, Path], place: Path
) -> None:
    made, path = data
    path.rename(made.rootfs / "real")
    (made.rootfs / "real/file").write_text("inside\n")
    path.symlink_to("../../../../real")
    assert output(rt, copied(made), "cat /data/file; rm /data/file") == "inside"
    assert (made.rootfs / "real/file").exists()


def test_a_thousand_files_and_two_hundred_levels_are_copied(rt: Runtime, data: tuple[Bundle, Path]) -> None:
    made, path = data
    for number in range(1000):
        (path / f"file-with-a-long-name-to-fill-the-buffer-{number}").write_text(str(number))
    (path / "/".join(["d"] * 200)).mkdir(parents=True)
    rt.user.owns(path)
    said = output(rt, copied(made), "cd /data; ls | wc -l; find . -name d | wc -l; cat file-*-999")
    assert said.split() == ["1001", "200", "999"]


def test_what_is_nested_too_deep_is_an_error(rt: Runtime, data: tuple[Bundle, Path]) -> None:
    made, path = data
    (path / "/".join(["d"] * 300)).mkdir(parents=True)
    rt.user.owns(path)
    assert "nested deeper than 256" in refusal(rt, copied(made))


def test_what_is_mounted_below_is_left_out_and_said(
    rt: Runtime, data: tuple[Bundle, Path], share: Path
) -> None:
    made, path = data
    (path / "file").write_text("text\n")
    with_mounts(made, bind("/data/volume", share))
    said, notice = told(rt, copied(made), "cd /data; ls -A; cat file")
    assert said.split() == ["file", "text"] and "mounts[8]" in notice and "mounts in it" in notice


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a device node")
def test_devices_and_sockets_of_the_image_are_left_out_and_said(
    rt: Runtime, data: tuple[Bundle, Path]
) -> None:
    import socket

    made, path = data
    os.mknod(path / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path / "socket"))
    (path / "file").touch()
    said, notice = told(rt, copied(made), "ls -A /data")
    assert said.split() == ["file"] and notice.count("rt: ") == 1 and "device nodes" in notice


def test_tmpcopyup_means_nothing_elsewhere(rt: Runtime, bundle: MakeBundle, share: Path) -> None:
    error = refusal(rt, with_mounts(bundle(), bind("/data", share, "tmpcopyup")))
    assert "mounts[7].options[1]" in error and "tmpfs" in error
    error = refusal(rt, with_mounts(bundle(), mount("/", "tmpfs", "tmpfs", "tmpcopyup")))
    assert "mounts[7].destination" in error
