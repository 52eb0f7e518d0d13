"""How the time of one container grows: with existing containers, with mounts, with lines of the id maps.

Knows the sizes and how to make them; what a curve's form is says growth.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bundles import Shape
from contest import OCI, Bench, Case, Contest, Peer
from measure import Failed, finish_all, reap_orphans
from runs import TRUE

IN_FLIGHT = 4  # containers made at once to fill a state root


@dataclass(frozen=True)
class Curve:
    """What is timed, at which sizes, what they count, and from which size on it should be a line."""

    measure: str
    unit: str
    sizes: Sequence[int]
    line_from: int = 1


class Curves(Contest):
    """Each going times one command of true at each size, with every peer that can do that size."""

    entrants = OCI
    curves: tuple[Curve, ...] = ()

    def __init__(self, bench: Bench, case: Case) -> None:
        super().__init__(bench, case)
        self.unable: dict[tuple[str, int], str] = {}

    def key(self, curve: Curve, size: int) -> str:
        return f"{curve.measure} {size}"

    def rows(self) -> list[str]:
        return []

    def command(self, peer: Peer, curve: Curve, size: int) -> list[str]:
        """The command line to time."""
        raise NotImplementedError

    def prove(self, peer: Peer, size: int) -> None:
        """Raises `Failed` when this peer does not do the whole work at this size."""
        raise NotImplementedError

    def warm_up(self, peer: Peer) -> None:
        for size in self.curves[0].sizes:
            try:
                self.prove(peer, size)
            except Failed as failure:
                self.clean_up(peer)
                self.unable[peer.name, size] = f"{size} {self.curves[0].unit}: {failure}"
        self.once(peer)

    def once(self, peer: Peer) -> None:
        for curve in self.curves:
            for size in curve.sizes:
                if (peer.name, size) not in self.unable:
                    time = self.bench.spawner.time(self.command(peer, curve, size))
                    self.add(peer, self.key(curve, size), time)

    def point(self, curve: Curve, size: int) -> dict[str, Any]:
        """What the curve has at one size, for each peer."""
        cells: dict[str, dict[str, Any]] = {}
        for peer in self.peers:
            reason = self.reasons.get(peer.name) or self.unable.get((peer.name, size))
            times = self.times.get(peer.name, {})
            cells[peer.name] = {"reason": reason} if reason else {"ms": times[self.key(curve, size)]}
        return {"n": size, "peers": cells}

    def result(self) -> dict[str, Any]:
        curves = []
        for curve in self.curves:
            points = [self.point(curve, size) for size in curve.sizes]
            form = {"measure": curve.measure, "unit": curve.unit, "from": curve.line_from, "points": points}
            curves.append(form)
        return {**super().result(), "curves": curves}


class Configs(Curves):
    """Configs of several sizes; `counted` is the file whose lines tell from inside that all was done."""

    counted = ""

    def shape(self, size: int) -> Shape:
        """The kind of container of one size."""
        raise NotImplementedError

    def enter(self) -> None:
        for size in self.curves[0].sizes:
            self.write(str(size), TRUE, self.shape(size))
            self.write(f"count-{size}", ["/bin/wc", "-l", self.counted], self.shape(size))
        super().enter()

    def run(self, peer: Peer, bundle: str) -> list[str]:
        directory = self.bench.directory / self.case.name / bundle
        return [*self.bench.oci(peer), "run", "--bundle", str(directory), self.bench.new_id()]

    def command(self, peer: Peer, curve: Curve, size: int) -> list[str]:
        return self.run(peer, str(size))

    def prove(self, peer: Peer, size: int) -> None:
        self.bench.spawner.time(self.run(peer, f"count-{size}"))
        found = int(self.bench.spawner.output().split()[0])
        if found < size:
            raise Failed(f"the container has {found}")


class Mounts(Configs):
    """Binds in a config, beside the usual mounts."""

    counted = "/proc/self/mountinfo"
    curves = (Curve("run, mounts in the config", "mounts", (1, 50, 200, 500)),)

    def shape(self, size: int) -> Shape:
        return replace(self.case.shape, mounts=size)


class MapLines(Configs):
    """Lines of the uid map, and as many of the gid map. From two on newuidmap writes them: a step."""

    counted = "/proc/self/uid_map"
    curves = (Curve("run, lines of the id maps", "map lines", (1, 2, 50, 150, 300), line_from=2),)

    def shape(self, size: int) -> Shape:
        return replace(self.case.shape, map_lines=size)


class Existing(Curves):
    """A state root with containers that have ended and were not deleted (living ones of runc take 8 MB)."""

    sizes = (1, 100, 400, 1000)
    curves = (
        Curve("run, containers in the state root", "containers", sizes),
        Curve("list, containers in the state root", "containers", sizes),
    )

    def __init__(self, bench: Bench, case: Case) -> None:
        super().__init__(bench, case)
        self.bundle = self.write("bundle", TRUE)

    def root(self, peer: Peer, size: int) -> Path:
        return self.bench.directory / self.case.name / f"{peer.name}-{size}"

    def command(self, peer: Peer, curve: Curve, size: int) -> list[str]:
        runtime = [peer.path, "--root", str(self.root(peer, size))]
        if curve is self.curves[1]:
            return [*runtime, "list"]
        return [*runtime, "run", "--bundle", str(self.bundle), self.bench.new_id()]

    def prove(self, peer: Peer, size: int) -> None:
        root = self.root(peer, size)
        runtime = [peer.path, "--root", str(root), "run", "--detach", "--bundle", str(self.bundle)]
        finish_all(self.bench.spawner, ([*runtime, f"old-{one}"] for one in range(size)), IN_FLIGHT)
        reap_orphans()
        self.bench.spawner.time(self.command(peer, self.curves[1], size))
        found = self.bench.spawner.output().count("old-")
        if found != size:
            raise Failed(f"it lists {found}")

    def close(self) -> None:
        for peer in self.peers:
            for size in self.sizes:
                shutil.rmtree(self.root(peer, size), ignore_errors=True)
