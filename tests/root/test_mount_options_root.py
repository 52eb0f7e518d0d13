"""Mount options of root's containers: whole trees, both ways of propagation, descriptors, tmpcopyup, fuse."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import bind, held, mount, mounts_of, output, own_mounts, read, refusal, with_mounts
from lab.runtime import Runtime
from lab.waiting import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="these mounts are root's")

MOUNTINFO = "cat /proc/self/mountinfo"


def privileged(made: Bundle) -> Bundle:
    capabilities = made.config["process"]["capabilities"]
    for kind in capabilities:
        capabilities[kind] = ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]
    made.write()
    return made


# Propagation of volumes


@pytest.mark.covers("mounts[].options rshared", "mounts[].options rslave", "mounts[].options rprivate")
@pytest.mark.parametrize(
    ("word", "inward", "outward"),
    [
        ("rshared", True, True),
        ("shared", True, True),
        ("rslave", True, False),
        ("slave", True, False),
        ("rprivate", False, False),
        ("private", False, False),
    ],
)
def test_mounts_of_a_volume_travel_as_far_as_its_propagation_lets_them(
    word: str, inward: bool, outward: bool, root_rt: Runtime, root_bundle: MakeBundle, place: Path
) -> None:
    volume = place / "volume"
    (volume / "from-host").mkdir(parents=True)
    (volume / "from-inside").mkdir()
    made = with_mounts(privileged(root_bundle()), mount("/v", "none", volume, "rbind", word))
    made.config["linux"]["rootfsPropagation"] = "shared" if outward else "rslave"
    made.write()
    with own_mounts("shared") as host:
        there = host.runtime(root_rt)
        pid = held(there, made, script="mount -t tmpfs two /v/from-inside; exec sleep 1000")
        host.sh('mount -t tmpfs one "$1"', str(volume / "from-host"))
        until(lambda: "/v/from-inside" in mounts_of(read(pid, "mountinfo")), "it is mounted inside")
        assert ("/v/from-host" in mounts_of(read(pid, "mountinfo"))) == inward
        assert (str(volume / "from-inside") in mounts_of(read(host.pid, "mountinfo"))) == outward
        there.ok("delete", "--force", "held")


# Whole trees


@pytest.mark.covers(
    *(f"mounts[].options {word}" for word in ("rrw", "rsuid", "rdev", "rexec", "rdiratime", "ratime")),
    *(f"mounts[].options {word}" for word in ("rsymfollow", "rrelatime", "rnostrictatime")),
)
def test_root_takes_back_and_gives_for_a_whole_tree(
    root_rt: Runtime, root_bundle: MakeBundle, place: Path
) -> None:
    source = place / "source"
    source.mkdir()
    flags = "ro,nosuid,nodev,noexec,nosymfollow,nodiratime,noatime"
    with own_mounts() as host:
        host.sh(
            'mount -t tmpfs t "$1"; mkdir "$1/sub"; mount -t tmpfs -o "$2" t "$1/sub"', str(source), flags
        )
        host.sh('mount -o "remount,bind,$2" "$1"', str(source), flags)
        back = ("rrw", "rsuid", "rdev", "rexec", "rsymfollow", "rdiratime", "ratime")
        times = ("rnoatime", "rstrictatime", "rnodiratime")
        made = with_mounts(
            root_bundle(),
            mount("/back", "none", source, "rbind", *back),
            mount("/as-is", "none", source, "rbind"),
            mount("/relatime", "none", source, "rbind", "rrelatime"),
            *[mount(f"/{word}", "none", source, "rbind", word) for word in times],
        )
        shown = mounts_of(output(host.runtime(root_rt), made, MOUNTINFO))
        for point in ("", "/sub"):
            assert shown["/back" + point].options == {"rw", "relatime"}
            assert set(flags.split(",")) <= shown["/as-is" + point].options
            assert "relatime" in shown["/relatime" + point].options
            assert "noatime" in shown["/rnoatime" + point].options
            assert "nodiratime" in shown["/rnodiratime" + point].options
            assert not {"noatime", "relatime"} & shown["/rstrictatime" + point].options
        on_host = mounts_of(read(host.pid, "mountinfo"))
        assert set(flags.split(",")) <= on_host[str(source)].options, "the host's mounts are as they were"


@pytest.mark.covers("mounts[].options relatime")
def test_relatime_is_set_on_a_bind_whose_source_has_another_mode(
    root_rt: Runtime, root_bundle: MakeBundle, place: Path
) -> None:
    (place / "source").mkdir()
    with own_mounts() as host:
        host.sh('mount -t tmpfs -o noatime t "$1"', str(place / "source"))
        made = with_mounts(root_bundle(), bind("/a", place / "source", "relatime"))
        shown = mounts_of(output(host.runtime(root_rt), made, MOUNTINFO))
        assert "relatime" in shown["/a"].options


@pytest.mark.covers("mounts[].options remount")
def test_a_remount_leaves_the_superblock_of_the_host_alone(
    root_rt: Runtime, root_bundle: MakeBundle, place: Path
) -> None:
    source = place / "source"
    source.mkdir()
    with own_mounts() as host:
        host.sh('mount -t tmpfs t "$1"', str(source))
        made = with_mounts(
            root_bundle(),
            bind("/a", source),
            mount("/a", "none", source, "remount", "ro", "sync", "lazytime"),
            mount("/sys", "sysfs", "sysfs", "remount", "ro", "sync"),
        )
        shown = mounts_of(output(host.runtime(root_rt), made, MOUNTINFO))
        assert "ro" in shown["/a"].options and not {"ro", "sync", "lazytime"} & shown["/a"].data
        assert not {"ro", "sync", "lazytime"} & mounts_of(read(host.pid, "mountinfo"))[str(source)].data


# Descriptors


@pytest.mark.covers("mounts[].source")
def test_a_mount_that_is_attached_nowhere_is_a_source(
    root_rt: Runtime, root_bundle: MakeBundle, place: Path
) -> None:
    """What an engine holds open and never shows: a filesystem of its own, given as a descriptor."""
    made = with_mounts(root_bundle(), bind("/a", "/proc/self/fd/3"))
    made.run("touch /a/x; cat /proc/self/mountinfo")
    code = """
