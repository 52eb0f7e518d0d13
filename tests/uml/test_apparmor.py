"""AppArmor profiles on containers, under a kernel that enforces them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from lab.machines.machine import Machine, MachineBundle

EVERYTHING = (
    "file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, mqueue, dbus, userns,"
)
DETACHED = "flags=(attach_disconnected,mediate_deleted)"
PROFILES = f"""
profile rt-test-box {DETACHED} {{ {EVERYTHING} deny /secret r, }}
profile rt-test-other {DETACHED} {{ {EVERYTHING} deny /other r, }}
profile rt-test-caller {DETACHED} {{ {EVERYTHING} }}
"""
SECRET = "cat /proc/self/attr/apparmor/current; cat /secret"
USERS = pytest.mark.parametrize("user", ["root", "alice"])


@pytest.fixture(scope="module")
def enforcing(machine: Machine) -> Iterator[Machine]:
    """The machine with the profiles above loaded."""
    machine.ok("apparmor_parser --replace", stdin=PROFILES)
    yield machine
    machine.ok("apparmor_parser --remove", stdin=PROFILES)


@pytest.fixture
def box(enforcing: Machine, user: str) -> Iterator[MachineBundle]:
    """A bundle with /secret and /other under the profile rt-test-box; its container is called box."""
    made = enforcing.bundle(SECRET, user=user)
    enforcing.ok(f"echo told >{made.path}/rootfs/secret; echo told >{made.path}/rootfs/other", user)
    made.config["process"]["apparmorProfile"] = "rt-test-box"
    made.write()
    yield made
    enforcing.rt("delete", "--force", "box", user=user)


def held(box: MachineBundle) -> None:
    """Have the container `box` run for a while."""
    box.config["process"]["args"] = ["/bin/sleep", "1000"]
    box.write()
    done = box.machine.rt("run", "--detach", "--bundle", box.path, "box", user=box.user)
    assert done.code == 0, done


@USERS
@pytest.mark.covers("process.apparmorProfile")
def test_a_profile_confines_the_program(box: MachineBundle, user: str) -> None:
    done = box.machine.rt("run", "--bundle", box.path, "box", user=user)
    assert done.stdout == "rt-test-box (enforce)\n"
    assert done.code == 1 and "Permission denied" in done.stderr


@USERS
def test_without_new_privileges_allowed_or_not_it_is_the_same(box: MachineBundle, user: str) -> None:
    box.config["process"]["noNewPrivileges"] = not box.config["process"].get("noNewPrivileges")
    box.write()
    assert box.machine.rt("run", "--bundle", box.path, "box", user=user).stdout == "rt-test-box (enforce)\n"


@USERS
def test_the_profile_counts_from_the_program_on_and_not_for_its_hooks(box: MachineBundle, user: str) -> None:
    say = "cat /proc/self/attr/apparmor/current >/said; cat /secret >>/said"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", say], "env": ["PATH=/bin:/usr/bin"]}
    box.config["hooks"] = {"startContainer": [hook]}
    box.config["root"]["readonly"] = False
    box.write()
    assert box.machine.rt("create", "--bundle", box.path, "box", user=user).code == 0
    pid = json.loads(box.machine.rt("state", "box", user=user).stdout)["pid"]
    waiting = box.machine.ok(f"cat /proc/{pid}/attr/apparmor/current", user)
    assert not waiting.startswith("rt-test-box")
    assert box.machine.rt("start", "box", user=user).code == 0
    said = box.machine.ok(f"cat {box.path}/rootfs/said", user)
    assert said.endswith("told\n") and not said.startswith("rt-test-box"), said


@USERS
@pytest.mark.covers("exec --apparmor")
def test_exec_enters_under_the_containers_profile_or_the_one_it_is_given(
    box: MachineBundle, user: str
) -> None:
    held(box)
    script = "cat /proc/self/attr/apparmor/current /secret; cat /other"

    def said(*options: str) -> list[str]:
        return box.machine.rt("exec", *options, "box", "sh", "-c", script, user=user).stdout.splitlines()

    assert said() == ["rt-test-box (enforce)", "told"]
    assert said("--apparmor", "rt-test-other") == ["rt-test-other (enforce)", "told"]
    assert said("--apparmor", "unconfined") == ["unconfined", "told", "told"]


@USERS
@pytest.mark.covers("exec --process")
def test_a_process_from_a_file_is_under_the_containers_profile_unless_it_names_one(
    box: MachineBundle, user: str
) -> None:
    held(box)
    process = {"cwd": "/", "args": ["/bin/cat", "/proc/self/attr/apparmor/current"]}
    for profile, wanted in (
        (None, "rt-test-box (enforce)\n"),
        ("rt-test-other", "rt-test-other (enforce)\n"),
    ):
        file = f"{box.path}/process.json"
        box.machine.write(file, json.dumps({**process, "apparmorProfile": profile}), user)
        assert box.machine.rt("exec", "--process", file, "box", user=user).stdout == wanted


@USERS
def test_a_profile_that_is_not_loaded_is_an_error_before_anything_is_made(
    box: MachineBundle, user: str
) -> None:
    box.config["process"]["apparmorProfile"] = "rt-test-none"
    box.write()
    done = box.machine.rt("create", "--bundle", box.path, "box", user=user)
    assert done.code == 1, done
    assert 'process.apparmorProfile: no AppArmor profile "rt-test-none" is loaded' in done.stderr
    assert "hint: " in done.stderr
    assert box.machine.rt("list", "--quiet", user=user).stdout == ""


@USERS
def test_selinux_is_not_what_this_kernel_runs(box: MachineBundle, user: str) -> None:
    box.config["process"].update(apparmorProfile="", selinuxLabel="u:r:t")
    box.write()
    done = box.machine.rt("run", "--bundle", box.path, "box", user=user)
    assert done.code == 1 and "process.selinuxLabel" in done.stderr


@USERS
def test_a_caller_whose_own_profile_forbids_the_change_is_told(box: MachineBundle, user: str) -> None:
    done = box.machine.run(f"aa-exec -p rt-test-caller rt run --bundle {box.path} box", user)
    assert done.code == 1 and "told" not in done.stdout, done
    assert 'AppArmor does not let this process change to "rt-test-box"' in done.stderr


@pytest.mark.parametrize("user", ["root"])
def test_a_mount_over_the_place_of_the_profile_is_found(box: MachineBundle, user: str) -> None:
    """CVE-2019-16884, CVE-2025-52881: the program must not run with its profile written to something else."""
    mount = "mount --bind /proc/self/comm /proc/$pid/attr/apparmor/exec"
    cover = "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); " + mount
    box.config["hooks"] = {
        "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", cover], "env": ["PATH=/usr/bin:/bin"]}]
    }
    box.write()
    done = box.machine.rt("run", "--bundle", box.path, "box", user=user)
    assert done.code == 1 and done.stdout == "", done
    assert "self/attr/apparmor/exec: something is mounted over it" in done.stderr
