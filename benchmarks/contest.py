"""A contest: peers do the same work in turns (A B C A B C), each going is timed, who fails drops out.

Knows peers, rounds and reasons; what the work is say the modules that derive from `Contest`. Results are
plain JSON values, for they cross processes:

    {"case": str, "load": float, "view": str,
     "rows": [{"measure": str, "peers": {peer: {"ms": [float]} | {"reason": str}}}],
     "memory": [{"measure": str, "peers": {peer: {"kb": int} | {"reason": str}}}],
     "curves": [{"measure": str, "unit": str, "from": int, "points": [{"n": int, "peers": as in rows}]}]}
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bundles
from bundles import Shape
from lab import User, adopt_orphans, cgroup_view
from measure import Failed, LoadMark, Spawner, Unable, end_children, reap_orphans, wait_for_quiet

PEERS = ("rt", "runc", "crun", "bwrap")
OCI = ("rt", "runc", "crun")
PLAIN = Shape()
SERIOUS = 5  # rounds; fewer only show that all works
Pss = Callable[[int], int]


@dataclass(frozen=True)
class Peer:
    """A runtime to time: its name in the table and the absolute path of its command."""

    name: str
    path: str

    @property
    def is_oci(self) -> bool:
        return self.name != "bwrap"


@dataclass(frozen=True)
class Case:
    """One thing to time: what it is called, the class that does it, and the kind of container."""

    name: str
    title: str
    contest: type[Contest]
    shape: Shape = PLAIN
    as_root: bool = False


class Bench:
    """Measures cases as the present user, in a directory of its own."""

    def __init__(self, peers: Sequence[Peer], user: User, directory: Path, rounds: int, pss: Pss) -> None:
        adopt_orphans()
        self.peers = peers
        self.user = user
        self.directory = directory
        self.rounds = rounds
        self.pss = pss
        self.serial = 0
        self.last_id = ""
        runtime_dir = directory / "runtime"
        runtime_dir.mkdir(mode=0o700)
        env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": str(runtime_dir),
        }
        self.spawner = Spawner(env, directory)
        self.rootfs = directory / "rootfs"
        bundles.make_rootfs(self.rootfs)
        # runc's is the common ground; another peer's serves where there is no runc.
        generators = sorted((peer for peer in peers if peer.is_oci), key=lambda peer: peer.name != "runc")
        if not generators:
            raise Unable("no OCI runtime to write a config.json with")
        self.base = bundles.base_config(generators[0].path, directory / "spec")

    def measure(self, case: Case) -> dict[str, Any]:
        """Times one case with every peer that can; see the module's text for the result."""
        print(f"{case.name} …", file=sys.stderr, flush=True)
        contest = case.contest(self, case)
        try:
            contest.enter()
            if self.rounds >= SERIOUS:
                wait_for_quiet(10)
            mark = LoadMark.now()
            gc.collect()
            gc.disable()
            for _ in range(max(1, self.rounds // contest.share)):
                for peer in contest.peers:
                    if peer.name not in contest.reasons:
                        contest.attempt(peer, contest.once)
                reap_orphans()
            load = mark.since()
        finally:
            gc.enable()
            contest.close()
        return {"case": case.name, "load": load, "view": cgroup_view(), **contest.result()}

    def new_id(self) -> str:
        """A container id that was not used before in this directory."""
        self.serial += 1
        self.last_id = f"rtbench-{os.getpid()}-{self.serial}"
        return self.last_id

    def oci(self, peer: Peer) -> list[str]:
        """The start of an OCI peer's command line. Root's state goes to this directory instead of /run."""
        if self.user.uid:
            return [peer.path]
        return [peer.path, "--root", str(self.directory / f"state-{peer.name}")]


class Contest:
    """One case under way: times by peer and row, and the reasons of those that fell out."""

    entrants: tuple[str, ...] = PEERS  # who can do this work at all
    memory_row = ""
    share = 1  # of the rounds: one of so many is enough

    def __init__(self, bench: Bench, case: Case) -> None:
        self.bench = bench
        self.case = case
        self.peers = [peer for peer in bench.peers if peer.name in self.entrants]
        self.reasons: dict[str, str] = {}
        self.times: dict[str, dict[str, list[float]]] = {}
        self.memory: dict[str, dict[str, int]] = {}
        self.memory_reasons: dict[str, str] = {}

    def enter(self) -> None:
        """Untimed: what all peers need, then a try of each."""
        for peer in self.peers:
            self.attempt(peer, self.warm_up)
            self.times.pop(peer.name, None)

    def write(self, name: str, args: list[str], shape: Shape | None = None) -> Path:
        """A bundle of this case that runs `args`."""
        directory = self.bench.directory / self.case.name / name
        bench = self.bench
        bundles.write_bundle(directory, bench.base, bench.rootfs, shape or self.case.shape, args, bench.user)
        return directory

    def attempt(self, peer: Peer, action: Callable[[Peer], None]) -> None:
        """Does `action`; a failure takes the peer out of this case, with the reason."""
        try:
            action(peer)
        except BaseException as failure:
            self.clean_up(peer)
            if not isinstance(failure, Failed | Unable):
                raise
            self.reasons[peer.name] = str(failure)

    def clean_up(self, peer: Peer) -> None:
        """Removes what a broken go left; that this fails, too, says nothing new."""
        if peer.is_oci:
            self.remove(peer, self.bench.last_id)
        end_children()

    def remove(self, peer: Peer, container: str) -> None:
        """Deletes a container with its processes, if it is there."""
        try:
            self.bench.spawner.time([*self.bench.oci(peer), "delete", "--force", container])
        except Failed:
            pass

    def warm_up(self, peer: Peer) -> None:
        """Untimed: fills the caches, checks that the peer does the work, measures memory."""
        raise NotImplementedError

    def once(self, peer: Peer) -> None:
        """One timed go; adds to `times`."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends what the contest holds."""

    def add(self, peer: Peer, measure: str, milliseconds: float) -> None:
        self.times.setdefault(peer.name, {}).setdefault(measure, []).append(milliseconds)

    def rows(self) -> list[str]:
        """The names of what was timed."""
        return [self.case.title]

    def cells(self, measure: str) -> dict[str, dict[str, Any]]:
        """What one row has for each peer."""
        cells: dict[str, dict[str, Any]] = {}
        for peer in self.peers:
            reason = self.reasons.get(peer.name)
            cells[peer.name] = {"reason": reason} if reason else {"ms": self.times[peer.name][measure]}
        return cells

    def result(self) -> dict[str, Any]:
        """The `rows`, `memory` and `curves` of this case."""
        rows = [{"measure": measure, "peers": self.cells(measure)} for measure in self.rows()]
        memory: dict[str, dict[str, Any]] = {}
        for name in (peer.name for peer in self.peers):
            reason = self.memory_reasons.get(name) or self.reasons.get(name, "no figure")
            memory[name] = self.memory.get(name) or {"reason": reason}
        weighed = [{"measure": self.memory_row, "peers": memory}] if self.memory_row else []
        return {"rows": rows, "memory": weighed, "curves": []}
