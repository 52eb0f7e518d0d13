"""Containers on pasta and slirp4netns, and a host where their user may open /dev/net/tun.

Everything happens in a network namespace that stands for the host's: it has a loopback device, and a default
route to nowhere, which pasta wants. So the tests reach nothing but this machine, and meet no one's ports.
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.bundles import Bundle
from lab.inside import bind, with_mounts
from lab.runtime import Runtime
from lab.waiting import PATIENCE

HELPERS = ("pasta", "slirp4netns")
_SETUP = """
set -e
if [ -n "$1" ]; then mount --bind "$1" /dev/net/tun; fi
ip link set lo up
ip tuntap add dev uplink mode tap
ip address add 192.0.2.77/24 dev uplink
ip link set uplink up
ip route add default via 192.0.2.1
echo ready
exec sleep 1000
"""
_names = itertools.count()


def need(helper: str) -> None:
    """Skip where a helper, or root to make a host for it, is missing."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a network namespace that stands for the host's")
    if shutil.which(helper) is None:
        pytest.skip(f"needs {helper}: apt install passt slirp4netns")
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("needs /dev/net/tun")


class Host:
    """A private mount and network namespace; `runtime` gives a command that is started in it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def enter(self, *words: str) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", f"--net=/proc/{self.pid}/ns/net", *words]

    def runtime(self, rt: Runtime) -> Runtime:
        return _Inside(rt, self)

    def sh(self, script: str, seconds: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run a script as root on this host."""
        words = self.enter("sh", "-c", script)
        return subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)

    def ask(self, protocol: str, address: str, port: int, seconds: float = PATIENCE) -> str:
        """What answers there, asked again until something does; empty when nothing has."""
        code = (
            "import socket, sys\n"
            "kind = socket.SOCK_STREAM if sys.argv[1] == 'tcp' else socket.SOCK_DGRAM\n"
            "family = socket.AF_INET6 if ':' in sys.argv[2] else socket.AF_INET\n"
            "s = socket.socket(family, kind); s.settimeout(5)\n"
            "s.connect((sys.argv[2], int(sys.argv[3]))); s.send(b'ask\\n'); print(s.recv(100).decode())\n"
        )
        words = self.enter(sys.executable, "-I", "-c", code, protocol, address, str(port))
        deadline = time.monotonic() + seconds
        while True:
            done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
            if done.stdout.strip() or time.monotonic() > deadline:
                return done.stdout.strip()
            time.sleep(0.05)

    @contextmanager
    def server(self, address: str, port: int, text: str, protocol: str = "tcp") -> Iterator[None]:
        """Something on this host that answers every question with a text."""
        code = (
            "import socket, sys\n"
            "kind = socket.SOCK_STREAM if sys.argv[1] == 'tcp' else socket.SOCK_DGRAM\n"
            "s = socket.socket(socket.AF_INET6 if ':' in sys.argv[2] else socket.AF_INET, kind)\n"
            "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
            "s.bind((sys.argv[2], int(sys.argv[3])))\n"
            "if kind == socket.SOCK_STREAM: s.listen()\n"
            "print('ready', flush=True)\n"
            "while True:\n"
            "    if kind == socket.SOCK_STREAM:\n"
            "        c, _ = s.accept(); c.recv(1000)\n"
            "        c.sendall(sys.argv[4].encode()); c.close()\n"
            "    else:\n"
            "        _, who = s.recvfrom(100); s.sendto(sys.argv[4].encode(), who)\n"
        )
        words = self.enter(sys.executable, "-I", "-c", code, protocol, address, str(port), text)
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()
            process.communicate()


def with_python(bundle: Bundle) -> Bundle:
    """Have the host's python3 in the container, for what busybox cannot do."""
    for name in ("lib", "lib64"):
        if not (bundle.rootfs / name).exists():
            (bundle.rootfs / name).symlink_to(f"usr/{name}")
    return with_mounts(bundle, bind("/usr", "/usr", "rbind", "ro"))


def udp(code: str) -> list[str]:
    """A program of the container: `s` is a datagram socket."""
    return [
        "/usr/bin/python3",
        "-I",
        "-c",
        f"import socket\ns = socket.socket(type=socket.SOCK_DGRAM)\n{code}",
    ]


class _Inside(Runtime):
    def __init__(self, rt: Runtime, host: Host) -> None:
        super().__init__(rt.user, rt.root)
        self._host = host

    def argv(self, *words: str) -> list[str]:
        user = self.user
        become = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups"]
        plain = super().argv(*words)
        return self._host.enter(*(become if user.uid else []), *plain)

    def popen(self, *words: str, **options: object) -> subprocess.Popen[bytes]:
        # nsenter is root's to call: it becomes the user behind that.
        options.setdefault("user", None)
        options.setdefault("group", None)
        options.setdefault("extra_groups", None)
        return super().popen(*words, **options)


@contextmanager
def host(place: Path, *, tun: bool = True) -> Iterator[Host]:
    """A host of its own; with `tun` anybody may open /dev/net/tun there, as with udev, else as it is here."""
    node = place / f"tun{next(_names)}"
    if tun:
        os.mknod(node, 0o666 | stat.S_IFCHR, os.stat("/dev/net/tun").st_rdev)
        node.chmod(0o666)
    words = ["unshare", "--mount", "--net", "sh", "-c", _SETUP, "sh", str(node) if tun else ""]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield Host(process.pid)
    finally:
        process.kill()
        process.communicate()
