"""The full path of root without a user namespace, and root's containers with one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle, Config
from lab.inside import (
    OwnMounts,
    held,
    map_ids,
    mounts_of,
    output,
    own_mounts,
    read,
    refusal,
    set_namespace,
    told,
)
from lab.leftovers import cgroups_named
from lab.runtime import Runtime

from rootless_rt import cgroups

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the privileged path is root's")

MOUNTINFO = "cat /proc/self/mountinfo"
FIRST = 100000
DEFAULTS = {"null": "1:3", "zero": "1:5", "full": "1:7", "random": "1:8", "urandom": "1:9", "tty": "5:0"}


def give(path: Path, uid: int) -> None:
    subprocess.run(["chown", "-R", "-h", f"{uid}:{uid}", str(path)], check=True)


def allow(bundle: Bundle, *names: str) -> Bundle:
    def change(config: Config) -> None:
        config["process"]["capabilities"] = {
            kind: [f"CAP_{name}" for name in names] for kind in ("bounding", "effective", "permitted")
        }

    return bundle.change(change)


@pytest.fixture
def mapped(root_bundle: MakeBundle) -> Bundle:
    """A bundle of root's whose container has a user namespace; its rootfs belongs to the root in there."""
    made = map_ids(set_namespace(root_bundle(), "user"), (0, FIRST, 65536))
    give(made.rootfs, FIRST)
    made.path.chmod(0o755)
    return made


@contextmanager
def cgroup2() -> Iterator[OwnMounts]:
    """A view of the host in which cgroup v2 is all there is."""
    with own_mounts() as host:
        try:
            host.sh("umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup")
        except AssertionError as error:
            pytest.skip(f"a cgroup2 file system cannot be mounted here: {error}")
        yield host


# Without a user namespace


