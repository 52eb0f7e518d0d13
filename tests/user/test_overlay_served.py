"""--overlay where the kernel refuses one: fuse-overlayfs serves the rootfs, and nothing of it is left.

The refusal is real: below lie two overlays already, and the kernel stacks no more.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import OwnMounts, own_mounts, refusal, subordinate, told
from lab.runtime import Runtime
from lab.users import User
from lab.waiting import PATIENCE, until

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="needs root, to stack overlays and to open /dev/fuse"),
    pytest.mark.skipif(not shutil.which("fuse-overlayfs"), reason="needs fuse-overlayfs: apt install"),
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse"),
]
NOTICE = (
    "--overlay: an overlay of the kernel's -> fuse-overlayfs, which is slower: the kernel refuses one here"
)
STACK = """
cd "$1"; mkdir stack; mount -t tmpfs tmpfs stack; cd stack; mkdir 1 2 u1 w1 u2 w2
mount -t overlay -o "lowerdir=$1/rootfs,upperdir=u1,workdir=w1" one 1
mount -t overlay -o "lowerdir=1,upperdir=u2,workdir=w2" two 2
chown --reference="$1/rootfs" u1 u2 1 2
mount --move 2 "$1/rootfs"
"""


@pytest.fixture
def mounts(place: Path) -> Iterator[OwnMounts]:
    """Mounts in which /dev/fuse is open to all, as it is where udev runs."""
    with own_mounts() as made:
        made.sh('mknod -m 666 "$1/fuse" c 10 229; mount --bind "$1/fuse" /dev/fuse', str(place))
        yield made


@pytest.fixture
def here(rt: Runtime, mounts: OwnMounts) -> Iterator[Runtime]:
    runtime = mounts.runtime(rt)
    yield runtime
    runtime.clean()
    wait_for_none(rt.user)  # the next test counts its own


@pytest.fixture
def stacked(bundle: MakeBundle, mounts: OwnMounts) -> Bundle:
    made = bundle("true")
    mounts.sh(STACK, str(made.path))
    return made


def servers(user: User) -> list[int]:
    """The programs that serve overlays to the user's containers, and what keeps them."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == user.uid:
                words = (entry / "cmdline").read_bytes()
                if b"lowerdir=lower," in words:
                    found.append(int(entry.name))
        except OSError:
            pass
    return found


def wait_for_none(user: User) -> None:
    until(lambda: not servers(user), lambda: f"none serves; there are {servers(user)}")


@pytest.mark.covers("run --overlay")
def test_the_rootfs_is_served_and_that_is_said(
    here: Runtime, stacked: Bundle, mounts: OwnMounts, alice: User
) -> None:
    script = "echo new > /etc/new; echo more >> /etc/passwd; rm /bin/ls; mkdir /d; chmod 1777 /d"
    script += "; stat -c '%a %u' / /d; cat /etc/new; grep -c ' / / .* - fuse ' /proc/self/mountinfo"
    said, notice = told(here, stacked, f"{script}; test -e /bin/ls || echo gone", "--overlay")
    assert said.splitlines() == ["755 0", "1777 0", "new", "1", "gone"]
    assert NOTICE in notice and "invalid argument" in notice and "hint: Linux 5.11 or newer" in notice
    inside = mounts.sh('cd "$1/rootfs"; ls etc bin', str(stacked.path)).split()
    assert "new" not in inside and "ls" in inside
    wait_for_none(alice)


@pytest.mark.covers("run --overlay-dir")
def test_changes_are_kept(here: Runtime, stacked: Bundle, place: Path, alice: User) -> None:
    alice.owns(place)
    kept = place / "kept: with, signs"
    told(here, stacked, "echo new > /etc/new; rm /bin/ls", "--overlay-dir", str(kept))
    assert (kept / "upper/etc/new").read_text() == "new\n"
    said, _ = told(here, stacked, "cat /etc/new; test -e /bin/ls || echo gone", "--overlay-dir", str(kept))
    assert said == "new\ngone"
    wait_for_none(alice)


def test_an_upper_directory_that_cannot_be_one_is_served_too(
    here: Runtime, bundle: MakeBundle, mounts: OwnMounts, place: Path, alice: User
) -> None:
    """An overlay as the upper one: what a container in a container has."""
    made = bundle("true")
    mounts.sh(
        'cd "$1"; mkdir l kept; mount -t tmpfs tmpfs l; cd l; mkdir l u w; '
        'mount -t overlay -o lowerdir=l,upperdir=u,workdir=w kept ../kept; chown "$2" ../kept',
        str(place),
        f"{alice.uid}:{alice.gid}",
    )
    said, notice = told(here, made, "echo new > /etc/new; cat /etc/new", "--overlay-dir", str(place / "kept"))
    assert said == "new" and NOTICE in notice
    assert mounts.sh('cat "$1/kept/upper/etc/new"', str(place)) == "new\n"


def test_with_a_range_of_ids_owners_are_kept_apart(here: Runtime, stacked: Bundle, alice: User) -> None:
    kinds = ("bounding", "effective", "permitted")
    stacked.change(
        lambda config: config["process"].update(capabilities={kind: ["CAP_CHOWN"] for kind in kinds})
    )
    script = "chown 33:34 /etc/passwd; stat -c %u:%g /etc/passwd /; tr -s ' ' < /proc/self/uid_map"
    said, _ = told(here, stacked, script, "--overlay", "--idmap", "full")
    assert said.split("\n")[:2] == ["33:34", "0:0"] and str(subordinate(alice)) in said


