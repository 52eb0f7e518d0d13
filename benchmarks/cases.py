"""The peers, the cases, and the loop that times them in alternation (A B C A B C).

Knows the command lines of the peers. Results are plain JSON values, for they cross processes:

    {"case": str, "load": float, "view": str,
     "rows": [{"measure": str, "peers": {peer: {"ms": [float]} | {"reason": str}}}],
     "memory": [{"measure": str, "peers": {peer: {"kb": int} | {"reason": str}}}]}
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
from lab import Unable, User, adopt_orphans, cgroup_view
from measure import (
    Action,
    Failed,
    LoadMark,
    Spawner,
    end_children,
    reap_orphans,
    wait_for_end,
    wait_for_quiet,
)

FILTER_FD = 9
VERBS = ("create", "start", "state", "kill", "delete")
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
    """One thing to time. `life` means the five verbs in turn instead of `run`."""

    name: str
    title: str
    shape: Shape
    as_root: bool = False
    life: bool = False


CASES = (
    Case("run-own", "run: own id", Shape()),
    Case("run-own-seccomp", "run: own id, seccomp", Shape(seccomp=True)),
    Case("run-range-seccomp", "run: subuid range, seccomp", Shape(id_range=True, seccomp=True)),
    Case("life", "life: own id", Shape(), life=True),
    Case("run-root", "run: root, no user namespace", Shape(userns=False), as_root=True),
)


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
        wait_for_quiet(10)
        mark = LoadMark.now()
        contest = (Lives if case.life else Runs)(self, case)
        gc.collect()
        gc.disable()
        for _ in range(self.rounds):
            for peer in self.peers:
                if peer.name not in contest.reasons:
                    contest.attempt(peer, contest.once)
            reap_orphans()
        gc.enable()
        load = mark.since()
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
    """One case under way: bundles written, peers tried once, times and the reasons of those that fell out."""

    def __init__(self, bench: Bench, case: Case) -> None:
        self.bench = bench
        self.case = case
        self.reasons: dict[str, str] = {}
        self.times: dict[str, dict[str, list[float]]] = {}
        self.memory: dict[str, dict[str, int]] = {}
        self.memory_reasons: dict[str, str] = {}
        self.bundle = self.write("bundle", self.args)
        for peer in bench.peers:
            self.attempt(peer, self.warm_up)
            self.times.pop(peer.name, None)

    args: list[str]

    def write(self, name: str, args: list[str]) -> Path:
        """A bundle of this case that runs `args`."""
        directory = self.bench.directory / self.case.name / name
        bundles.write_bundle(
            directory, self.bench.base, self.bench.rootfs, self.case.shape, args, self.bench.user
        )
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
            try:
                self.bench.spawner.time([*self.bench.oci(peer), "delete", "--force", self.bench.last_id])
            except Failed:
                pass
        end_children()

    def warm_up(self, peer: Peer) -> None:
        """Untimed: fills the caches, checks that the peer does the work, measures memory."""
        raise NotImplementedError

    def once(self, peer: Peer) -> None:
        """One timed go; adds to `times`."""
        raise NotImplementedError

    def add(self, peer: Peer, measure: str, milliseconds: float) -> None:
        self.times.setdefault(peer.name, {}).setdefault(measure, []).append(milliseconds)

    def rows(self) -> list[str]:
        raise NotImplementedError

    def memory_row(self) -> str:
        raise NotImplementedError

    def result(self) -> dict[str, Any]:
        """The `rows` and `memory` of this case."""
        peers = [peer.name for peer in self.bench.peers]
        rows = []
        for measure in self.rows():
            cells: dict[str, dict[str, Any]] = {}
            for name in peers:
                reason = self.reasons.get(name)
                cells[name] = {"reason": reason} if reason else {"ms": self.times[name][measure]}
            rows.append({"measure": measure, "peers": cells})
        memory: dict[str, dict[str, Any]] = {}
        for name in peers:
            if name in self.memory:
                memory[name] = self.memory[name]
            else:
                reason = self.memory_reasons.get(name) or self.reasons.get(name, "no figure")
                memory[name] = {"reason": reason}
        return {"rows": rows, "memory": [{"measure": self.memory_row(), "peers": memory}]}


class Runs(Contest):
    """`run` of /bin/true, from the spawn to the exit status."""

    args = ["/bin/true"]

    def __init__(self, bench: Bench, case: Case) -> None:
        self.filter = bench.directory / f"{case.name}.bpf"
        super().__init__(bench, case)

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
        if not peer.is_oci:
            if self.case.shape.id_range:
                raise Unable("bwrap maps one id only")
            if self.case.shape.seccomp and not self.filter.exists():
                bundles.export_filter(self.filter)
        probe = ["/bin/sh", "-c", bundles.PROBE]
        bundle = self.bundle.with_name(f"probe-{peer.name}")
        self.write(bundle.name, probe)
        spawner = self.bench.spawner
        spawner.time(*self.command(peer, bundle, probe))
        seen, expected = spawner.output().split(), bundles.expected_probe(self.case.shape)
        if seen != expected:
            raise Failed(f"the container is not as asked: {seen} instead of {expected}")
        for _ in range(2):
            self.once(peer)
        peaks = [spawner.peak_kb(*self.command(peer, self.bundle, self.args)) for _ in range(3)]
        self.memory[peer.name] = {"kb": sorted(peaks)[1]}

    def once(self, peer: Peer) -> None:
        argv, actions = self.command(peer, self.bundle, self.args)
        self.add(peer, self.case.title, self.bench.spawner.time(argv, actions))

    def rows(self) -> list[str]:
        return [self.case.title]

    def memory_row(self) -> str:
        return f"peak of {self.case.title}"


class Lives(Contest):
    """create, start, state, kill KILL, delete of one sleeping container, each timed."""

    args = ["/bin/sleep", "1000"]

    def warm_up(self, peer: Peer) -> None:
        if not peer.is_oci:
            raise Unable("bwrap has no such verbs")
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
        self.add(peer, "whole life", sum(times))

    def weigh(self, peer: Peer, pid: int) -> None:
        """Notes the memory of the created container's waiting process."""
        try:
            self.memory[peer.name] = {"kb": self.bench.pss(pid)}
        except OSError as error:
            self.memory_reasons[peer.name] = str(error)

    def rows(self) -> list[str]:
        return [*VERBS, "whole life"]

    def memory_row(self) -> str:
        return "created container, waiting (PSS)"
