"""Namespaces of several owners, joined by one container: each while its owner is within reach."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import held, map_ids, output, set_namespace
from lab.runtime import Runtime
from lab.users import User

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root has to make them")
FILES = {"network": "net", "ipc": "ipc", "uts": "uts", "mount": "mnt", "pid": "pid"}


def ns(pid: int | str, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{FILES.get(kind, kind)}")


def waiting(*argv: str, **options: object) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [*argv, "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE, **options
    )  # type: ignore[call-overload]
    assert process.stdout.read(1) == b"\n"
    return process  # type: ignore[no-any-return]


@pytest.fixture
def host_network() -> Iterator[int]:
    """A process in a network namespace that the host's root owns."""
    process = waiting("unshare", "-n")
    yield process.pid
    process.kill()
    process.communicate()


def in_userns(bundle: Bundle) -> Bundle:
    subprocess.run(["chown", "-R", "-h", "100000:100000", str(bundle.rootfs)], check=True)
    return map_ids(set_namespace(bundle, "user"), (0, 100000, 65536))


@pytest.mark.covers("linux.namespaces[].path")
def test_a_network_of_the_host_s_beside_a_joined_user_namespace(
    root_rt: Runtime, root_bundle: MakeBundle, host_network: int
) -> None:
    first = held(root_rt, in_userns(root_bundle()), "first")
    made = in_userns(root_bundle())
    set_namespace(made, "user", f"/proc/{first}/ns/user")
    made.change(lambda config: [config["linux"].pop(name) for name in ("uidMappings", "gidMappings")])
    set_namespace(made, "network", f"/proc/{host_network}/ns/net")
    for item in made.config["mounts"]:
        if item["type"] == "sysfs":
            item.update(type="none", source="/sys", options=["rbind", "ro"])
    made.write()
    pid = held(root_rt, made, "second")
    assert ns(pid, "network") == ns(host_network, "network")
    assert ns(pid, "user") == ns(first, "user")


@pytest.mark.covers("exec")
def test_a_further_program_enters_namespaces_of_several_owners(
    root_rt: Runtime, root_bundle: MakeBundle, host_network: int
) -> None:
    made = set_namespace(in_userns(root_bundle()), "network", f"/proc/{host_network}/ns/net")
    for item in made.config["mounts"]:
        if item["type"] == "sysfs":
            item.update(type="none", source="/sys", options=["rbind", "ro"])
    made.write()
    pid = held(root_rt, made, "box")
    kinds = ("net", "user", "mnt", "pid", "uts", "ipc")
    script = "".join(f"readlink /proc/self/ns/{kind};" for kind in kinds)
    inside = root_rt.ok("exec", "box", "sh", "-c", script).split()
    assert inside == [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds]


def test_an_ordinary_user_joins_a_user_namespace_and_what_its_parent_owns(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    """Two levels: the network belongs to the outer user namespace, the container joins the inner one."""
    outer = waiting(
        *("unshare", "-U", "-r", "-n", "-m"),
        *("sh", "-c", 'unshare -U -r "$@" & wait', "sh"),
        user=alice.uid,
        group=alice.gid,
        extra_groups=[],
    )
    try:
        children = subprocess.run(
            ["pgrep", "-P", str(outer.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        inner = children[0]
        assert ns(inner, "user") != ns(outer.pid, "user") and ns(inner, "network") == ns(outer.pid, "network")
        made = set_namespace(bundle(), "user", f"/proc/{inner}/ns/user")
        made.change(lambda config: [config["linux"].pop(name) for name in ("uidMappings", "gidMappings")])
        set_namespace(made, "network", f"/proc/{inner}/ns/net")
        said = output(rt, made, "readlink /proc/self/ns/user; readlink /proc/self/ns/net")
        assert said.split() == [ns(inner, "user"), ns(inner, "network")]
    finally:
        subprocess.run(["pkill", "-KILL", "-P", str(outer.pid)], check=False)
        outer.kill()
        outer.communicate()
