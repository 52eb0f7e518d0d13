"""Namespaces of an ordinary user's container: new ones, joined ones, and the host's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle, Config
from lab.inside import held, map_ids, mounts_of, output, own_mounts, refusal, set_namespace, subordinate, told
from lab.runtime import Runtime
from lab.users import User, can_make_users

FILES = {
    "pid": "pid",
    "network": "net",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
}
MOUNTINFO = "cat /proc/self/mountinfo"
needs_root = pytest.mark.skipif(not can_make_users(), reason="root has to make somebody else's namespace")


def ns(pid: int | str, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{FILES[kind]}")


def only(bundle: Bundle, **namespaces: str | Path | None) -> Bundle:
    """Exactly these namespaces: a path joins, None makes a new one."""

    def change(config: Config) -> None:
        config["linux"]["namespaces"] = [
            {"type": kind, **({"path": str(path)} if path else {})} for kind, path in namespaces.items()
        ]
        if "uts" not in namespaces or namespaces["uts"]:
            config.pop("hostname", None)
        if namespaces.get("user"):
            config["linux"].pop("uidMappings", None)
            config["linux"].pop("gidMappings", None)

    return bundle.change(change)


@pytest.fixture
def first(rt: Runtime, bundle: MakeBundle) -> int:
    """The pid of a container of alice's with every namespace of its own."""
    made = bundle()
    for kind in ("network", "cgroup"):
        set_namespace(made, kind)
    return held(rt, made, "first")


