"""A rootfs from the host's programs: usable, copied and not linked, and all or nothing."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

from rootless_rt.errors import RtError
from rootless_rt.host import rootfs

needs_busybox = pytest.mark.skipif(
    not any(os.access(path, os.X_OK) for path in rootfs._BUSYBOX), reason="needs a busybox on the host"
)


@needs_busybox
def test_the_hosts_busybox_becomes_a_rootfs_with_all_its_applets(tmp_path):
    place = tmp_path / "rootfs"
    source = rootfs.make_rootfs(str(place))
    assert source in rootfs._BUSYBOX
    for name in ("proc", "sys", "dev", "tmp", "etc", "root"):
        assert (place / name).is_dir()
    assert os.readlink(place / "bin/sh") == "busybox" and os.readlink(place / "bin/ls") == "busybox"
    assert stat.S_IMODE((place / "tmp").stat().st_mode) == 0o1777
    assert "root:x:0:0:" in (place / "etc/passwd").read_text()
    said = subprocess.run(
        [place / "bin/busybox", "echo", "hello"], capture_output=True, text=True, check=True
    )
    assert said.stdout == "hello\n"
    assert (place / "bin/busybox").stat().st_nlink == 1, (
        "a copy: the host's own cannot be changed from inside"
    )


def test_programs_come_with_their_libraries_where_there_is_no_static_busybox(tmp_path, monkeypatch):
    monkeypatch.setattr(rootfs, "_BUSYBOX", ())
    place = tmp_path / "rootfs"
    assert rootfs.make_rootfs(str(place)) == "programs of this host"
    for name in ("sh", "ls", "cat"):
        assert (place / "bin" / name).is_symlink() or (place / "bin" / name).is_file()
    shell = os.path.realpath("/bin/sh")
    needed = rootfs._libraries(shell)
    assert needed and all((place / path[1:]).is_file() for path in needed)
    modes = [path.stat().st_mode for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
    assert modes and not any(mode & (stat.S_ISUID | stat.S_ISGID) for mode in modes)
    if os.geteuid() == 0:
        done = subprocess.run(
            ["chroot", place, "/bin/sh", "-c", "ls /"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and "etc" in done.stdout.split(), done.stderr


def test_an_empty_directory_is_taken_and_a_used_one_is_not(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    rootfs.make_rootfs(str(empty))
    assert (empty / "bin").is_dir()
    for used in (empty, tmp_path / "file", tmp_path / "link"):
        if used.name == "file":
            used.write_text("")
        elif used.name == "link":
            used.symlink_to(tmp_path / "nowhere")
        with pytest.raises(RtError, match="exists and is not empty"):
            rootfs.make_rootfs(str(used))


def test_nothing_is_left_of_a_rootfs_that_could_not_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr(rootfs, "_BUSYBOX", ())
    monkeypatch.setattr(rootfs.shutil, "which", lambda *_, **__: None)
    with pytest.raises(RtError, match="no shell to copy") as caught:
        rootfs.make_rootfs(str(tmp_path / "rootfs"))
    assert "busybox-static" in caught.value.hint and list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_error_of_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RtError, match=r"cannot make .*/file/rootfs: not a directory"):
        rootfs.make_rootfs(str(tmp_path / "file" / "rootfs"))
