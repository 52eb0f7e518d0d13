"""Ids that systemd-nsresourced lends, to a user whom no file grants any.

The service is a stand-in here that speaks the protocol and writes real maps; tests/qemu has systemd's own,
and tests/uml has it on a kernel where it lends nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab import lender
from lab.bundles import Bundle
from lab.inside import bind, output, own_mounts, refusal, told, with_mounts
from lab.runtime import Runtime
from lab.users import User

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to run the service that lends")

MAP = "tr -s ' ' < /proc/self/uid_map; tr -s ' ' < /proc/self/gid_map"
LENT = f" 0 {lender.START} 65536"
NAME = "io.systemd.NamespaceResource"
Lend = Callable[..., Runtime]


@pytest.fixture
def lend(bare: User, place: Path) -> Iterator[Lend]:
    """The command as a user without a grant, on a machine where somebody (uid, error) serves the socket."""
    with ExitStack() as stack:

        def start(error: str = "", uid: int = 0) -> Runtime:
            directory = place / "run"
            directory.mkdir()
            os.chown(directory, uid, 0)
            words = [sys.executable, "-I", lender.__file__, str(directory / NAME), str(uid), error]
            service = subprocess.Popen(words, stdout=subprocess.PIPE)
            stack.callback(service.wait)
            stack.callback(service.send_signal, signal.SIGKILL)
            assert service.stdout
            stack.callback(service.stdout.close)
            assert service.stdout.readline() == b"listens\n"
            mounts = stack.enter_context(own_mounts())
            mounts.sh('mkdir -p /run/systemd; mount --bind "$1" /run/systemd', str(directory))
            root = place / "bare-state"
            root.mkdir(mode=0o700)
            bare.owns(root)
            runtime = mounts.runtime(Runtime(bare, root))
            stack.callback(runtime.clean)
            return runtime

        yield start


@pytest.fixture
def theirs(bundle: MakeBundle, bare: User) -> Bundle:
    """A bundle of the user without a grant."""
    made = bundle("true")
    bare.owns(made.path)
    return made


@pytest.mark.covers("run --idmap")
def test_a_range_is_lent_for_users_and_groups(lend: Lend, theirs: Bundle) -> None:
    theirs.change(lambda config: config["process"].update(user={"uid": 33, "gid": 34, "additionalGids": [7]}))
    said = output(lend(), theirs, f"{MAP}; id -u; id -g; id -G", "--idmap", "nsresource")
    assert said.splitlines() == [LENT.strip(), LENT, "33", "34", "34 7"]


@pytest.mark.covers("create --idmap", "exec", "kill", "delete")
def test_the_whole_life_of_a_container_with_lent_ids(lend: Lend, theirs: Bundle) -> None:
    rt = lend()
    theirs.run("exec sleep 1000")
    rt.ok("create", "--idmap", "nsresource", "--bundle", str(theirs.path), "box")
    rt.ok("start", "box")
    assert rt.ok("exec", "--user", "5:6", "box", "id", "-u").strip() == "5"
    status = Path(f"/proc/{rt.state('box')['pid']}/status").read_text()
    assert f"Uid:\t{lender.START}\t" in status, "on the host it is nobody that exists"
    rt.ok("kill", "box", "KILL")
    rt.wait_for("box", "stopped")
    rt.ok("delete", "box")
    assert list(rt.root.iterdir()) == []


def test_files_of_the_caller_are_nobody_s_and_what_is_in_memory_can_be_owned(
    lend: Lend, theirs: Bundle
) -> None:
    kinds = ("bounding", "effective", "permitted")
    theirs.change(
        lambda config: config["process"].update(capabilities={kind: ["CAP_CHOWN"] for kind in kinds})
    )
    script = "stat -c %u /bin; touch /bin/x 2>/dev/null || echo closed"
    script += "; cd /dev/shm; touch x; chown 33 x; stat -c %u x"
    assert output(lend(), theirs, script, "--idmap", "nsresource").split() == ["65534", "closed", "33"]


def test_auto_takes_them_where_nothing_of_the_caller_s_is_written_to(lend: Lend, theirs: Bundle) -> None:
    rt = lend()
    subprocess.run(["chown", "-R", "-h", "0:0", str(theirs.rootfs)], check=True)
    said, notice = told(rt, theirs, MAP, "--idmap", "auto")
    assert said.splitlines()[1] == LENT
    assert "lends the ids, and your files are nobody's" in notice and "usermod --add-subuids" in notice
    assert "/etc/subuid" in refusal(rt, theirs, "--idmap", "auto", before=("--degrade=strict",))


@pytest.mark.parametrize("own", ["rootfs", "bind"])
def test_auto_keeps_the_own_id_where_it_is_wanted(
    own: str, lend: Lend, theirs: Bundle, bare: User, place: Path
) -> None:
    if own == "bind":
        subprocess.run(["chown", "-R", "-h", "0:0", str(theirs.rootfs)], check=True)
        shared = place / "shared"
        shared.mkdir()
        bare.owns(shared)
        (theirs.rootfs / "mnt").mkdir(exist_ok=True)
        with_mounts(theirs, bind("/mnt", shared))
    said, notice = told(lend(), theirs, MAP, "--idmap", "auto")
    assert said.splitlines()[0] == f"0 {bare.uid} 1"
    assert "your own ids alone" in notice and "see --idmap nsresource" in notice


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("io.systemd.NamespaceResource.UserNamespaceInterfaceNotSupported", "runs without the BPF LSM"),
        ("io.systemd.NamespaceResource.NoDynamicRange", "all its ranges are taken"),
        ("org.varlink.service.PermissionDenied", "polkit does not allow it"),
        ("io.example.Other", "io.example.Other"),
    ],
)
def test_a_refusal_is_told_and_leaves_nothing(error: str, reason: str, lend: Lend, theirs: Bundle) -> None:
    said = refusal(lend(error), theirs, "--idmap", "nsresource")
    assert "systemd-nsresourced lends no ids: " in said and reason in said


def test_a_socket_that_is_not_root_s_is_not_spoken_to(lend: Lend, theirs: Bundle, alice: User) -> None:
    said = refusal(lend(uid=alice.uid), theirs, "--idmap", "nsresource")
    assert f"is served by uid {alice.uid}, not by 0" in said


def test_without_the_service_it_is_named(rt: Runtime, bundle: MakeBundle) -> None:
    if os.path.exists("/run/systemd/io.systemd.NamespaceResource"):
        pytest.skip("this machine runs systemd-nsresourced")
    said = refusal(rt, bundle("true"), "--idmap", "nsresource")
    assert "systemd-nsresourced does not listen here" in said and "systemd-container" in said


def test_the_annotation_wants_the_map_that_the_service_gives(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle("true").change(
        lambda config: config.setdefault("annotations", {}).update({"org.rootless-rt.idmap": "nsresource"})
    )
    assert 'annotations["org.rootless-rt.idmap"]: takes nsresource alone' in refusal(rt, made)


@pytest.mark.covers("doctor")
def test_the_doctor_tells_who_lends(lend: Lend) -> None:
    found = json.loads(lend()("doctor", "--format", "json").stdout)["checks"]
    check = next(item for item in found if item["id"] == "RT-IDS-NSRESOURCE")
    assert check["status"] == "ok" and check["why"] == "systemd-nsresourced 257: --idmap nsresource"


def test_the_doctor_tells_why_nobody_lends(lend: Lend) -> None:
    rt = lend("io.systemd.NamespaceResource.UserNamespaceInterfaceNotSupported")
    found = json.loads(rt("doctor", "--format", "json").stdout)["checks"]
    check = next(item for item in found if item["id"] == "RT-IDS-NSRESOURCE")
    assert check["status"] == "degraded" and "BPF LSM" in check["why"]
