"""`rt doctor`, which no peer has."""

from __future__ import annotations

from contest import Contest, Peer


class Doctors(Contest):
    """The contest of one."""

    entrants = ("rt",)

    def warm_up(self, peer: Peer) -> None:
        self.once(peer)

    def once(self, peer: Peer) -> None:
        argv = [*self.bench.oci(peer), "doctor"]
        self.add(peer, self.case.title, self.bench.spawner.time(argv, accepted=(0, 1, 2)))  # what it found
