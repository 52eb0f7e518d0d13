"""What users are told when the host stands in the way: id maps, user namespaces, mounts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.inside import refusal, told
from lab.leftovers import Ground
from lab.ranges import map_ranges
from lab.refusals import refused
from lab.runtime import Runtime
from lab.users import User
from lab.wrapped import Wrapped, with_mounts

# Users and user namespaces


def test_a_user_that_is_not_mapped_is_told(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    box = map_ranges(bundle(), alice)
    box.change(lambda config: config["process"].update(user={"uid": 99999, "gid": 0}))
    line, hint = refused(rt, box)
    assert line == (
        "config.json: process.user.uid: cannot set uid to unmapped user: 99999 is not in linux.uidMappings"
    )
    assert "--idmap full" in hint


def test_a_missing_helper_is_told_with_the_package_to_install(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    helper = os.path.realpath(shutil.which("newuidmap") or pytest.skip("needs newuidmap"))
    hidden = with_mounts(rt, f"mount --bind /dev/null {helper}")
    line, hint = refused(hidden, map_ranges(bundle(), alice))
    assert line.startswith("newuidmap is not installed") and "install" in hint


@pytest.mark.parametrize(
    "body",
    [
        "exit 0",
        "exit 1",
        "kill -9 $$",
        "yes | head -c 3000000 >&2; exit 1",
        "printf '\\033]0;x\\n\\377' >&2; exit 2",
    ],
)
def test_a_helper_that_is_another_program_is_an_error_and_nothing_is_left(
    rt: Runtime, bundle: MakeBundle, alice: User, place: Path, body: str
) -> None:
    """First on the caller's PATH: it maps nothing, whatever it says."""
    ground = Ground(rt, "replaced")
    for name in ("newuidmap", "newgidmap"):
        (place / name).write_text(f"#!/bin/sh\n{body}\n")
        (place / name).chmod(0o755)
    environment = {**alice.environment(), "PATH": f"{place}:/usr/bin:/bin"}
    made = map_ranges(bundle(["/bin/id"]), alice)
    done = rt("run", "--bundle", str(made.path), "replaced", env=environment)
    first, *hints = done.stderr.splitlines()
    assert done.returncode == 1 and done.stdout == "" and first.startswith("rt: "), done
    assert len(hints) <= 1 and len(done.stderr) < 3000 and "\x1b" not in done.stderr, done
    ground.clean()


def test_a_user_without_a_range_is_told_the_command_that_grants_one(
    rt: Runtime, bundle: MakeBundle, bare: User
) -> None:
    box = bundle().change(
        lambda config: config["linux"].update(
            uidMappings=[
                {"containerID": 0, "hostID": bare.uid, "size": 1},
                {"containerID": 1, "hostID": 100000, "size": 65536},
            ],
            gidMappings=[{"containerID": 0, "hostID": bare.gid, "size": 1}],
        )
    )
    bare.owns(box.path)
    bare.owns(rt.root)
    line, hint = refused(Runtime(bare, rt.root), box)
    assert line == f"/etc/subuid grants {bare.name} no uids"
    assert hint.startswith("sudo usermod --add-subuids ") and hint.endswith(bare.name)
    rt.user.owns(rt.root)


def test_a_user_without_a_range_runs_what_maps_the_own_id(
    rt: Runtime, bundle: MakeBundle, bare: User
) -> None:
    box = bundle(["/bin/id", "-u"])
    box.change(
        lambda config: config["linux"].update(
            uidMappings=[{"containerID": 0, "hostID": bare.uid, "size": 1}],
            gidMappings=[{"containerID": 0, "hostID": bare.gid, "size": 1}],
        )
    )
    bare.owns(box.path)
    bare.owns(rt.root)
    assert Runtime(bare, rt.root).ok("run", "--bundle", str(box.path), "c") == "0\n"
    rt.user.owns(rt.root)


