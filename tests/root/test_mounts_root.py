"""Mounts of root's containers: propagation to and from the host, and what only root may do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import (
    bind,
    held,
    mount,
    mounts_of,
    output,
    own_mounts,
    read,
    refusal,
    set_namespace,
    with_mounts,
)
from lab.runtime import Runtime
from lab.waiting import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="these mounts are root's")

MOUNTINFO = "cat /proc/self/mountinfo"


def propagating(bundle: Bundle, word: str) -> Bundle:
    bundle.config["linux"]["rootfsPropagation"] = word
    capabilities = bundle.config["process"]["capabilities"]
    for kind in capabilities:
        capabilities[kind] = ["CAP_SYS_ADMIN"]
    bundle.write()
    return bundle


@pytest.mark.parametrize(
    ("word", "tags"),
    [
        ("shared", {"shared"}),
        ("rshared", {"shared"}),
        ("slave", {"master"}),
        ("rslave", {"master"}),
        ("private", set()),
        ("rprivate", set()),
        ("unbindable", {"unbindable"}),
        ("runbindable", {"unbindable"}),
    ],
)
@pytest.mark.covers("linux.rootfsPropagation")
def test_the_root_has_the_propagation_of_the_config(
    word: str, tags: set[str], root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    with own_mounts("shared") as host:
        shown = mounts_of(output(host.runtime(root_rt), propagating(root_bundle(), word), MOUNTINFO))
        assert shown["/"].propagation == tags


def test_an_unknown_propagation_is_refused(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    assert "linux.rootfsPropagation" in refusal(root_rt, propagating(root_bundle(), "sideways"))


@pytest.mark.parametrize("word", ["shared", "slave", "private"])
@pytest.mark.covers("mounts[].options rshared")
def test_a_mount_made_inside_reaches_the_host_only_by_a_shared_volume(
    word: str, root_rt: Runtime, root_bundle: MakeBundle, place: Path
) -> None:
    """The root is a peer of nothing on the host; volumes are, where everything is shared."""
    volume = place / "volume"
    (volume / "inner").mkdir(parents=True)
    made = with_mounts(propagating(root_bundle(), word), bind("/volume", volume, "shared"))
    script = "mount -t tmpfs one /tmp; mount -t tmpfs two /volume/inner; exec sleep 1000"
    with own_mounts("shared") as host:
        there = host.runtime(root_rt)
        pid = held(there, made, script=script)
        until(lambda: "/volume/inner" in mounts_of(read(pid, "mountinfo")), "it is mounted inside")
        on_host = mounts_of(read(host.pid, "mountinfo"))
        assert str(made.rootfs) not in on_host and str(made.rootfs / "tmp") not in on_host
        assert (str(volume / "inner") in on_host) == (word == "shared")
        there.ok("delete", "--force", "held")


@pytest.mark.parametrize("word", ["slave", "rslave", "private"])
def test_a_mount_made_on_the_host_appears_inside_where_the_root_is_a_slave(
    word: str, root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    made = propagating(root_bundle(), word)
    with own_mounts("shared") as host:
        there = host.runtime(root_rt)
        pid = held(there, made)
        host.sh('mount -t tmpfs late "$1"', str(made.rootfs / "tmp"))
        assert ("/tmp" in mounts_of(read(pid, "mountinfo"))) == (word != "private")
        host.sh('umount "$1"', str(made.rootfs / "tmp"))
        there.ok("delete", "--force", "held")


@pytest.mark.parametrize("pivot", [(), ("--no-pivot",)])
@pytest.mark.parametrize("word", ["shared", "rslave", "private", "unbindable"])
@pytest.mark.parametrize("host_word", ["shared", "private", "slave"])
def test_the_host_keeps_its_mounts_whatever_the_propagation(
    pivot: tuple[str, ...], word: str, host_word: str, root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    made = propagating(root_bundle("true"), word)
    with own_mounts(host_word) as host:
        before = read(host.pid, "mountinfo")
        if pivot and word in ("shared", "private"):
            assert "not safe without pivot_root" in refusal(host.runtime(root_rt), made, *pivot)
        else:
            output(host.runtime(root_rt), made, None, *pivot)
        points = [line.split()[4] for line in before.splitlines()]
        assert [line.split()[4] for line in read(host.pid, "mountinfo").splitlines()] == points


@pytest.mark.covers("mounts[].options noatime", "mounts[].options nodiratime", "mounts[].options strictatime")
def test_access_times_of_a_bind_are_as_asked(root_rt: Runtime, root_bundle: MakeBundle, place: Path) -> None:
    words = ("noatime", "nodiratime", "strictatime")
    made = with_mounts(root_bundle(), *[bind(f"/{word}", place, word) for word in words])
    shown = mounts_of(output(root_rt, made, MOUNTINFO))
    assert "noatime" in shown["/noatime"].options and "nodiratime" in shown["/nodiratime"].options
    assert not {"noatime", "relatime"} & shown["/strictatime"].options


@pytest.mark.covers("mounts[].options suid", "mounts[].options exec", "mounts[].options rw")
def test_root_takes_restrictions_of_the_source_back(
    root_rt: Runtime, root_bundle: MakeBundle, place: Path
) -> None:
    (place / "source").mkdir()
    with own_mounts() as host:
        host.sh('mount -t tmpfs -o nosuid,noexec,ro t "$1"', str(place / "source"))
        made = with_mounts(
            root_bundle(), bind("/a", place / "source", "suid", "exec", "rw"), bind("/b", place / "source")
        )
        shown = mounts_of(output(host.runtime(root_rt), made, MOUNTINFO))
        assert not {"nosuid", "noexec", "ro"} & shown["/a"].options
        assert {"nosuid", "noexec", "ro"} <= shown["/b"].options


def test_a_bind_leaves_the_flags_of_its_source_on_the_host(
    root_rt: Runtime, root_bundle: MakeBundle, place: Path
) -> None:
    (place / "source").mkdir()
    with own_mounts("shared") as host:
        host.sh('mount -t tmpfs t "$1"', str(place / "source"))
        output(
            host.runtime(root_rt),
            with_mounts(root_bundle("true"), bind("/a", place / "source", "ro", "noexec")),
        )
        assert not {"ro", "noexec"} & mounts_of(read(host.pid, "mountinfo"))[str(place / "source")].options


@pytest.mark.covers("mounts[].options bind")
def test_a_bind_without_r_leaves_the_mounts_below_behind(
    root_rt: Runtime, root_bundle: MakeBundle, place: Path
) -> None:
    (place / "source/sub").mkdir(parents=True)
    with own_mounts() as host:
        host.sh('mount -t tmpfs t "$1/sub"; touch "$1/sub/file"', str(place / "source"))
        made = with_mounts(
            root_bundle(), bind("/a", place / "source"), mount("/b", "none", place / "source", "rbind", "ro")
        )
        said = output(host.runtime(root_rt), made, f"ls /a/sub /b/sub; {MOUNTINFO}")
        shown = mounts_of("\n".join(line for line in said.splitlines() if " - " in line))
        assert "/b/sub" in shown and "/a/sub" not in shown
        # ro is not recursive (rro is): as mount(8) and other runtimes have it.
        assert "ro" in shown["/b"].options and "rw" in shown["/b/sub"].options


def test_sysfs_is_new_and_read_only_and_cgroups_below_it_too(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    said = output(root_rt, root_bundle(), f"ls /sys/class/net; {MOUNTINFO}")
    assert said.splitlines()[0] != "eth0"
    below = {point: item for point, item in mounts_of(said_mounts(said)).items() if point.startswith("/sys")}
    assert all("ro" in item.options for item in below.values())


def said_mounts(said: str) -> str:
    return "\n".join(line for line in said.splitlines() if " - " in line)


def test_the_container_sees_its_own_cgroup_of_each_hierarchy(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    if not Path("/sys/fs/cgroup/pids").is_dir():
        pytest.skip("this host has no cgroup v1 hierarchies")
    said = output(
        root_rt,
        root_bundle(),
        "cat /sys/fs/cgroup/*/cgroup.procs | sort -u; ls -d /sys/fs/cgroup/*/*/ 2>&1; true",
    )
    assert "1" in said.splitlines() and "No such file" in said


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_a_link_for_proc_or_sys_is_not_followed(name: str, root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = root_bundle()
    (made.rootfs / name).rmdir()
    (made.rootfs / name).symlink_to("/tmp")
    error = refusal(root_rt, made)
    assert f"/{name}" in error and "symbolic link" in error


def test_a_destination_through_a_link_stays_in_the_rootfs(
    root_rt: Runtime, root_bundle: MakeBundle, place: Path
) -> None:
    (place / "outside").mkdir()
    made = root_bundle()
    (made.rootfs / "absolute").symlink_to(place / "outside")
    (made.rootfs / "dots").symlink_to("../../../../../../../.." + str(place / "outside"))
    (made.rootfs / "etc/proc").symlink_to("/proc/1/root")
    with_mounts(made, mount("/absolute/a", "tmpfs", "t"), mount("/dots/b", "tmpfs", "t"))
    shown = mounts_of(output(root_rt, made, MOUNTINFO))
    assert {f"{place}/outside/a", f"{place}/outside/b"} <= set(shown)
    assert list((place / "outside").iterdir()) == []
    with_mounts(made, mount("/etc/proc/x", "tmpfs", "t"))
    assert "/etc/proc/x" in refusal(root_rt, made)


@pytest.mark.covers("run --no-pivot")
def test_no_pivot_works_and_leaves_no_whole_proc_or_sys_of_the_host(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    root_rt.ok("run", "--no-pivot", "--detach", "--bundle", str(root_bundle("exec sleep 1000").path), "c")
    pid = root_rt.state("c")["pid"]
    assert sorted(os.listdir(f"/proc/{pid}/root")) == sorted(os.listdir(root_rt_rootfs(root_rt)))
    shown = Path(f"/proc/{pid}/mountinfo").read_text()
    whole = [line for line in shown.splitlines() if " - proc " in line and line.split()[3] == "/"]
    assert len(whole) == 1


def root_rt_rootfs(rt: Runtime) -> str:
    return str(rt.state("c")["bundle"]) + "/rootfs"


def test_no_pivot_makes_a_chroot_that_a_new_root_does_not_escape(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    said = output(root_rt, root_bundle(), "ls /../..; cd /..; pwd; ls -d ../../home 2>&1; true", "--no-pivot")
    assert "/" in said.splitlines() and "No such file" in said


@pytest.mark.covers("root.readonly")
def test_a_read_only_rootfs_holds_for_root(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = root_bundle("touch /x 2>&1; touch /dev/shm/x && echo made")
    made.config["root"]["readonly"] = True
    made.write()
    first, last = output(root_rt, made).splitlines()
    assert "Read-only" in first and last == "made"
    assert not (made.rootfs / "x").exists()


@pytest.mark.covers("linux.maskedPaths", "linux.readonlyPaths")
def test_masks_and_read_only_paths_hold_for_root(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    script = "wc -c < /proc/keys; ls -A /sys/firmware; echo h 2>&1 > /proc/sys/kernel/domainname; true"
    first, last = output(root_rt, root_bundle(f"({script}) 2>&1")).splitlines()
    assert first == "0" and "Read-only" in last


def test_the_host_s_network_may_have_a_new_sysfs_of_root_s(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = set_namespace(root_bundle(), "network", absent=True)
    assert output(root_rt, made, "ls /sys/class/net").split() == sorted(os.listdir("/sys/class/net"))


@pytest.mark.covers("mounts[].type")
def test_an_image_in_a_file_of_overlays_is_root_s_to_mount(
    root_rt: Runtime, root_bundle: MakeBundle, place: Path
) -> None:
    # The layers on a tmpfs: an overlay does not take an overlay's directories as its upper one.
    (place / "layers").mkdir()
    with own_mounts() as host:
        host.sh(
            'mount -t tmpfs t "$1"; cd "$1"; mkdir one two upper work; echo 1 > one/file; : > two/file',
            str(place / "layers"),
        )
        layers = place / "layers"
        data = (f"lowerdir={layers}/one:{layers}/two", f"upperdir={layers}/upper,workdir={layers}/work")
        made = with_mounts(root_bundle(), mount("/o", "overlay", "overlay", *data))
        assert output(host.runtime(root_rt), made, "cat /o/file; rm /o/file; ls /o") == "1"
