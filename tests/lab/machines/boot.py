"""Starts machines, and ends them. Raises Unavailable (debian.py) where there can be none."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from lab.machines.debian import Image, Unavailable, built
from lab.machines.machine import Machine, last_words
from lab.runtime import RT, TREE
from lab.users import User

HERE = Path(__file__).parent
KERNEL = "/usr/bin/linux.uml"
NS_IMAGE = Image("systemd", "bookworm")
UML_PACKAGES = ("user-mode-linux", "apparmor", "crun", "runc", "systemd-container")
UML_IMAGE = Image("uml", "trixie", UML_PACKAGES, disk=900)
# The same with an engine; catatonit is what the first container of its pods runs.
PODMAN_IMAGE = Image("uml-podman", "trixie", (*UML_PACKAGES, "podman", "catatonit"), disk=1200)
# systemd-container has systemd-nsresourced.
QEMU_PACKAGES = ("criu", "iptables", "python3-protobuf", "python3-jeepney", "apparmor")
QEMU_IMAGE = Image("qemu", "trixie", QEMU_PACKAGES, disk=1600, kernel="linux-image-cloud-amd64")
QEMU = "qemu-system-x86_64"
# Times the time that a command has elsewhere: an emulated processor is that much slower, or more.
PATIENCE = 5
UML_PATIENCE = 3
NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
MORE_NAMESPACES = ["--uts", "--ipc", "--net", "--cgroup"]


def trees() -> list[str]:
    """What of the host a machine needs to run rt: the source tree, and where the packages it imports lie."""
    site = os.path.realpath(sysconfig.get_path("purelib"))
    inside = os.path.commonpath([site, TREE]) == str(TREE)
    return [str(TREE)] if inside else [str(TREE), site]


@contextmanager
def lasting(boot: Callable[[], AbstractContextManager[Machine]]) -> Iterator[Machine]:
    """A machine of `boot` that is booted again, as the same object, when it has ended (see Machine)."""
    with ExitStack() as stack:
        machine = stack.enter_context(boot())

        def again() -> None:
            other = stack.enter_context(boot())
            machine.speak_with(other._stream, other.share, other.console)

        machine.again = again
        yield machine


@contextmanager
def systemd_machine() -> Iterator[Machine]:
    """systemd of Debian 12 as PID 1 in namespaces of this kernel; cgroup v2 with what there is."""
    cgroups = _cgroup2()
    _check([*NAMESPACES, *MORE_NAMESPACES, "true"])
    with (
        built(NS_IMAGE) as image,
        _scratch() as (scratch, share, log),
        socket.socket(socket.AF_UNIX) as listener,
    ):
        listener.bind(str(share / "agent.sock"))
        listener.listen(1)
        listener.settimeout(0.1)
        words = [str(HERE / "systemd.sh"), str(image), str(share), *trees()]
        with _kept(scratch, cgroups, [*NAMESPACES, *MORE_NAMESPACES, "sh", *words], log) as keeper:
            with _told(log):
                machine = Machine(_accepted(listener, keeper, 60), share, log)
                machine.wait_ready(60)
            yield machine


@contextmanager
def uml_machine(user: User, module: str = "apparmor", image: Image = UML_IMAGE) -> Iterator[Machine]:
    """A kernel of its own with Debian 13, run as this user: cgroup v2 with cpu, io, memory, pids.

    `module` is the security module that it runs: apparmor, or selinux (permissive, without a
    policy). It sees the host's files with that user's rights.
    """
    _check([*NAMESPACES, "true"])
    if _available() < 3 << 20:
        raise Unavailable("needs 3 GB of free memory")
    with built(image) as directory, _scratch() as (scratch, share, log):
        user.owns(share)
        ours, serial = socket.socketpair()
        words = [
            str(HERE / "uml.sh"),
            str(directory),
            str(share),
            str(user.uid),
            str(user.gid),
            str(serial.fileno()),
            module,
        ]
        with _kept(scratch, "", [*NAMESPACES, "sh", *words, *trees()], log, serial):
            with _told(log):
                machine = Machine(ours, share, log, UML_PATIENCE)
                machine.wait_ready(60)
                _finish_uml(machine)
            yield machine


@contextmanager
def qemu_machine(user: User) -> Iterator[Machine]:
    """An emulated PC with Debian 13's cloud kernel, run as this user: cgroup v2 with all controllers."""
    _check([*NAMESPACES, "true"])
    if not shutil.which(QEMU):
        raise Unavailable(f"needs {QEMU}: apt install qemu-system-x86")
    if os.uname().machine != "x86_64":
        raise Unavailable("needs an x86_64 machine: the image is one for that")
    if _available() < 2 << 20:
        raise Unavailable("needs 2 GB of free memory")
    with built(QEMU_IMAGE) as image, _scratch() as (scratch, _, log):
        ours, port = socket.socketpair()
        words = [str(HERE / "qemu.sh"), str(image), str(user.uid), str(user.gid), str(port.fileno())]
        with _kept(scratch, "", [*NAMESPACES, "sh", *words, *trees()], log, port):
            with _told(log):
                machine = Machine(ours, None, log, PATIENCE)
                machine.wait_ready(60)
                _finish_qemu(machine)
            yield machine


