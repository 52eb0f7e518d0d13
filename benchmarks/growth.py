"""Whether a curve is a line: a fit of  time = a + b·n + c·n²,  and how sure it is of c.

Pure: takes times by size, gives figures. A cost that grows faster than the number of things shows as the
bend: the share c·N²/time(N) of the time at the largest size N. How far chance alone could move it is found by
drawing the rounds anew (bootstrap): a round's times of all sizes stay together, as a busy moment touched all.
What takes no more time at the largest size than at the smallest does not grow, whatever its form.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DRAWS = 400
ROUNDS = 8  # fewer show nothing
BEND = 0.1  # a smaller share of the time is within what caches and schedulers do


@dataclass(frozen=True)
class Growth:
    """`each`: µs for one thing more. `bend`: the share of the square; `low`, `high`: its 95 % interval.

    `rise` is how much of the time at the largest size is not there at the smallest, at most (95 %).
    """

    rounds: int
    each: float
    bend: float
    low: float
    high: float
    rise: float

    @property
    def verdict(self) -> str:
        """`linear`, `super-linear`, or `unsure` where the rounds were too few to tell."""
        if self.rounds < ROUNDS:
            return "unsure"
        if self.rise <= BEND:
            return "linear"
        if self.low > BEND:
            return "super-linear"
        return "linear" if self.high <= BEND else "unsure"


def growth(times: Mapping[int, Sequence[float]]) -> Growth:
    """The form of a curve, given the milliseconds of each round by size. Three sizes are the least."""
    sizes = sorted(times)
    if len(sizes) < 3:
        raise ValueError("a bend needs three sizes")
    rounds = min(len(times[size]) for size in sizes)
    medians = [statistics.median(times[size]) for size in sizes]
    bend = _bend(sizes, medians)
    dice = random.Random(1)
    bends, rises = [], []
    for _ in range(DRAWS):
        picked = [dice.randrange(rounds) for _ in range(rounds)]
        middles = [statistics.median(times[size][one] for one in picked) for size in sizes]
        bends.append(_bend(sizes, middles))
        rises.append(1 - middles[0] / middles[-1])
    bends.sort()
    rises.sort()
    low, high = int(DRAWS * 0.025), int(DRAWS * 0.975)
    each = (medians[-1] - medians[0]) / (sizes[-1] - sizes[0]) * 1000
    return Growth(rounds, each, bend, bends[low], bends[high], rises[high])


def _bend(sizes: Sequence[int], times: Sequence[float]) -> float:
    """The share of the square at the largest size, by least squares."""
    largest = sizes[-1]
    rows = [(1.0, size / largest, (size / largest) ** 2) for size in sizes]
    normal = [[sum(row[i] * row[j] for row in rows) for j in range(3)] for i in range(3)]
    right = [sum(row[i] * time for row, time in zip(rows, times, strict=True)) for i in range(3)]
    with_times = [[*line[:2], value] for line, value in zip(normal, right, strict=True)]
    return (
        _determinant(with_times) / _determinant(normal) / times[-1]
    )  # Cramer's rule, for the last of the three


def _determinant(m: Sequence[Sequence[float]]) -> float:
    return (
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
        - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
        + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    )
