"""The options of checkpoint and restore, each at work."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.criu import BIG, TICK, Saver, goes_on, run_script, summed
from lab.waiting import PATIENCE, command, until

from rootless_rt.host.abilities import security_modules

BOX = f"option{os.getpid()}"
SENDER = """
import socket, time
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect("PATH")
number = 0
while True:
    number += 1
    sender.send(b"%d" % number)
    time.sleep(0.05)
"""


def refused(rt: Saver, images: Path, *options: str) -> str:
    done = rt("checkpoint", "--image-path", str(images), *options, BOX)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 2, done.stderr
    return done.stderr


@pytest.mark.covers("checkpoint --file-locks", "restore --file-locks")
def test_file_locks_are_held_on(root_rt: Saver, python: Bundle, images: Path, place: Path) -> None:
    lock = "import fcntl\nlock = open('/srv/lock', 'w')\nfcntl.flock(lock, fcntl.LOCK_EX)\n"
    run_script(python, lock + BIG)
    root_rt.start(BOX, python.path)
    before = summed(place)
    assert "hint: give --file-locks" in refused(root_rt, images)
    root_rt.save(BOX, images, "--file-locks")
    root_rt.bring_back(BOX, images, python.path, "--file-locks")
    assert summed(place) == before
    with open(place / "share/lock") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.covers("checkpoint --ext-unix-sk", "restore --ext-unix-sk")
def test_a_socket_that_leads_out_is_connected_again(
    root_rt: Saver, python: Bundle, images: Path, place: Path
) -> None:
    # CRIU sees both ends in one network namespace only, and connects by the path that the other end has.
    mount = {"destination": str(place), "type": "bind", "source": str(place), "options": ["bind"]}
    python.config["mounts"] += [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}, mount]
    listed = python.config["linux"]["namespaces"]
    python.config["linux"]["namespaces"] = [item for item in listed if item["type"] != "network"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        path = str(place / "socket")
        listener.settimeout(PATIENCE)
        listener.bind(path)
        run_script(python, SENDER.replace("PATH", path))
        root_rt.start(BOX, python.path)
        assert listener.recv(100) == b"1"
        assert "hint: give --ext-unix-sk" in refused(root_rt, images)
        root_rt.save(BOX, images, "--ext-unix-sk")
        listener.setblocking(False)
        heard = [0]
        try:
            while True:
                heard.append(int(listener.recv(100)))
        except BlockingIOError:
            pass
        listener.settimeout(PATIENCE)
        root_rt.bring_back(BOX, images, python.path, "--ext-unix-sk")
        assert int(listener.recv(100)) > heard[-1]


@pytest.mark.covers("checkpoint --link-remap")
def test_an_open_file_that_has_lost_one_of_its_names_is_saved(
    root_rt: Saver, root_bundle: MakeBundle, images: Path
) -> None:
    box = root_bundle(f"echo kept > /one; ln /one /two; exec 9</one; rm /one; {TICK}")
    root_rt.start(BOX, box.path)
    goes_on(box)
    assert "hint: give --link-remap" in refused(root_rt, images)
    root_rt.save(BOX, images, "--link-remap")
    root_rt.bring_back(BOX, images, box.path)
    goes_on(box)
    assert root_rt.ok("exec", BOX, "cat", "/proc/1/fd/9") == "kept\n"


@pytest.mark.covers("checkpoint --tcp-skip-in-flight")
def test_connections_that_are_being_made_can_be_left_out(
    root_rt: Saver, python: Bundle, images: Path, place: Path
) -> None:
    run_script(
        python,
        "import socket\n"
        "server = socket.create_server(('127.0.0.1', 7000))\n"
        "near = socket.create_connection(('127.0.0.1', 7000))\n"
        "data = b''\n" + BIG,
    )
    root_rt.start(BOX, python.path)
    before = summed(place)
    assert "hint: give --tcp-skip-in-flight" in refused(root_rt, images, "--tcp-established")
    root_rt.save(BOX, images, "--tcp-established", "--tcp-skip-in-flight")
    root_rt.bring_back(BOX, images, python.path, "--tcp-established")
    assert summed(place) == before


def pids_cgroup(pid: int) -> Path:
    """Its directory in the hierarchy of v1 that limits processes."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if "pids" in names.split(","):
            return Path(f"/sys/fs/cgroup/{names}{path}")
    pytest.skip("needs the controller pids on cgroup v1, where a cgroup may have both processes and cgroups")