def _finish_qemu(machine: Machine) -> None:
    """What is missing without udev, and the source trees at their own paths."""
    binds = [f"mkdir -p {tree} && mount --bind /lab/host{tree} {tree}" for tree in trees()]
    loaded = "modprobe -a overlay fuse tun; chmod 666 /dev/fuse /dev/net/tun"
    machine.ok("\n".join([loaded, f"ln -s {RT} /usr/local/bin/rt", *binds]))


def _finish_uml(machine: Machine) -> None:
    """What a machine without udev lacks, and the source trees at their own paths."""
    modules = "/usr/lib/uml/modules/$(uname -r)"
    machine.ok(
        f'find {modules}/ -name "*.ko" | sort | while read file; do busybox insmod $file || true; done\n'
        "chmod 666 /dev/fuse /dev/net/tun\n"
        "mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security\n"
        f"ln -s {RT} /usr/local/bin/rt"
    )
    for tree in trees():
        machine.ok(f"mkdir -p {tree} && mount --bind /lab/host{tree} {tree}")


def _cgroup2() -> str:
    """Where cgroup v2 is mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split(" ")
        if kind == "cgroup2" and os.access(f"{where}/cgroup.procs", os.W_OK):
            return where
    raise Unavailable("needs a cgroup v2 hierarchy that root can write to")


def _available() -> int:
    """kB of memory that can be had without swapping (proc_meminfo(5))."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def _accepted(listener: socket.socket, keeper: subprocess.Popen[bytes], seconds: float) -> socket.socket:
    """The agent's connection; `listener` is a socket with a short timeout."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return listener.accept()[0]
        except TimeoutError:
            assert keeper.poll() is None, "it has ended"
            assert time.monotonic() < deadline, f"no agent in {seconds} s"


def _check(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"cannot make namespaces here: {done.stderr.strip()}")


@contextmanager
def _scratch() -> Iterator[tuple[Path, Path, IO[bytes]]]:
    """A directory that goes with the machine, in it one to share; and a file for what is said at boot."""
    path = Path(tempfile.mkdtemp(prefix=f"rt-test-machine-{os.getpid()}-"))
    path.chmod(0o755)
    share = path / "share"
    share.mkdir()
    try:
        with tempfile.TemporaryFile() as log:
            yield path, share, log
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _kept(
    scratch: Path, cgroups: str, command: list[str], log: IO[bytes], serial: socket.socket | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A machine in the hands of its keeper, which ends it when this process does, however that may be."""
    keeper = subprocess.Popen(
        [sys.executable, "-I", str(HERE / "keeper.py"), str(scratch), cgroups, *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env={**os.environ, "RT": RT, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        pass_fds=[serial.fileno()] if serial else [],
        start_new_session=True,
    )
    if serial:
        serial.close()  # so that the end of the machine is the end of the line
    try:
        yield keeper
    finally:
        assert keeper.stdin
        with suppress(BrokenPipeError):
            keeper.stdin.close()
        keeper.wait(60)


@contextmanager
def _told(log: IO[bytes]) -> Iterator[None]:
    """A failure to boot is shown with the last of what was said."""
    try:
        yield
    except (AssertionError, OSError) as error:
        raise AssertionError("\n".join([f"the machine did not boot: {error}", *last_words(log)])) from None
