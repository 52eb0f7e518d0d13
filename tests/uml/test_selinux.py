"""SELinux contexts on containers, under a permissive kernel that checks them against a policy."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.machines.boot import uml_machine
from lab.machines.debian import Unavailable
from lab.machines.machine import Machine, MachineBundle
from lab.users import User

POLICY = Path(__file__).parents[1] / "data/selinux-small.cil"
LABEL, OTHER, UNKNOWN = "u:r:box_t:s0:c1,c2", "u:r:other_t:s0", "u:r:none_t:s0"
FILE_LABEL = "u:object_r:box_file_t:s0:c1,c2"
USERS = pytest.mark.parametrize("user", ["root", "alice"])
LABELS_OF = """
import os, sys
for path in sys.argv[2:]:
    print(os.getxattr(f"/proc/{sys.argv[1]}/root/{path}", "security.selinux").rstrip(b"\\0").decode())
"""


@pytest.fixture(scope="module")
def labelling(alice: User, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine of its own that runs SELinux, with the policy loaded."""
    if not shutil.which("secilc"):
        pytest.skip("needs a compiler of policies: apt install secilc")
    binary = tmp_path_factory.mktemp("policy") / "policy"
    compile_it = ["secilc", "-M", "true", "-c", "31", "-o", str(binary), "-f", "/dev/null", str(POLICY)]
    subprocess.run(compile_it, check=True)
    try:
        with uml_machine(alice, "selinux") as machine:
            refused = machine.rt("run", "--bundle", labelled(machine, "alice").path, "box")
            assert refused.code == 1 and "needs SELinux" in refused.stderr, "there is no policy yet"
            machine.write("/root/policy", binary.read_bytes())
            machine.ok("mountpoint -q /sys/fs/selinux || mount -t selinuxfs selinuxfs /sys/fs/selinux")
            machine.ok("cat /root/policy >/sys/fs/selinux/load")
            yield machine
    except Unavailable as reason:
        pytest.skip(str(reason))


def labelled(machine: Machine, user: str, script: str = "cat /proc/self/attr/current") -> MachineBundle:
    box = machine.bundle(script, user=user)
    box.config["process"]["selinuxLabel"] = LABEL
    box.config["linux"]["mountLabel"] = FILE_LABEL
    box.write()
    return box


@pytest.fixture
def box(labelling: Machine, user: str) -> Iterator[MachineBundle]:
    """A bundle with labels for its program and its filesystems; its container is called box."""
    yield labelled(labelling, user)
    labelling.rt("delete", "--force", "box", user=user)


def run(box: MachineBundle) -> tuple[int, str, str]:
    done = box.machine.rt("run", "--bundle", box.path, "box", user=box.user)
    return done.code, done.stdout.rstrip("\0"), done.stderr


def held(box: MachineBundle) -> int:
    """Have the container `box` run for a while; its process."""
    box.config["process"]["args"] = ["/bin/sleep", "1000"]
    box.write()
    assert box.machine.rt("run", "--detach", "--bundle", box.path, "box", user=box.user).code == 0
    pid: int = json.loads(box.machine.rt("state", "box", user=box.user).stdout)["pid"]
    return pid


@USERS
@pytest.mark.covers("process.selinuxLabel")
def test_the_program_has_its_label(box: MachineBundle, user: str) -> None:
    assert run(box) == (0, LABEL, "")


@USERS
@pytest.mark.covers("process.selinuxLabel")
def test_the_hooks_before_it_have_not(box: MachineBundle, user: str) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "cat /proc/self/attr/current >/said"]}
    box.config["hooks"] = {"startContainer": [{**hook, "env": ["PATH=/bin"]}]}
    box.config["root"]["readonly"] = False
    box.write()
    assert run(box) == (0, LABEL, "")
    assert box.machine.ok(f"cat {box.path}/rootfs/said", user).rstrip("\0") == "u:r:base_t:s0"


@USERS
@pytest.mark.covers("process.selinuxLabel")
def test_the_keys_label_is_taken_back_once_the_keyring_is_there(box: MachineBundle, user: str) -> None:
    box.config["process"]["args"] = ["/bin/cat", "/proc/self/attr/keycreate", "/proc/self/attr/exec"]
    box.write()
    assert run(box) == (0, "", "")


@USERS
@pytest.mark.covers("linux.mountLabel")
def test_new_filesystems_have_the_mount_label(box: MachineBundle, user: str) -> None:
    box.config["linux"]["maskedPaths"] = ["/sys/firmware"]
    pid = held(box)
    paths = ("dev", "dev/shm", "dev/pts", "dev/mqueue", "sys/firmware")
    found = box.machine.ok(["python3", "-c", LABELS_OF, str(pid), *paths], user).split()
    assert found == [FILE_LABEL] * len(paths)
    own = "u:object_r:base_t:s0"
    assert box.machine.ok(["python3", "-c", LABELS_OF, str(pid), "bin", "proc"], user).split() == [own, own]
    assert box.machine.ok(["python3", "-c", LABELS_OF, "self", "dev/shm"], user).split() == [own], (
        "the host's"
    )


@USERS
@pytest.mark.covers("linux.mountLabel")
def test_a_mounts_own_label_wins(box: MachineBundle, user: str) -> None:
    options = ['mode=755,context="u:object_r:box_t:s0:c0,c1"']
    box.config["mounts"].append(
        {"destination": "/own", "type": "tmpfs", "source": "tmpfs", "options": options}
    )
    pid = held(box)
    assert (
        box.machine.ok(["python3", "-c", LABELS_OF, str(pid), "own"], user) == "u:object_r:box_t:s0:c0,c1\n"
    )


@USERS
@pytest.mark.covers("exec --process-label")
def test_exec_enters_with_the_containers_label_or_the_one_it_is_given(box: MachineBundle, user: str) -> None:
    held(box)
    words = ("box", "cat", "/proc/self/attr/current")
    assert box.machine.rt("exec", *words, user=user).stdout.rstrip("\0") == LABEL
    assert box.machine.rt("exec", "--process-label", OTHER, *words, user=user).stdout.rstrip("\0") == OTHER
    done = box.machine.rt("exec", "--process-label", UNKNOWN, *words, user=user)
    assert (done.code, done.stdout) == (255, "")
    assert f'exec: process.selinuxLabel: the SELinux policy has no context "{UNKNOWN}"' in done.stderr


@USERS
def test_a_label_that_the_policy_does_not_know_is_an_error(box: MachineBundle, user: str) -> None:
    box.config["process"]["selinuxLabel"] = UNKNOWN
    box.write()
    code, said, error = run(box)
    assert (code, said) == (1, "") and f'the SELinux policy has no context "{UNKNOWN}"' in error
    box.config["process"]["selinuxLabel"] = LABEL
    box.config["linux"]["mountLabel"] = "u:object_r:none_t:s0"
    box.write()
    code, said, error = run(box)
    assert (code, said) == (1, "") and "hint: is the label" in error


@USERS
def test_apparmor_is_not_what_this_kernel_runs(box: MachineBundle, user: str) -> None:
    box.config["process"]["apparmorProfile"] = "x"
    box.write()
    code, said, error = run(box)
    assert (code, said) == (1, "") and "process.apparmorProfile" in error
