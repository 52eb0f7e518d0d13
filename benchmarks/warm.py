"""The API in a warm process, beside spawning the peers' commands for each container.

Knows how to reach the API: a process of its own (warm_worker.py) under rt's interpreter, so that this one's
heap and modules are in no figure.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import imports
from contest import Bench, Case, Peer
from measure import Failed, finish_all
from runs import TRUE, Runs

WORKER = Path(__file__).with_name("warm_worker.py")
COUNT, IN_FLIGHT = 200, 8


class Warm(Runs):
    """One container after the other: `Sandbox.run` for rt, a spawned `run` for the others."""

    def __init__(self, bench: Bench, case: Case) -> None:
        super().__init__(bench, case)
        self.memory_row = ""
        self.worker: subprocess.Popen[str] | None = None

    def warm_up(self, peer: Peer) -> None:
        if peer.name == "rt":
            self.worker = self.start(peer)
        else:
            self.probe(peer)
        for _ in range(2):
            self.once(peer)

    def start(self, peer: Peer) -> subprocess.Popen[str]:
        """The worker, under the interpreter and with the package that this `rt` starts."""
        words = imports.python_argv([peer.path, "features"])
        python, sites = words[0], words[words.index("-c") + 2]  # -c CODE SITES, of the launcher
        return subprocess.Popen(
            [python, "-I", "-B", str(WORKER), sites, str(self.bundle)],
            env=self.bench.spawner.env,
            cwd=self.bench.directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(self.bench.spawner.stderr, "w"),
            text=True,
        )

    def ask(self, words: str) -> float:
        """What the worker measured. Raises `Failed` when it could not."""
        assert self.worker and self.worker.stdin and self.worker.stdout
        try:
            print(words, file=self.worker.stdin, flush=True)
            answer = self.worker.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer or answer.startswith("!"):
            why = answer[1:] or (Path(self.bench.spawner.stderr).read_text().splitlines() or ["no word"])[-1]
            raise Failed(f"the API: {why.strip()}")
        return float(answer)

    def once(self, peer: Peer) -> None:
        if peer.name == "rt":
            self.add(peer, self.case.title, self.ask("one"))
        else:
            super().once(peer)

    def clean_up(self, peer: Peer) -> None:
        """Leaves the worker alone, which is a child like those of a broken go."""
        self.remove(peer, self.bench.last_id)

    def close(self) -> None:
        if self.worker:
            assert self.worker.stdin
            self.worker.stdin.close()
            self.worker.wait()


class Pools(Warm):
    """From the call to the start of the program, in a container that is ready; no peer has such."""

    entrants = ("rt",)

    def once(self, peer: Peer) -> None:
        self.add(peer, self.case.title, self.ask("pool"))


class Many(Warm):
    """COUNT containers, IN_FLIGHT at a time: by the API in one process, and by spawning."""

    share = 8

    def once(self, peer: Peer) -> None:
        if peer.name == "rt":
            self.add(peer, self.case.title, self.ask(f"many {COUNT} {IN_FLIGHT}"))
            return
        commands = (self.command(peer, self.bundle, TRUE)[0] for _ in range(COUNT))
        self.add(peer, self.case.title, finish_all(self.bench.spawner, commands, IN_FLIGHT))