def test_another_user_of_the_container_reads_and_writes_what_its_modes_say(
    here: Runtime, stacked: Bundle
) -> None:
    stacked.change(lambda config: config["process"].update(user={"uid": 33, "gid": 34}))
    script = "cat /etc/passwd > /dev/null && echo read; echo x > /tmp/x && stat -c %u /tmp/x"
    script += "; touch /etc/x || echo closed"
    said, _ = told(here, stacked, f"({script}) 2>/dev/null", "--overlay", "--idmap", "full")
    assert said.split() == ["read", "33", "closed"]


@pytest.mark.covers("create --overlay", "exec", "delete")
@pytest.mark.parametrize("end", ["kill", "force", "keeper"])
def test_nothing_is_left_of_it_however_the_container_ends(
    end: str, here: Runtime, stacked: Bundle, alice: User
) -> None:
    stacked.run("exec sleep 1000")
    done = here("create", "--overlay", "--bundle", str(stacked.path), "box")
    assert done.returncode == 0 and NOTICE in done.stderr
    assert NOTICE.split(": ")[-1] in here.state("box")["degraded"][0]["why"]
    here.ok("start", "box")
    here.ok("exec", "box", "sh", "-c", "echo here > /etc/here")
    assert here.ok("exec", "box", "cat", "/etc/here") == "here\n"
    (server,) = servers(alice)
    assert "fuse-overlayfs" not in here.ok("exec", "box", "sh", "-c", "cat /proc/[0-9]*/cmdline")
    if end == "keeper":
        keeper = int(Path(f"/proc/{server}/stat").read_text().rsplit(")", 1)[1].split()[1])
        os.kill(keeper, signal.SIGKILL)
    if end == "force":
        here.ok("delete", "--force", "box")
    else:
        os.kill(here.state("box")["pid"], signal.SIGKILL)
        here.wait_for("box", "stopped")
        here.ok("delete", "box")
    wait_for_none(alice)
    assert list(here.root.iterdir()) == []


def test_when_the_server_dies_files_fail_and_nothing_hangs(
    here: Runtime, stacked: Bundle, alice: User
) -> None:
    stacked.run("exec sleep 1000")
    assert here("run", "--detach", "--overlay", "--bundle", str(stacked.path), "box").returncode == 0
    (server,) = servers(alice)
    pidfd = os.pidfd_open(server)
    os.kill(server, signal.SIGKILL)
    # Not by its command line, which is gone before its descriptors are: a request between is aborted instead.
    assert select.select([pidfd], [], [], PATIENCE)[0]
    os.close(pidfd)
    done = here("exec", "box", "cat", "/etc/passwd")
    assert done.returncode != 0 and "not connected" in done.stderr
    here.ok("delete", "--force", "box")


def test_strict_wants_the_kernel_s(here: Runtime, stacked: Bundle) -> None:
    said = refusal(here, stacked, "--overlay", before=("--degrade=strict",))
    assert "--overlay: an overlay of the kernel's is not possible: the kernel refuses one here" in said


def test_without_the_program_both_causes_are_told(here: Runtime, stacked: Bundle, mounts: OwnMounts) -> None:
    mounts.sh(f"mount --bind /dev/null {shutil.which('fuse-overlayfs')}")
    said = refusal(here, stacked, "--overlay")
    assert "the kernel refuses one here: invalid argument, and fuse-overlayfs is not installed" in said
    assert "hint: sudo apt install fuse-overlayfs" in said


def test_without_the_device_both_causes_are_told(here: Runtime, stacked: Bundle, mounts: OwnMounts) -> None:
    mounts.sh("umount /dev/fuse; chmod 600 /dev/fuse")
    said = refusal(here, stacked, "--overlay")
    assert (
        "the kernel refuses one here: invalid argument, and fuse-overlayfs needs /dev/fuse: permission"
        in said
    )
    assert "hint: sudo chmod 0666 /dev/fuse" in said


def test_a_server_that_ends_at_once_is_quoted(
    here: Runtime, stacked: Bundle, mounts: OwnMounts, place: Path, alice: User
) -> None:
    program = place / "ends"
    program.write_text("#!/bin/sh\necho 'cannot serve: no reason' >&2\nexit 1\n")
    program.chmod(0o755)
    mounts.sh(f"mount --bind {program} {shutil.which('fuse-overlayfs')}")
    assert "--overlay: fuse-overlayfs has ended: cannot serve: no reason" in refusal(
        here, stacked, "--overlay"
    )
    wait_for_none(alice)


def test_no_program_of_the_host_s_serves_who_could_trace_it(here: Runtime, stacked: Bundle) -> None:
    """With the host's pids the container's root would see it, in its own user namespace."""
    stacked.change(
        lambda config: config["linux"].update(
            namespaces=[item for item in config["linux"]["namespaces"] if item["type"] != "pid"]
        )
    )
    assert "rt: --overlay: " in refusal(here, stacked, "--overlay")
