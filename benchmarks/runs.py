"""`run` of /bin/true, from the spawn to the exit status, and the peak memory of the runtime.

Knows the command lines that run a program in a new container.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import bundles
from contest import Bench, Case, Contest, Peer
from measure import Action, Failed, Unable

FILTER_FD = 9
TRUE = ["/bin/true"]


class Runs(Contest):
    """The contest of one `run` after the other."""

    def __init__(self, bench: Bench, case: Case) -> None:
        super().__init__(bench, case)
        self.filter = bench.directory / f"{case.name}.bpf"
        self.bundle = self.write("bundle", TRUE)
        self.memory_row = f"peak of {case.title}"

    def command(self, peer: Peer, bundle: Path, args: list[str]) -> tuple[list[str], list[Action]]:
        """The argv and the file actions that run `args` with this peer."""
        if peer.is_oci:
            return [*self.bench.oci(peer), "run", "--bundle", str(bundle), self.bench.new_id()], []
        shape = self.case.shape
        argv = [peer.path, "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1"]
        argv += ["--hostname", bundles.HOSTNAME, "--ro-bind", str(self.bench.rootfs), "/", "--proc", "/proc"]
        argv += ["--dev", "/dev", "--mqueue", "/dev/mqueue", "--ro-bind", "/sys", "/sys"]
        argv += ["--unshare-user", "--uid", "0", "--gid", "0"] if shape.userns else ["--cap-drop", "ALL"]
        actions: list[Action] = []
        if shape.seccomp:
            argv += ["--seccomp", str(FILTER_FD)]
            actions = [(os.POSIX_SPAWN_OPEN, FILTER_FD, str(self.filter), os.O_RDONLY, 0)]
        return [*argv, "--", *args], actions

    def warm_up(self, peer: Peer) -> None:
        self.probe(peer)
        for _ in range(2):
            self.once(peer)
        spawner = self.bench.spawner
        peaks = [spawner.peak_kb(*self.command(peer, self.bundle, TRUE)) for _ in range(3)]
        self.memory[peer.name] = {"kb": sorted(peaks)[1]}

    def probe(self, peer: Peer) -> None:
        """Looks from inside at a container of this shape. Raises `Failed` when it is another."""
        if not peer.is_oci:
            if self.case.shape.id_range:
                raise Unable("bwrap maps one id only")
            if self.case.shape.seccomp and not self.filter.exists():
                bundles.export_filter(self.filter)
        probe = ["/bin/sh", "-c", bundles.PROBE]
        bundle = self.write(f"probe-{peer.name}", probe)
        self.bench.spawner.time(*self.command(peer, bundle, probe))
        seen, expected = self.bench.spawner.output().split(), bundles.expected_probe(self.case.shape)
        if seen != expected:
            raise Failed(f"the container is not as asked: {seen} instead of {expected}")

    def once(self, peer: Peer) -> None:
        argv, actions = self.command(peer, self.bundle, TRUE)
        self.add(peer, self.case.title, self.bench.spawner.time(argv, actions))


class FirstRuns(Runs):
    """The same with a config that nobody has seen before: nothing that was kept of another run is of use."""

    def command(self, peer: Peer, bundle: Path, args: list[str]) -> tuple[list[str], list[Action]]:
        path = bundle / "config.json"
        config = json.loads(path.read_text())
        config["annotations"] = {"when": str(time.monotonic_ns())}
        path.write_text(json.dumps(config))
        return super().command(peer, bundle, args)