# The limit from the config, or the one at the checkpoint; whether cgroups below come back.
CGROUP_MODES = {
    "": (100, True),
    "soft": (100, True),
    "ignore": (100, False),
    "full": (50, True),
    "strict": (50, True),
}


@pytest.mark.covers("checkpoint --manage-cgroups-mode", "restore --manage-cgroups-mode")
@pytest.mark.parametrize("mode", CGROUP_MODES)
def test_cgroups_come_back_as_the_mode_says(
    root_rt: Saver, root_bundle: MakeBundle, images: Path, mode: str
) -> None:
    limit, below = CGROUP_MODES[mode]
    options = ["--manage-cgroups-mode", mode] if mode else []
    box = root_bundle("sleep 4712 & " + TICK)
    box.config["linux"].setdefault("resources", {})["pids"] = {"limit": 100}
    box.write()
    top = pids_cgroup(root_rt.start(BOX, box.path))
    goes_on(box)
    until(lambda: sleepers(top), "the child sleeps")
    (sleeper,) = sleepers(top)
    (top / "below").mkdir()
    (top / "below/pids.max").write_text("77")
    (top / "below/cgroup.procs").write_text(sleeper)
    root_rt.ok("update", "--pids-limit", "50", BOX)
    root_rt.save(BOX, images, *options)
    assert not top.exists()
    new = pids_cgroup(root_rt.bring_back(f"{BOX}-b", images, box.path, *options))
    goes_on(box)
    assert new.name == f"{BOX}-b" and (new / "pids.max").read_text() == f"{limit}\n"
    assert (new / "below").exists() == below
    if below:
        assert (new / "below/pids.max").read_text() == "77\n"
        assert (new / "below/cgroup.procs").read_text().split() == sleepers(new / "below") != []
    assert sum(len(path.read_text().split()) for path in new.rglob("cgroup.procs")) >= 2


def sleepers(group: Path) -> list[str]:
    """The processes of a cgroup that run the program of its own that lasts."""
    return [pid for pid in (group / "cgroup.procs").read_text().split() if "4712" in command(pid)]


def test_a_cgroup_that_is_there_already_is_not_taken_strictly(
    root_rt: Saver, root_bundle: MakeBundle, images: Path
) -> None:
    box = root_bundle(TICK)
    group = pids_cgroup(root_rt.start(BOX, box.path))
    goes_on(box)
    root_rt.save(BOX, images, "--manage-cgroups-mode", "strict")
    group.mkdir()
    words = ["restore", "-d", "--image-path", str(images), "-b", str(box.path), "--manage-cgroups-mode"]
    done = root_rt(*words, "strict", BOX)
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[0]
        == f"rt: --manage-cgroups-mode strict: the cgroup {group} is there already"
    )
    assert group.exists() and root_rt.ok("list", "-q") == ""
    root_rt.quiet(*words, "soft", BOX)
    goes_on(box)


@pytest.mark.covers("checkpoint --empty-ns", "restore --empty-ns")
def test_a_network_that_is_left_empty_has_its_loopback_device(
    root_rt: Saver, root_bundle: MakeBundle, images: Path
) -> None:
    box = root_bundle(TICK)
    root_rt.start(BOX, box.path)
    root_rt.save(BOX, images, "--empty-ns", "network")
    root_rt.bring_back(BOX, images, box.path, "--empty-ns", "network")
    assert "LOOPBACK,UP" in root_rt.ok("exec", BOX, "ip", "link", "show", "lo")
    done = root_rt("checkpoint", "--image-path", str(images), "--empty-ns", "pid", BOX)
    assert done.stderr == "rt: --empty-ns 'pid': only network can be left empty\n"