@pytest.fixture
def somebody_else() -> Iterator[int]:
    """A process of root's in namespaces of its own."""
    process = subprocess.Popen(
        ["unshare", "-m", "-u", "-i", "-n", "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.read(1) == b"\n"
    yield process.pid
    process.kill()
    process.communicate()


# New


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.covers("linux.namespaces[].type")
def test_a_new_namespace_is_not_the_host_s(kind: str, rt: Runtime, bundle: MakeBundle) -> None:
    made = set_namespace(bundle(), kind)
    pid = held(rt, made)
    assert ns(pid, kind) != ns("self", kind)


def test_the_program_is_pid_1_and_sees_no_other_process(rt: Runtime, bundle: MakeBundle) -> None:
    assert output(rt, bundle(), "echo $$; echo /proc/[0-9]*").split() == ["1", "/proc/1"]


def test_a_new_network_has_its_loopback_up_and_nothing_else(rt: Runtime, bundle: MakeBundle) -> None:
    said = output(rt, set_namespace(bundle(), "network"), "ip -o link; ip -o addr; tail -n +3 /proc/net/dev")
    links = [line for line in said.splitlines() if "link/" in line]
    assert all(" lo:" in line or "NOARP" in line or "state DOWN" in line for line in links)
    assert "127.0.0.1/8" in said and "LOOPBACK,UP" in said


def test_a_fresh_sysfs_shows_the_container_s_own_network(rt: Runtime, bundle: MakeBundle) -> None:
    made = set_namespace(bundle(), "network")
    for item in made.config["mounts"]:
        if item["destination"] == "/sys":
            item.update(type="sysfs", source="sysfs", options=["nosuid", "noexec", "nodev", "ro"])
    made.write()
    assert output(rt, made, "ls /sys/class/net") == "lo"


@pytest.mark.covers("hostname", "domainname")
def test_host_and_domain_name_stay_inside(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    made.config["hostname"], made.config["domainname"] = "inside", "example.org"
    said = output(rt, made, "hostname; cat /proc/sys/kernel/domainname")
    assert said.split() == ["inside", "example.org"]
    assert os.uname().nodename != "inside"


def test_a_config_without_a_user_namespace_gets_one_and_says_so(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    made = set_namespace(bundle(), "user", absent=True)
    del made.config["linux"]["uidMappings"], made.config["linux"]["gidMappings"]
    made.write()
    said, notice = told(rt, made, "cat /proc/self/uid_map")
    assert said.split() == ["0", str(alice.uid), "1"] and "linux.namespaces" in notice
    assert "linux.namespaces" in refusal(rt, made, before=("--degrade=strict",))


@pytest.mark.covers("linux.uidMappings", "linux.gidMappings")
def test_a_range_of_ids_is_mapped(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    made = map_ids(
        bundle(),
        (0, alice.uid, 1),
        (1, subordinate(alice), 65536),
        gids=((0, alice.gid, 1), (1, subordinate(alice, "gid"), 65536)),
    )
    made.config["process"]["capabilities"] = {
        kind: ["CAP_CHOWN"] for kind in ("bounding", "effective", "permitted")
    }
    script = "cat /proc/self/uid_map; touch /tmp/file; chown 33:34 /tmp/file; stat -c %u:%g /tmp/file"
    assert output(rt, made, script).splitlines()[-1] == "33:34"
    status = (made.rootfs / "tmp/file").stat()
    assert (status.st_uid, status.st_gid) == (subordinate(alice) + 32, subordinate(alice, "gid") + 33)


# Joined


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "pid", "cgroup"])
@pytest.mark.covers("linux.namespaces[].path")
def test_one_namespace_of_an_own_container_is_joined(
    kind: str, rt: Runtime, bundle: MakeBundle, first: int
) -> None:
    paths: dict[str, str | Path | None] = dict.fromkeys(("mount", "pid", "ipc", "uts"))
    paths.update({"user": f"/proc/{first}/ns/user", kind: f"/proc/{first}/ns/{FILES[kind]}"})
    pid = held(rt, only(bundle(), **paths), "second")
    assert ns(pid, kind) == ns(first, kind)
    assert ns(pid, "user") == ns(first, "user")
    assert ns(pid, "mount") != ns(first, "mount")


def test_a_pod_shares_all_but_its_files(rt: Runtime, bundle: MakeBundle, first: int) -> None:
    shared = {kind: f"/proc/{first}/ns/{file}" for kind, file in FILES.items() if kind != "mount"}
    made = only(bundle(), mount=None, **shared)
    said = output(rt, made, "hostname; cat /proc/1/cmdline | tr '\\0' ' '; cat /proc/self/uid_map")
    assert "sleep 1000" in said
    assert said.splitlines()[0] == "rt"


def test_ending_a_container_that_joined_leaves_the_other_alone(
    rt: Runtime, bundle: MakeBundle, first: int
) -> None:
    shared = {kind: f"/proc/{first}/ns/{FILES[kind]}" for kind in ("user", "pid", "ipc")}
    held(rt, only(bundle(), mount=None, uts=None, **shared), "second")
    rt.ok("delete", "--force", "second")
    assert rt.state("first")["status"] == "running"


@pytest.mark.covers("linux.namespaces[].path")
def test_a_mount_namespace_is_joined_with_the_rootfs_in_it(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    options = {"user": alice.uid, "group": alice.gid, "extra_groups": []} if os.getuid() == 0 else {}
    maker = subprocess.Popen(  # type: ignore[call-overload]
        ["unshare", "-U", "-r", "-m", "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE, **options
    )
    try:
        assert maker.stdout.read(1) == b"\n"
        paths = {"user": f"/proc/{maker.pid}/ns/user", "mount": f"/proc/{maker.pid}/ns/mnt"}
        made = only(bundle(), pid=None, ipc=None, uts=None, **paths)
        pid = held(rt, made)
        assert ns(pid, "mount") == ns(maker.pid, "mount")
        assert os.listdir(f"/proc/{pid}/root/") == os.listdir(made.rootfs)
    finally:
        maker.kill()
        maker.communicate()


# What cannot be joined


def test_a_file_of_another_kind_is_named(rt: Runtime, bundle: MakeBundle, first: int) -> None:
    error = refusal(rt, set_namespace(bundle(), "network", f"/proc/{first}/ns/uts"))
    assert f"/proc/{first}/ns/uts" in error and "not a network namespace" in error


@pytest.mark.parametrize("path", ["/no/such/file", "/proc/self/ns/nothing"])
def test_a_missing_file_is_named(path: str, rt: Runtime, bundle: MakeBundle) -> None:
    error = refusal(rt, set_namespace(bundle(), "ipc", path))
    assert f"linux.namespaces (ipc): {path}: no such file or directory" in error


@pytest.mark.parametrize("path", ["/etc/passwd", "/dev/null", "/"])
def test_a_file_that_is_no_namespace_is_named(path: str, rt: Runtime, bundle: MakeBundle) -> None:
    assert "is not a network namespace" in refusal(rt, set_namespace(bundle(), "network", path))


def test_a_pipe_does_not_make_it_wait(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    os.mkfifo(place / "fifo", 0o666)
    (place / "fifo").chmod(0o666)
    assert "is not a network namespace" in refusal(rt, set_namespace(bundle(), "network", place / "fifo"))


def test_a_relative_path_is_refused(rt: Runtime, bundle: MakeBundle) -> None:
    assert "absolute" in refusal(rt, set_namespace(bundle(), "network", "ns/net"))


def test_the_user_namespace_one_is_in_cannot_be_joined(rt: Runtime, bundle: MakeBundle) -> None:
    error = refusal(rt, only(bundle(), user="/proc/self/ns/user", mount=None, pid=None, ipc=None))
    assert "user" in error


@needs_root
@pytest.mark.parametrize("kind", ["network", "ipc", "uts"])
def test_the_namespaces_of_somebody_else_are_closed(
    kind: str, rt: Runtime, bundle: MakeBundle, somebody_else: int, place: Path
) -> None:
    path = f"/proc/{somebody_else}/ns/{FILES[kind]}"
    made = bundle()
    made.config.pop("hostname")
    assert f"{path}: permission denied" in refusal(rt, set_namespace(made, kind, path))
    with own_mounts() as host:
        file = place / "ns"
        file.touch()
        host.sh('mount --bind "$1" "$2"', path, str(file))
        error = refusal(host.runtime(rt), set_namespace(made, kind, file))
        assert kind in error and "not permitted" in error and "owner of the user namespace" in error


@needs_root
def test_the_user_namespace_of_somebody_else_is_closed(rt: Runtime, bundle: MakeBundle, bare: User) -> None:
    other = subprocess.Popen(
        ["unshare", "-U", "sh", "-c", "echo; exec sleep 1000"],
        stdout=subprocess.PIPE,
        user=bare.uid,
        group=bare.gid,
        extra_groups=[],
    )
    try:
        assert other.stdout is not None and other.stdout.read(1) == b"\n"
        error = refusal(rt, only(bundle(), user=f"/proc/{other.pid}/ns/user", mount=None, pid=None, ipc=None))
        assert "user" in error and "permission denied" in error
    finally:
        other.kill()
        other.communicate()


# The host's


def test_the_host_s_network_leaves_a_read_only_sys(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    for item in made.config["mounts"]:
        if item["destination"] == "/sys":
            item.update(type="sysfs", source="sysfs", options=["nosuid", "noexec", "nodev", "ro"])
    made.write()
    said, notice = told(rt, made, MOUNTINFO)
    assert "a new sysfs" in notice and "/sys, read-only" in notice
    below = [item for point, item in mounts_of(said).items() if (point + "/").startswith("/sys/")]
    assert below and all({"ro", "nosuid", "nodev", "noexec"} <= item.options for item in below)
    assert "sysfs" in refusal(rt, made, before=("--degrade=strict",))


def test_the_host_s_pids_come_with_the_host_s_proc(rt: Runtime, bundle: MakeBundle) -> None:
    made = set_namespace(bundle(), "pid", absent=True)
    said, notice = told(rt, made, f"echo $$; ls -d /proc/{os.getpid()}")
    assert said.split()[0] != "1" and f"/proc/{os.getpid()}" in said
    assert "a new proc" in notice and "the host's /proc" in notice
    assert "pid namespace" in refusal(rt, made, before=("--degrade=strict",))


def test_the_host_s_ipc_without_a_queue_to_bind_leaves_the_place_empty(
    rt: Runtime, bundle: MakeBundle
) -> None:
    if os.path.exists("/dev/mqueue"):
        pytest.skip("this host has /dev/mqueue")
    made = set_namespace(bundle(), "ipc", absent=True)
    said, notice = told(rt, made, "ls /dev/mqueue; touch /dev/mqueue/x 2>/dev/null || echo refused")
    assert said == "refused"
    assert "a new mqueue -> an empty read-only directory" in notice and '{"type": "ipc"}' in notice
    error = refusal(rt, made, before=("--degrade=strict",))
    assert "mqueue" in error and '{"type": "ipc"}' in error


@needs_root
def test_the_host_s_ipc_comes_with_the_host_s_queues(rt: Runtime, bundle: MakeBundle) -> None:
    with own_mounts() as host:
        # A /dev of its own: a directory made in the real one would be there for everybody.
        host.sh(
            "mount -t tmpfs dev /dev; mkdir /dev/mqueue; mount -t mqueue mqueue /dev/mqueue; "
            "for node in null:3 zero:5 full:7 random:8 urandom:9; do "
            "mknod -m 666 /dev/${node%:*} c 1 ${node#*:}; done; mknod -m 666 /dev/tty c 5 0"
        )
        made = set_namespace(bundle(), "ipc", absent=True)
        said, notice = told(host.runtime(rt), made, MOUNTINFO)
        assert "a new mqueue" in notice and mounts_of(said)["/dev/mqueue"].kind == "mqueue"
        assert "mqueue" in refusal(host.runtime(rt), made, before=("--degrade=strict",))


def test_without_a_mount_namespace_nothing_is_made(rt: Runtime, bundle: MakeBundle) -> None:
    made = set_namespace(bundle(), "mount", absent=True)
    assert "mount namespace" in refusal(rt, made)


@pytest.mark.covers("hostname")
def test_a_host_name_without_its_namespace_is_refused(rt: Runtime, bundle: MakeBundle) -> None:
    assert "hostname" in refusal(rt, set_namespace(bundle(), "uts", absent=True))