def test_a_range_that_is_too_small_is_told_with_what_is_granted(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    box = map_ranges(bundle(), alice)
    box.change(lambda config: config["linux"]["uidMappings"][-1].update(size=70000))
    line, hint = refused(rt, box)
    assert " is not granted: /etc/subuid grants " in line and "(line " in line and hint


def test_a_powerless_helper_is_told_with_its_cause(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    line, hint = refused(Wrapped(rt, "setpriv", "--no-new-privs"), map_ranges(bundle(), alice))
    assert line.startswith("no_new_privs is set on this process, so newuidmap runs without its privilege")
    assert "no-new-privileges" in hint


def test_a_bounding_set_without_the_capability_is_told(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    weak = Wrapped(rt, as_root=True, options=("--bounding-set=-setuid",))
    assert "CAP_SETUID is not in this process's bounding set" in refused(weak, map_ranges(bundle(), alice))[0]


def test_a_setuid_helper_in_a_container_like_docker_s_is_told(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    """There root lacks CAP_SYS_ADMIN. `auto` does without the helper then."""
    weak = Wrapped(rt, as_root=True, options=("--bounding-set=-sys_admin",))
    if os.stat(shutil.which("newuidmap") or "").st_mode & 0o4000 == 0:
        pytest.skip("newuidmap has file capabilities here, which are enough")
    line, hint = refused(weak, map_ranges(bundle(), alice))
    assert "newuidmap is setuid root, and so needs CAP_SYS_ADMIN" in line
    assert "chmod u-s /usr/bin/newuidmap && setcap cap_setuid=ep /usr/bin/newuidmap" in hint
    said, notice = told(weak, bundle(), "tr -s ' ' < /proc/self/uid_map", "--idmap", "auto")
    assert said == f"0 {alice.uid} 1" and "your own ids alone: /usr/bin/newuidmap is setuid" in notice
    assert "so needs CAP_SYS_ADMIN" in refusal(weak, bundle("true"), "--idmap", "full")


def test_switched_off_user_namespaces_are_told_with_the_sysctl(rt: Runtime, bundle: MakeBundle) -> None:
    own = [{"containerID": 0, "hostID": 0, "size": 1}]
    box = bundle().change(lambda config: config["linux"].update(uidMappings=own, gidMappings=own))
    script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    off = Wrapped(rt, "unshare", "-Ur", "sh", "-ec", script, "sh")
    line, hint = refused(off, box)
    expected = (
        "cannot make a user namespace: user namespaces are switched off (user.max_user_namespaces is 0)"
    )
    assert line == expected and "sysctl user.max_user_namespaces" in hint


def test_a_masked_proc_is_told_with_the_way_out(rt: Runtime, bundle: MakeBundle) -> None:
    masked = with_mounts(rt, "mount --bind /dev/null /proc/version")
    line, hint = refused(masked, bundle())
    assert "proc on /proc" in line and "operation not permitted" in line
    assert "systempaths=unconfined" in hint


# Mounts


def test_a_missing_bind_source_is_told(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    mount = {"destination": "/mnt", "type": "bind", "source": str(place / "none"), "options": ["bind"]}
    line, hint = refused(rt, bundle().change(lambda config: config["mounts"].append(mount)))
    assert line.startswith("mounts[") and f"{place}/none" in line and "no such file or directory" in line
    assert hint


@pytest.mark.parametrize("option", ["size=banana", "nosuchoption"])
def test_a_mount_option_the_kernel_refuses_is_told_in_its_words(
    rt: Runtime, bundle: MakeBundle, option: str
) -> None:
    mount = {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": [option]}
    line, _ = refused(rt, bundle().change(lambda config: config["mounts"].append(mount)))
    assert line.startswith("mounts[") and "tmpfs on /mnt" in line and option.split("=")[0] in line


def test_a_file_system_nobody_knows_is_told(rt: Runtime, bundle: MakeBundle) -> None:
    mount = {"destination": "/mnt", "type": "nosuchfs", "source": "none"}
    line, hint = refused(rt, bundle().change(lambda config: config["mounts"].append(mount)))
    assert "nosuchfs" in line and "nosuchfs" in hint


@pytest.mark.parametrize(
    ("kind", "advice"), [("ext4", "only root may mount ext4"), ("cgroup2", 'the type "cgroup"')]
)
def test_a_file_system_of_root_s_is_told(kind: str, advice: str, rt: Runtime, bundle: MakeBundle) -> None:
    item = {"destination": "/m", "type": kind, "source": "/dev/null", "options": []}
    box = bundle().change(lambda config: config["mounts"].append(item))
    line, hint = refused(rt, box)
    assert f"{kind} on /m" in line and advice in hint
