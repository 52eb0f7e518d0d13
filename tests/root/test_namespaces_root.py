"""Namespaces that root joins: another container's, and those of any process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle, Config
from lab.inside import held, map_ids, output, own_mounts, refusal, set_namespace
from lab.runtime import Runtime
from lab.waiting import has_ended, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="any process's namespaces are root's to join")

FILES = {"pid": "pid", "network": "net", "mount": "mnt", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup"}


def ns(pid: int | str, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{FILES.get(kind, kind)}")


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process of no container, pid 1 of namespaces of its own."""
    outer = subprocess.Popen(
        [
            "unshare",
            "-m",
            "-n",
            "-i",
            "-u",
            "-C",
            "-p",
            "-f",
            "--kill-child",
            "sh",
            "-c",
            "echo; exec sleep 1000",
        ],
        stdout=subprocess.PIPE,
    )
    assert outer.stdout is not None and outer.stdout.read(1) == b"\n"
    yield int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text())
    outer.kill()
    outer.communicate()


@pytest.fixture
def first(root_rt: Runtime, root_bundle: MakeBundle) -> int:
    return held(root_rt, set_namespace(root_bundle(), "cgroup"), "first")


def joining(bundle: Bundle, kind: str, pid: int) -> Bundle:
    def change(config: Config) -> None:
        if kind == "uts":
            config.pop("hostname")

    return set_namespace(bundle, kind, f"/proc/{pid}/ns/{FILES[kind]}").change(change)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.covers("linux.namespaces[].path")
def test_a_namespace_of_any_process_is_joined(
    kind: str, root_rt: Runtime, root_bundle: MakeBundle, sleeper: int
) -> None:
    pid = held(root_rt, joining(root_bundle(), kind, sleeper))
    assert ns(pid, kind) == ns(sleeper, kind) != ns("self", kind)
    others = [other for other in FILES if other not in (kind, "cgroup")]
    assert all(ns(pid, other) not in (ns(sleeper, other), ns("self", other)) for other in others)


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "mount"])
def test_a_namespace_of_another_container_is_joined(
    kind: str, root_rt: Runtime, root_bundle: MakeBundle, first: int
) -> None:
    pid = held(root_rt, joining(root_bundle(), kind, first), "second")
    assert ns(pid, kind) == ns(first, kind)
    root_rt.ok("delete", "--force", "second")
    assert root_rt.state("first")["status"] == "running"


def test_a_pod_of_root_s_shares_pid_network_ipc_and_uts(
    root_rt: Runtime, root_bundle: MakeBundle, first: int
) -> None:
    made = root_bundle("hostname; tr '\\0' ' ' < /proc/1/cmdline; ls /sys/class/net")
    for kind in ("pid", "network", "ipc", "uts"):
        joining(made, kind, first) if kind != "uts" else set_namespace(made, kind, f"/proc/{first}/ns/uts")
    made.config.pop("hostname")
    made.write()
    assert "sleep 1000" in output(root_rt, made)


def test_a_user_namespace_is_joined_by_root(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    one = map_ids(set_namespace(root_bundle(), "user"), (0, 100000, 65536))
    two = set_namespace(root_bundle(), "user")
    for made in (one, two):
        subprocess.run(["chown", "-R", "-h", "100000:100000", str(made.rootfs)], check=True)
    pid = held(root_rt, one, "first")
    set_namespace(two, "user", f"/proc/{pid}/ns/user")
    assert output(root_rt, two, "cat /proc/self/uid_map; id -u; touch /made").split() == [
        "0",
        "100000",
        "65536",
        "0",
    ]
    assert (two.rootfs / "made").stat().st_uid == 100000


def test_the_initial_user_namespace_cannot_be_joined(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    error = refusal(root_rt, set_namespace(root_bundle(), "user", "/proc/self/ns/user"))
    assert "user" in error


@pytest.mark.covers("linux.namespaces[].type")
def test_the_host_s_namespaces_are_shared_where_none_is_named(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    made = root_bundle()
    for kind in ("pid", "network", "ipc", "uts"):
        set_namespace(made, kind, absent=True)
    made.config.pop("hostname")
    made.write()
    pid = held(root_rt, made)
    assert all(ns(pid, kind) == ns("self", kind) for kind in ("pid", "network", "ipc", "uts"))


def test_a_pid_namespace_whose_first_process_has_ended_takes_no_other(
    root_rt: Runtime, root_bundle: MakeBundle, place: Path
) -> None:
    file = place / "pid"
    file.touch()
    outer = subprocess.Popen(
        ["unshare", "-p", "-f", "--kill-child", "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE
    )
    assert outer.stdout is not None and outer.stdout.read(1) == b"\n"
    first = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().strip()
    with own_mounts() as host:
        host.sh('mount --bind "/proc/$1/ns/pid" "$2"', first, str(file))
        outer.kill()
        outer.communicate()
        until(lambda: has_ended(first), "the first process ends")
        error = refusal(host.runtime(root_rt), set_namespace(root_bundle(), "pid", file))
        assert "pid namespace" in error and "has ended" in error


def test_wrong_files_are_named(root_rt: Runtime, root_bundle: MakeBundle, first: int) -> None:
    assert "not a ipc namespace" in refusal(
        root_rt, set_namespace(root_bundle(), "ipc", f"/proc/{first}/ns/net")
    )
    error = refusal(root_rt, set_namespace(root_bundle(), "network", f"/proc/{first}/ns/gone"))
    assert "no such file" in error
