"""Which mounts of a container come from the host, by mountinfo alone."""

from __future__ import annotations

import pytest

from rootless_rt.container.mounttable import Mount, controllers, mount_id, sort_out
from rootless_rt.errors import RtError

HOST = """\
27 1 254:0 / / rw - ext4 /dev/vda rw
22 27 0:21 / /proc rw - proc proc rw
23 27 0:22 / /sys rw - sysfs sysfs rw
24 27 0:6 / /dev rw - devtmpfs devtmpfs rw
39 23 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
50 27 8:1 / /srv rw - xfs /dev/sda rw
51 50 8:2 / /srv/disk rw - xfs /dev/sdb rw
"""
OWN = """\
74 42 254:0 /b/rootfs / rw - ext4 /dev/vda rw
75 74 0:40 / /proc rw - proc proc rw
76 74 0:41 / /dev rw - tmpfs tmpfs rw
85 75 0:40 /sys /proc/sys ro - proc proc rw
64 75 0:6 /null /proc/keys rw - devtmpfs devtmpfs rw
86 75 0:46 / /proc/acpi ro - tmpfs tmpfs ro
80 74 0:44 / /sys ro - sysfs sysfs ro
"""


def table(text: str) -> list[Mount]:
    return [Mount(line) for line in text.splitlines()]


def sorted_out(more: str = "", mounts: list[dict[str, object]] = [], **linux: object) -> dict[str, object]:  # noqa: B006
    usual = [
        {"destination": "/proc", "type": "proc"},
        {"destination": "/sys", "type": "sysfs"},
        {"destination": "/sys/fs/cgroup", "type": "cgroup"},
    ]
    config = {"mounts": [*usual, *mounts], "linux": {"maskedPaths": ["/proc/keys", "/proc/acpi"], **linux}}
    return dict(sort_out(table(OWN + more), table(HOST), config, "/run/rt/c").sources)


def bind(destination: str, source: str) -> dict[str, object]:
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind"]}


def test_file_systems_of_its_own_and_masks_need_nothing_of_the_host():
    assert sorted_out() == {"/dev/null": {"host": "/dev/null"}}


def test_bind_mounts_are_found_by_their_place_or_by_their_source_behind_a_link():
    line = "90 74 8:1 /data /place rw - xfs /dev/sda rw\n"
    assert sorted_out(line, [bind("/place/", "/srv/data")])["/place"] == {"mount": "/place"}
    assert sorted_out(line, [bind("/link", "/srv/data")])["/place"] == {"mount": "/link"}
    assert sorted_out(line)["/place"] == {"host": "/srv/data"}


def test_what_lies_in_a_bind_mount_goes_with_it():
    lines = "90 74 8:1 / /data rw - xfs /dev/sda rw\n91 90 8:2 / /data/disk rw - xfs /dev/sdb rw\n"
    found = sorted_out(lines, [bind("/data", "/srv")])
    assert found["/data/disk"] == {"within": "/data", "path": "/disk"}


def test_a_directory_of_the_rootfs_bound_in_it_is_the_container_s_own():
    assert "/ro" not in sorted_out("90 74 254:0 /b/rootfs/ro /ro ro - ext4 /dev/vda rw\n")


def test_cgroups_are_the_host_s_but_in_a_cgroup_namespace():
    line = "90 80 0:36 /c /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n"
    assert sorted_out(line)["/sys/fs/cgroup/pids"] == {"cgroup": "rw,pids"}
    assert "/sys/fs/cgroup/pids" not in sorted_out(line, namespaces=[{"type": "cgroup"}])
    v2 = "90 80 0:36 /c /sys/fs/cgroup ro master:6 - cgroup2 cgroup2 rw,nsdelegate\n"
    assert sorted_out(v2)["/sys/fs/cgroup"] == {"cgroup": ""}
    assert controllers("") == []
    assert controllers("rw,xattr,name=systemd") == ["name=systemd"]


def test_files_of_the_state_directory_are_known_by_their_names():
    line = "90 74 254:0 /run/rt/c/notify /run/notify rw - ext4 /dev/vda rw\n"
    assert sorted_out(line)["/run/notify"] == {"own": "notify"}


def test_names_with_spaces_are_read():
    line = r"90 74 8:1 /my\040data /my\040place rw - xfs /dev/sda rw"
    assert sorted_out(line + "\n")["/my place"] == {"host": "/srv/my data"}


def test_an_overlay_of_rt_and_what_nobody_can_find_again_are_refused():
    overlay = table("74 42 0:99 / / rw - overlay overlay rw\n")
    with pytest.raises(RtError, match="on an overlay that rt made"):
        sort_out(overlay, table(HOST), {}, "/run/rt/c")
    with pytest.raises(RtError, match="comes from where the host cannot see it"):
        host = table(HOST.replace("50 27 8:1 / /srv", "50 27 8:1 /part /srv"))
        config = {"mounts": [], "linux": {}}
        sort_out(table(OWN + "90 74 8:1 /other /x rw - xfs /dev/sda rw\n"), host, config, "/run/rt/c")


def test_the_mount_of_a_descriptor_is_read():
    assert mount_id("pos:\t0\nflags:\t0100000\nmnt_id:\t24\nino:\t3\n") == 24
    assert mount_id("pos:\t0\n") is None
