"""The life of a container as engines lead it, verb by verb, and `exec` in one that runs.

Knows the verbs; `run` is in runs.py.
"""

from __future__ import annotations

import json
import os
import time

import bundles
from contest import OCI, Bench, Case, Contest, Peer
from goals import PSS, WHOLE
from measure import Failed, end_children, reap_orphans, wait_for_end
from runs import TRUE

VERBS = ("create", "start", "state", "kill", "delete")
SLEEP = ["/bin/sleep", "1000"]


class Lives(Contest):
    """create, start, state, kill KILL, delete of one sleeping container, each timed."""

    entrants = OCI
    memory_row = PSS

    def __init__(self, bench: Bench, case: Case) -> None:
        super().__init__(bench, case)
        self.bundle = self.write("bundle", SLEEP)

    def warm_up(self, peer: Peer) -> None:
        self.live(peer, first=True)
        self.live(peer)

    def once(self, peer: Peer) -> None:
        self.live(peer)

    def live(self, peer: Peer, *, first: bool = False) -> None:
        """One whole life. The wait for the killed process's end, between kill and delete, is in no time."""
        spawner, name = self.bench.spawner, self.bench.new_id()
        runtime, pid_file = self.bench.oci(peer), self.bench.directory / "pid"
        times: list[float] = []
        try:
            create = ["create", "--bundle", str(self.bundle), "--pid-file", str(pid_file), name]
            times.append(spawner.time([*runtime, *create]))
            pid = int(pid_file.read_text())
            pidfd = os.pidfd_open(pid)
            try:
                if first:
                    self.weigh(peer, pid)
                times.append(spawner.time([*runtime, "start", name]))
                times.append(spawner.time([*runtime, "state", name]))
                if first and '"running"' not in spawner.output():
                    raise Failed(f"state of a started container: {spawner.output()[:200]!r}")
                times.append(spawner.time([*runtime, "kill", name, "KILL"]))
                wait_for_end(pidfd)
            finally:
                os.close(pidfd)
            reap_orphans()
            times.append(spawner.time([*runtime, "delete", name]))
        except (OSError, ValueError) as error:
            raise Failed(f"{peer.name}: {error}") from None
        for verb, milliseconds in zip(VERBS, times, strict=True):
            self.add(peer, verb, milliseconds)
        self.add(peer, WHOLE, sum(times))

    def weigh(self, peer: Peer, pid: int) -> None:
        """Notes the memory of the created container's waiting process."""
        try:
            self.memory[peer.name] = {"kb": self.bench.pss(pid)}
        except OSError as error:
            self.memory_reasons[peer.name] = str(error)

    def rows(self) -> list[str]:
        return [*VERBS, WHOLE]


class Execs(Contest):
    """`exec` of /bin/true, with --process as engines do, in a container that runs for the whole contest."""

    entrants = OCI

    def __init__(self, bench: Bench, case: Case) -> None:
        super().__init__(bench, case)
        self.bundle = self.write("bundle", SLEEP)
        config = json.loads((self.bundle / "config.json").read_text())
        self.processes = {}
        for name, args in (("true", TRUE), ("probe", ["/bin/sh", "-c", bundles.PROBE])):
            path = self.processes[name] = self.bundle / f"{name}.json"
            path.write_text(json.dumps({**config["process"], "args": args}))
        self.ids: dict[str, str] = {}

    def exec(self, peer: Peer, process: str) -> list[str]:
        runtime, path = self.bench.oci(peer), self.processes[process]
        return [*runtime, "exec", "--process", str(path), self.ids[peer.name]]

    def warm_up(self, peer: Peer) -> None:
        spawner = self.bench.spawner
        container = self.ids[peer.name] = self.bench.new_id()
        spawner.time([*self.bench.oci(peer), "run", "--detach", "--bundle", str(self.bundle), container])
        spawner.time(self.exec(peer, "probe"))
        # Everything that the probe shows but the process id, which is not 1 here.
        seen, expected = spawner.output().split()[1:], bundles.expected_probe(self.case.shape)[1:]
        if seen != expected:
            raise Failed(f"the process is not as asked: {seen} instead of {expected}")
        for _ in range(2):
            self.once(peer)

    def once(self, peer: Peer) -> None:
        self.add(peer, self.case.title, self.bench.spawner.time(self.exec(peer, "true")))

    def clean_up(self, peer: Peer) -> None:
        """Only this peer's: the containers of the others are children of this process, too."""
        if peer.name in self.ids:
            self.remove(peer, self.ids.pop(peer.name))

    def close(self) -> None:
        for peer in self.peers:
            self.clean_up(peer)
        end_children()


class FirstExecs(Execs):
    """The same with a process that nobody has seen before."""

    def once(self, peer: Peer) -> None:
        path = self.processes["true"]
        process = json.loads(path.read_text())
        process["env"] = [*process["env"][:1], f"WHEN={time.monotonic_ns()}"]
        path.write_text(json.dumps(process))
        super().once(peer)
