"""Network namespaces that stand for the host's, with devices to give away. For root."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab.runtime import Runtime
from lab.waiting import until

_numbers = itertools.count()


class Network:
    """A network namespace by name, as ip-netns(8) makes them; `path` is its file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = f"/run/netns/{name}"

    def ip(self, words: str) -> str:
        """Run `ip` with these words in it; its output."""
        done = subprocess.run(
            ["ip", "-n", self.name, *words.split()], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def veth(self, name: str, *more: str) -> None:
        """A pair of devices NAME and NAME-p, and further commands on the first: "mtu 1400"."""
        self.ip(f"link add name {name} type veth peer name {name}-p")
        for words in more:
            self.ip(f"link set dev {name} {words}")

    def link(self, name: str) -> dict[str, Any] | None:
        """What `ip -details -json address show` tells of a device; None when there is none."""
        found = json.loads(self.ip("-d -j address show"))
        return next((item for item in found if item["ifname"] == name), None)

    def names(self) -> set[str]:
        """The devices but for those that every new namespace has."""
        return {item["ifname"] for item in json.loads(self.ip("-j link show"))} - {"lo"}

    def wait_for(self, names: set[str]) -> None:
        """Wait until these are the devices: the kernel takes namespaces apart some time after their end."""
        until(lambda: self.names() == names, lambda: f"the devices are {names}; they are {self.names()}")

    def runtime(self, rt: Runtime) -> Runtime:
        """The same command, started in it."""
        return _Inside(rt, self.path)


class _Inside(Runtime):
    def __init__(self, rt: Runtime, path: str) -> None:
        super().__init__(rt.user, rt.root)
        self._path = path

    def argv(self, *words: str) -> list[str]:
        # Not `ip netns exec`, which mounts another /sys.
        return ["nsenter", f"--net={self._path}", *super().argv(*words)]


@contextmanager
def network() -> Iterator[Network]:
    """A fresh network namespace, gone afterwards with its virtual devices."""
    name = f"rt-test-{os.getpid()}-{next(_numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Network(name)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def need_devices() -> None:
    """Skip where no virtual devices can be made."""
    if os.geteuid() != 0:
        pytest.skip("only root may make and move network devices")
    pytest.importorskip("pyroute2")
    with network() as tried:
        words = ["ip", "-n", tried.name, "link", "add", "v0", "type", "veth", "peer", "name", "v1"]
        if subprocess.run(words, stderr=subprocess.DEVNULL, check=False).returncode:
            pytest.skip("this kernel makes no veth devices here")
