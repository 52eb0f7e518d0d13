"""What is read out of /proc about cgroups: recorded evidence in a directory of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootless_rt import cgroups
from rootless_rt.cgroups.host import CgroupView

HYBRID_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:7 - cgroup cgroup rw,cpu,cpuacct
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
HYBRID_OWN = "9:name=systemd:/\n5:devices:/jail\n1:cpu,cpuacct:/\n0::/a:b\n"


def evidence(root: Path, mountinfo: str, own: str) -> CgroupView:
    proc = root / "proc/self"
    proc.mkdir(parents=True)
    (proc / "mountinfo").write_text(mountinfo)
    (proc / "cgroup").write_text(own)
    return cgroups.view(str(root))


def test_controllers_on_v1_with_a_v2_tree_beside_them_are_hybrid(tmp_path: Path) -> None:
    view = evidence(tmp_path, HYBRID_MOUNTS, HYBRID_OWN)
    top = f"{tmp_path}/sys/fs/cgroup"
    assert view.mode == "hybrid"
    assert view.unified == top + "/unified"
    assert view.mounts == {
        "cpu": top + "/cpu,cpuacct",
        "cpuacct": top + "/cpu,cpuacct",
        "devices": top + "/devices",
        "name=systemd": top + "/systemd",
    }
    assert view.own_dir("devices") == top + "/devices/jail"
    assert view.own_dir("cpu") == top + "/cpu,cpuacct"
    assert view.own_dir() == top + "/unified/a:b"
    assert view.own_dir("memory") is None


def test_controllers_alone_are_v1(tmp_path: Path) -> None:
    lines = "".join(line + "\n" for line in HYBRID_MOUNTS.splitlines() if "cgroup2" not in line)
    view = evidence(tmp_path, lines, HYBRID_OWN)
    assert (view.mode, view.unified, view.own_dir()) == ("v1", None, None)


def test_nothing_to_read_is_mode_none(tmp_path: Path) -> None:
    assert cgroups.view(str(tmp_path)).mode == "none"


def test_a_v2_tree_at_the_usual_place_needs_no_table_of_mounts(tmp_path: Path) -> None:
    top = tmp_path / "sys/fs/cgroup"
    (top / "user.slice/x.scope").mkdir(parents=True)
    (top / "cgroup.controllers").touch()
    (top / "user.slice/x.scope/cgroup.procs").touch()
    view = evidence(tmp_path, "garbage\n", "0::/user.slice/x.scope\n")
    assert (view.mode, view.unified) == ("v2", str(top))
    assert view.own_dir() == f"{top}/user.slice/x.scope"


def test_a_bind_mount_of_our_own_v2_cgroup_is_seen_through(tmp_path: Path) -> None:
    top = tmp_path / "sys/fs/cgroup"
    top.mkdir(parents=True)
    (top / "cgroup.controllers").touch()
    line = "50 23 0:38 /user.slice/x.scope /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    view = evidence(tmp_path, line, "0::/user.slice/x.scope/below\n")
    assert view.mode == "v2"
    assert view.own_dir() == f"{top}/below"


@pytest.mark.parametrize(("root", "own"), [("/../..", "/"), ("/", "/../other"), ("/a", "/ab")])
def test_an_own_cgroup_that_the_mount_does_not_show_has_no_directory(
    tmp_path: Path, root: str, own: str
) -> None:
    view = evidence(tmp_path, f"50 23 0:38 {root} /mnt rw - cgroup2 none rw\n", f"0::{own}\n")
    assert view.own_dir() is None


def test_escaped_mount_points_are_read_as_they_are(tmp_path: Path) -> None:
    view = evidence(tmp_path, "50 23 0:38 / /my\\040mnt\\134x rw - cgroup2 none rw\n", "0::/\n")
    assert view.unified == f"{tmp_path}/my mnt\\x"


def test_a_copy_of_a_hierarchy_elsewhere_does_not_hide_the_usual_one(tmp_path: Path) -> None:
    copy = "32 31 0:29 / /jail/devices rw - cgroup cgroup rw,devices\n"
    copy += "33 31 0:38 / /jail/v2 rw - cgroup2 cgroup2 rw\n"
    view = evidence(tmp_path, copy + HYBRID_MOUNTS + copy, HYBRID_OWN)
    assert view.mounts["devices"] == f"{tmp_path}/sys/fs/cgroup/devices"
    assert view.unified == f"{tmp_path}/sys/fs/cgroup/unified"


def test_what_is_mounted_on_top_counts(tmp_path: Path) -> None:
    """Inside a container the host's tree may lie below the container's own, on the same mount points."""
    mounts = (
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        "36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices\n"
        "50 23 0:50 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        "51 50 0:33 /jail /sys/fs/cgroup/devices ro,relatime - cgroup cgroup rw,devices\n"
    )
    view = evidence(tmp_path, mounts, "5:devices:/jail\n")
    assert view.own_dir("devices") == f"{tmp_path}/sys/fs/cgroup/devices"