import ctypes, os, sys
call = ctypes.CDLL(None, use_errno=True).syscall
fs = call(430, b"tmpfs", 0)
call(431, fs, 6, None, None, 0)
fd = call(432, fs, 0, 0)
assert fd > 0
if fd != 3:
    os.dup2(fd, 3)
os.set_inheritable(3, True)
os.execv(sys.argv[1], sys.argv[1:])
"""
    words = root_rt.argv("run", "--preserve-fds", "1", "--bundle", str(made.path), "c")
    done = subprocess.run(
        ["python3", "-c", code, *words], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode and "mounts[7]" in done.stderr:
        pytest.skip("this kernel copies no mount that is attached nowhere (before Linux 6.15)")
    assert done.returncode == 0, done.stderr
    assert mounts_of(done.stdout)["/a"].kind == "tmpfs"


@pytest.mark.covers("mounts[].type")
def test_a_fuse_filesystem_is_mounted_by_its_descriptor(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    if not os.access("/dev/fuse", os.R_OK):
        pytest.skip("needs /dev/fuse")
    made = with_mounts(
        root_bundle(),
        mount("/f", "fuse.mine", "mine", "fd=3,rootmode=40000", "user_id=0", "group_id=0", "ro"),
    )
    made.run(MOUNTINFO)
    words = root_rt.argv("run", "--preserve-fds", "1", "--bundle", str(made.path), "c")
    done = subprocess.run(
        ["sh", "-c", 'exec 3<>/dev/fuse; exec "$@"', "sh", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    shown = mounts_of(done.stdout)["/f"]
    assert shown.kind == "fuse.mine" and shown.source == "mine" and "ro" in shown.options


# tmpcopyup


@pytest.mark.covers("mounts[].options tmpcopyup")
def test_tmpcopyup_keeps_owners_modes_and_capabilities_of_files_but_no_devices(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    made = privileged(root_bundle())
    data = made.rootfs / "data"
    data.mkdir(mode=0o750)
    (data / "tool").write_text("tool")
    os.chown(data / "tool", 7, 8)
    (data / "tool").chmod(0o6755)
    (data / "able").write_text("able")
    # VFS_CAP_REVISION_2, CAP_NET_RAW permitted and effective
    try:
        os.setxattr(
            data / "able", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000")
        )
    except OSError:
        pytest.skip("this filesystem takes no capabilities")
    os.mknod(data / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chown(data, 7, 8)
    with_mounts(made, mount("/data", "tmpfs", "tmpfs", "tmpcopyup", "nosuid"))
    made.run("stat -c '%u:%g %a' /data /data/tool; ls /data; exec sleep 1000")
    with (made.path / "out").open("w+") as out, (made.path / "err").open("w+") as err:
        done = root_rt("run", "--detach", "--bundle", str(made.path), "c", stdout=out, stderr=err)
        assert done.returncode == 0
        until(lambda: "tool" in (made.path / "out").read_text().split("\n"), "all is said")
        said, notice = (made.path / "out").read_text(), (made.path / "err").read_text()
    assert said.split("\n")[:4] == ["7:8 750", "7:8 6755", "able", "tool"]
    assert "device nodes" in notice, "said under --degrade=strict too, and no error"
    there = f"/proc/{root_rt.state('c')['pid']}/root/data/able"
    assert os.getxattr(there, "security.capability")[4:8] == bytes.fromhex("00200000")


@pytest.mark.covers("mounts[].options tmpcopyup")
def test_a_limit_on_the_size_of_files_is_an_error_and_no_death(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    made = root_bundle()
    (made.rootfs / "data").mkdir()
    (made.rootfs / "data/big").write_bytes(b"x" * (1 << 20))
    with_mounts(made, mount("/data", "tmpfs", "tmpfs", "tmpcopyup"))
    error = refusal(_Limited(root_rt.user, root_rt.root), made)
    assert "mounts[7]" in error and "file too large" in error
    assert output(root_rt, made, "ls /data") == "big"


class _Limited(Runtime):
    """The command from a shell that lets nobody write large files: its own are smaller."""

    def argv(self, *words: str) -> list[str]:
        return ["/bin/sh", "-c", 'ulimit -f 1000; exec "$@"', "sh", *super().argv(*words)]
