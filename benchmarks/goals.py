"""The goals: which figure of which row must be how small, beside which peer.

Pure. A goal is met or missed within one run; milliseconds alone belong to a machine, ratios less so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WHOLE = "whole life"
API = "API: one container, warm"
POOL = "pool: ready container to exec"
MANY = "API: 200 containers, 8 in flight"
PSS = "created container, waiting (PSS)"


@dataclass(frozen=True)
class Goal:
    """`measure` is a row's name. `against` is a peer; without one, `most` is in milliseconds or kB.

    `most` of None: no more than the figure of crun against the same peer. With `times` the ratio is turned
    round, how many times faster than the peer, and `most` is the least it must be.
    """

    measure: str
    most: float | None
    against: str = ""
    unit: str = "ms"
    times: bool = False


def _pair(measure: str, runc: float, crun: float) -> list[Goal]:
    return [Goal(measure, runc, "runc"), Goal(measure, crun, "crun")]


GOALS = (
    *_pair("run: own id, seccomp", 0.35, 0.55),
    *_pair("run: own id", 0.5, 0.95),
    *_pair("run: subuid range", 0.5, 1.05),
    *_pair("run: subuid range, seccomp", 0.5, 1.05),
    *_pair(WHOLE, 0.75, 1.1),
    *_pair("exec of true", 0.5, 1.4),
    Goal("peak of run: own id, seccomp", 0.9, "runc"),
    Goal("peak of run: own id", 0.9, "runc"),
    Goal(PSS, 150, unit="kB"),
    Goal(API, 3),
    Goal(API, 0.25, "crun"),
    Goal(API, 0.5, "bwrap"),
    Goal(POOL, 0.6),
    Goal(MANY, 5, "crun", times=True),
    Goal("rt doctor", 150),
    Goal("run: root, with cgroups", None, "runc"),
)


@dataclass(frozen=True)
class Verdict:
    """One goal beside what was measured, as words; `met` is None when there is no figure."""

    measure: str
    figure: str
    goal: str
    met: bool | None


def judge(rows: Mapping[str, Mapping[str, float]], curves: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """All goals beside the figures: of `rows`, by name and peer, and the forms of rt's `curves`.

    A goal whose row was not measured in this run is left out.
    """
    verdicts = [_judge(goal, rows[goal.measure]) for goal in GOALS if goal.measure in rows]
    for curve in curves:
        form = curve["growth"].get("rt")
        word = form["verdict"] if form else "-"
        met = None if word in ("-", "unsure") else word == "linear"
        verdicts.append(Verdict(f"{curve['measure']}: growth", word, "linear", met))
    return verdicts


def _judge(goal: Goal, figures: Mapping[str, float]) -> Verdict:
    mine, other = figures.get("rt"), figures.get(goal.against)
    if not goal.against:
        if mine is None or goal.most is None:
            return Verdict(goal.measure, "-", f"≤ {goal.most:g} {goal.unit}", None)
        places = 2 if mine < 10 else 0
        met = mine <= goal.most
        return Verdict(goal.measure, f"{mine:.{places}f} {goal.unit}", f"≤ {goal.most:g} {goal.unit}", met)
    sign, name = ("≥", f"{goal.against}/rt") if goal.times else ("≤", f"rt/{goal.against}")
    most = goal.most
    if most is None and other and "crun" in figures:
        most = figures["crun"] / other
    words = "no figure of crun" if most is None else f"{sign} {most:.2f}"
    if goal.most is None and most is not None:
        words += f" (crun/{goal.against})"
    if mine is None or not other or most is None:
        return Verdict(goal.measure, f"{name} -", words, None)
    ratio = other / mine if goal.times else mine / other
    met = ratio >= most if goal.times else ratio <= most
    return Verdict(goal.measure, f"{name} {ratio:.2f}", words, met)