@pytest.mark.covers("checkpoint --auto-dedup", "restore --auto-dedup")
def test_memory_that_is_restored_leaves_the_images(
    root_rt: Saver, python: Bundle, images: Path, place: Path
) -> None:
    run_script(python, BIG)
    root_rt.start(BOX, python.path)
    before = summed(place)
    root_rt.save(BOX, images, "--auto-dedup")

    def blocks() -> int:
        return sum(path.stat().st_blocks for path in images.glob("pages-*.img"))

    full = blocks()
    root_rt.bring_back(BOX, images, python.path, "--auto-dedup")
    assert summed(place) == before
    assert blocks() < full / 2


@pytest.mark.covers("checkpoint --pre-dump", "checkpoint --parent-path")
def test_a_chain_of_three_saves_what_has_changed_or_the_kernel_is_named(
    root_rt: Saver, python: Bundle, images: Path, place: Path
) -> None:
    run_script(python, BIG)
    root_rt.start(BOX, python.path)
    before = summed(place)
    chain = [place / "first", place / "second", images]
    done = root_rt("checkpoint", "--pre-dump", "--image-path", str(chain[0]), BOX)
    if done.returncode:  # the kernel of tests/qemu can
        assert done.stderr.splitlines()[0] == (
            "rt: --pre-dump does not work here: the kernel cannot tell which memory has changed"
            " (CONFIG_MEM_SOFT_DIRTY)"
        )
        assert root_rt.state(BOX)["status"] == "running" and not chain[0].exists()
        return
    root_rt.save(BOX, chain[1], "--pre-dump", "--parent-path", "../first")
    root_rt.save(BOX, chain[2], "--parent-path", "../second")
    sizes = [sum(path.stat().st_size for path in step.glob("pages-*.img")) for step in chain]
    assert sizes[2] < sizes[0] / 2
    root_rt.bring_back(BOX, images, python.path)
    assert summed(place) == before


@pytest.mark.covers("--criu")
def test_the_program_is_named_or_found(root_rt: Saver, root_bundle: MakeBundle, images: Path) -> None:
    box = root_bundle(TICK)
    root_rt.start(BOX, box.path)
    criu = root_rt.criu
    for path, problem in (
        (Path("/nowhere/criu"), "is not a program"),
        (Path("/bin/true"), "does not speak criu"),
    ):
        root_rt.criu = path
        done = root_rt("checkpoint", "--image-path", str(images), BOX)
        root_rt.criu = criu
        assert done.returncode == 1 and problem in done.stderr and "hint: " in done.stderr
    assert not images.exists() and root_rt.state(BOX)["status"] == "running"


@pytest.mark.covers("annotations")
def test_a_config_file_of_criu_prevails(
    root_rt: Saver, root_bundle: MakeBundle, images: Path, place: Path
) -> None:
    (place / "criu.conf").write_text("log-file own.log\n")
    box = root_bundle(TICK)
    box.config["annotations"] = {"org.criu.config": str(place / "criu.conf")}
    box.write()
    root_rt.start(BOX, box.path)
    root_rt.save(BOX, images)
    assert (images / "own.log").exists() and not (images / "dump.log").exists()
    root_rt.bring_back(BOX, images, box.path)


@pytest.mark.covers("restore --lsm-profile", "restore --lsm-mount-context")
def test_the_profile_of_a_security_module_that_is_not_there_is_refused(
    root_rt: Saver, root_bundle: MakeBundle, images: Path
) -> None:
    if {"apparmor", "selinux"} & set(security_modules()):
        pytest.skip("a security module is here")
    box = root_bundle(TICK)
    root_rt.start(BOX, box.path)
    root_rt.save(BOX, images)
    words = ["restore", "-d", "--image-path", str(images), "-b", str(box.path)]
    done = root_rt(*words, "--lsm-profile", "apparmor:none-such", BOX)
    said = "apparmor LSM specified but apparmor not supported by kernel"
    assert done.returncode == 1 and done.stderr.splitlines()[0] == f"rt: criu cannot restore it: {said}"
    # Only SELinux has a use for this.
    root_rt.bring_back(BOX, images, box.path, "--lsm-mount-context", "system_u:object_r:container_file_t:s0")