@pytest.mark.covers("process.user.uid", "process.user.gid", "run")
def test_root_is_the_host_s_root(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = root_bundle("cat /proc/self/uid_map; touch /made")
    assert output(root_rt, made).split() == ["0", "0", "4294967295"]
    assert (made.rootfs / "made").stat().st_uid == 0


def test_default_devices_are_nodes_of_their_own(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    names = " ".join(f"/dev/{name}" for name in DEFAULTS)
    said = output(root_rt, root_bundle(f"stat -c '%n %F %a %u:%g %t:%T' {names}; {MOUNTINFO}"))
    for line, (name, number) in zip(said.splitlines(), DEFAULTS.items(), strict=False):
        assert line == f"/dev/{name} character special file 666 0:0 {number}"
    assert not [
        point for point in mounts_of("\n".join(said.splitlines()[len(DEFAULTS) :])) if "null" in point
    ]


def test_the_links_of_dev_are_there(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    script = "for name in fd stdin stdout stderr ptmx; do readlink /dev/$name; done"
    assert output(root_rt, root_bundle(script)).split() == [
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
        "pts/ptmx",
    ]


@pytest.mark.covers("linux.devices")
def test_devices_of_the_config_have_their_kind_number_mode_and_owner(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    made = root_bundle("cd /dev; stat -c '%n %F %a %u:%g %t:%T' sub/deep/char block pipe old null")
    made.config["linux"]["devices"] = [
        {
            "path": "/dev/sub/deep/char",
            "type": "c",
            "major": 10,
            "minor": 229,
            "fileMode": 0o640,
            "uid": 7,
            "gid": 8,
        },
        {"path": "/dev/block", "type": "b", "major": 7, "minor": 300, "fileMode": 0o600},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o622, "uid": 9},
        {"path": "/dev/old", "type": "u", "major": 4, "minor": 64},
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 1},
    ]
    made.write()
    assert output(root_rt, made).splitlines() == [
        "sub/deep/char character special file 640 7:8 a:e5",
        "block block special file 600 0:0 7:12c",
        "pipe fifo 622 9:0 0:0",
        "old character special file 666 0:0 4:40",
        "null character special file 600 1:0 1:3",
    ]


def test_a_device_is_not_made_over_something_else(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = root_bundle()
    (made.rootfs / "taken").write_text("a file")
    made.config["linux"]["devices"] = [{"path": "/taken", "type": "c", "major": 1, "minor": 3}]
    made.write()
    assert "linux.devices[0]: /taken" in refusal(root_rt, made)
    assert (made.rootfs / "taken").read_text() == "a file"


def test_a_device_through_a_link_stays_in_the_rootfs(
    root_rt: Runtime, root_bundle: MakeBundle, place: Path
) -> None:
    (place / "outside").mkdir()
    made = root_bundle("stat -c %t:%T /link/node")
    (made.rootfs / "link").symlink_to(place / "outside")
    made.config["linux"]["devices"] = [{"path": "/link/node", "type": "c", "major": 1, "minor": 3}]
    made.write()
    assert output(root_rt, made) == "1:3"
    assert list((place / "outside").iterdir()) == []


@pytest.mark.covers("process.capabilities")
def test_the_capabilities_are_those_of_the_config(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = root_bundle("grep ^Cap /proc/self/status")
    made.config["process"]["capabilities"] = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN"],
        "inheritable": ["CAP_KILL"],
        "ambient": ["CAP_KILL"],
    }
    made.write()
    said = dict(line.split() for line in output(root_rt, made).splitlines())
    bounding, kill = 1 << 0 | 1 << 5 | 1 << 21, 1 << 5
    # A program of root's gets the bounding set with its inheritable one: capabilities(7).
    assert int(said["CapBnd:"], 16) == bounding
    assert int(said["CapInh:"], 16) == kill
    user = made.config["process"]["user"]
    user["uid"] = user["gid"] = 1000
    made.write()
    said = dict(line.split() for line in output(root_rt, made).splitlines())
    assert [int(said[f"Cap{name}:"], 16) for name in ("Prm", "Eff", "Inh", "Bnd", "Amb")] == [
        kill,
        kill,
        kill,
        bounding,
        kill,
    ]


@pytest.mark.covers("process.user")
def test_a_user_and_its_groups_are_set(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = root_bundle("id -u; id -g; id -G; grep ^CapEff /proc/self/status")
    made.config["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 20]}
    made.write()
    said = output(root_rt, made).splitlines()
    assert said[:3] == ["1000", "1001", "1001 5 20"] and int(said[3].split()[1], 16) == 0


# Cgroups and devices


def directories(pid: int) -> dict[str, Path]:
    """Controllers -> the cgroup's directory on the host, for each hierarchy that is mounted."""
    found = {}
    for line in read(pid, "cgroup").splitlines():
        _, names, path = line.split(":", 2)
        plain = names.removeprefix("name=") or "unified"
        root = Path("/sys/fs/cgroup") / plain
        if root.is_dir():
            found[plain] = root / path.lstrip("/")
    return found


def test_a_cgroup_is_made_in_each_hierarchy_and_removed_again(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    pid = held(root_rt, root_bundle(), "held-in-cgroups")
    own = directories(os.getpid())
    found = directories(pid)
    if not found:
        pytest.skip("this host has no cgroup v1 hierarchies")
    assert set(found) == set(own)
    for name, path in found.items():
        assert path != own[name] and str(pid) in (path / "cgroup.procs").read_text().split()
    root_rt.ok("delete", "--force", "held-in-cgroups")
    assert [path for path in found.values() if path.exists()] == []


def test_a_container_of_this_session_shares_no_cgroup_with_those_of_others(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    """Whatever its id: sessions beside each other have containers of the same."""
    if cgroups.view().mode == "v2":
        pytest.skip("on a v2 host a session stays where it is")
    pid, session = held(root_rt, root_bundle()), f"/rt-tests-{os.getpid()}/"
    own, found = ([f"{line}/" for line in read(who, "cgroup").splitlines()] for who in (os.getpid(), pid))
    shared = [line for line, ours in zip(found, own, strict=True) if session in ours and session not in line]
    assert shared == []


@pytest.mark.covers("linux.cgroupsPath")
def test_the_path_of_the_cgroup_is_the_config_s(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = root_bundle()
    made.config["linux"]["cgroupsPath"] = f"/rt-test-{os.getpid()}/inner"
    pid = held(root_rt, made)
    found = directories(pid)
    assert all(path.parts[-2:] == (f"rt-test-{os.getpid()}", "inner") for path in found.values())
    root_rt.ok("delete", "--force", "held")
    assert [path for path in found.values() if path.parent.exists()] == []


@pytest.mark.covers("linux.cgroupsPath")
def test_a_cgroup_made_for_a_path_stays_while_others_are_in_it(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    parent = f"rt-test-{os.getpid()}"
    made = root_bundle()
    made.config["linux"]["cgroupsPath"] = f"/{parent}/mid/inner"
    found = [path.parents[1] for path in directories(held(root_rt, made)).values()]
    if not found:
        pytest.skip("this host has no cgroup v1 hierarchies")
    (found[0] / "other").mkdir()
    try:
        root_rt.ok("delete", "--force", "held")
        assert [path for path in found if path.exists()] == [found[0]]
        assert not (found[0] / "mid").exists()
    finally:
        (found[0] / "other").rmdir()
        found[0].rmdir()


def test_a_failed_create_leaves_no_cgroup(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = root_bundle(["/no/such/program"])
    made.config["linux"]["cgroupsPath"] = f"/rt-test-{os.getpid()}-failed"
    made.write()
    refusal(root_rt, made)
    # Not a glob: what other tests remove meanwhile is an error to it.
    assert cgroups_named(f"rt-test-{os.getpid()}-failed", 0) == []


@pytest.mark.covers("linux.resources.devices")
def test_a_device_that_no_rule_allows_cannot_be_opened(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    if not Path("/sys/fs/cgroup/devices").is_dir():
        pytest.skip("this host has no devices controller of cgroup v1")
    script = "mknod /tmp/kmsg c 1 11; (: > /tmp/kmsg) 2>/dev/null && echo open; : > /dev/null && echo null"
    made = allow(root_bundle(script), "MKNOD")
    made.config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    made.write()
    assert output(root_rt, made).splitlines() == ["null"]
    rule = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rwm"}
    made.config["linux"]["resources"]["devices"].append(rule)
    made.write()
    (made.rootfs / "tmp/kmsg").unlink()
    assert output(root_rt, made).splitlines() == ["open", "null"]


# With a user namespace


@pytest.mark.covers("linux.uidMappings", "linux.gidMappings")
def test_root_of_a_user_namespace_is_the_mapped_id_outside(root_rt: Runtime, mapped: Bundle) -> None:
    made = allow(mapped.run("touch /made; chown 33 /made; stat -c %u /made; cat /proc/self/uid_map"), "CHOWN")
    said = output(root_rt, made).split()
    assert said == ["33", "0", str(FIRST), "65536"]
    assert (mapped.rootfs / "made").stat().st_uid == FIRST + 33
    pid = held(root_rt, mapped)
    assert f"Uid:\t{FIRST}\t{FIRST}" in read(pid, "status")
    assert f"Groups:\t{FIRST}" in read(pid, "status") or "Groups:\t \n" in read(pid, "status")


def test_devices_are_bound_in_a_user_namespace(root_rt: Runtime, mapped: Bundle) -> None:
    shown = mounts_of(output(root_rt, mapped, MOUNTINFO))
    assert {f"/dev/{name}" for name in DEFAULTS} <= set(shown)
    assert f"gid={FIRST + 5}" in shown["/dev/pts"].data
    assert output(root_rt, mapped, "echo x > /dev/null; head -c 1 /dev/zero | wc -c") == "1"


@pytest.mark.covers("--degrade")
def test_a_device_that_the_host_lacks_is_an_error_for_root_unless_it_may_degrade(
    root_rt: Runtime, mapped: Bundle
) -> None:
    mapped.config["linux"]["devices"] = [{"path": "/dev/lacking", "type": "c", "major": 10, "minor": 5}]
    mapped.write()
    assert "linux.devices[0]" in refusal(root_rt, mapped)
    done = root_rt("--degrade=warn", "run", "--bundle", str(mapped.path), "c")
    assert done.returncode == 0 and "linux.devices[0]" in done.stderr


def test_a_rootfs_of_the_host_s_root_is_refused_with_the_place_that_cannot_be_made(
    root_rt: Runtime, mapped: Bundle
) -> None:
    give(mapped.rootfs, 0)
    shutil.rmtree(mapped.rootfs / "sys")
    error = refusal(root_rt, mapped)
    assert "/sys" in error and "make it there beforehand" in error


def test_a_user_namespace_of_root_s_still_gets_a_cgroup(root_rt: Runtime, mapped: Bundle) -> None:
    own, found = directories(os.getpid()), directories(held(root_rt, mapped))
    if not found:
        pytest.skip("this host has no cgroup v1 hierarchies")
    assert [name for name in found if found[name] == own[name]] == []


def test_the_bundle_of_a_user_namespace_may_be_closed_to_its_root(root_rt: Runtime, mapped: Bundle) -> None:
    mapped.path.chmod(0o700)
    assert output(root_rt, mapped, "echo ran") == "ran"


# cgroup v2


def test_a_container_on_cgroup_v2_sees_its_own_cgroup_alone(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    made = set_namespace(root_bundle(), "cgroup")
    script = (
        "grep ^0:: /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs | head -n 1; ls -d /sys/fs/cgroup/*/; "
    )
    with cgroup2() as host:
        said, notice = told(host.runtime(root_rt), made.run(script + MOUNTINFO + "; true"), None, "--keep")
        lines = said.splitlines()
        assert lines[:2] == ["0::/", "1"], (lines[:2], notice)
        shown = mounts_of("\n".join(line for line in lines[2:] if " - " in line))
        assert shown["/sys/fs/cgroup"].kind == "cgroup2" and "ro" in shown["/sys/fs/cgroup"].options
        assert [line for line in lines[2:] if line.startswith("/sys")] == []
        path = json.loads((root_rt.root / "told/state.json").read_text())["cgroup"]["path"]
        host.sh('test -e "$1/cgroup.procs"', path)
        host.runtime(root_rt).ok("delete", "told")
        host.sh('test ! -e "$1"', path)


@pytest.mark.covers("linux.resources.devices")
def test_device_rules_hold_on_cgroup_v2(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    script = "mknod /tmp/kmsg c 1 11; (: > /tmp/kmsg) 2>/dev/null && echo open; : > /dev/null && echo null"
    made = allow(root_bundle(script), "MKNOD")
    with cgroup2() as host:
        said, notice = told(host.runtime(root_rt), made)
        if "not enforced" in notice:
            pytest.skip(notice)
        assert said.splitlines() == ["null"]


def test_without_permission_on_cgroup_v2_a_container_runs_where_it_is(
    rt: Runtime, bundle: MakeBundle
) -> None:
    made = set_namespace(bundle(), "cgroup")
    with cgroup2() as host:
        said, _ = told(
            host.runtime(rt), made, "grep ^0:: /proc/self/cgroup; touch /sys/fs/cgroup/x 2>&1; true"
        )
        assert said.startswith("0::/") and ("Read-only" in said or "denied" in said)
