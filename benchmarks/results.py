"""The results file: a run as plain JSON, and how this run differs from an earlier one.

Pure but for reading and writing the file. A file holds when, with what and how it was measured, and of each
row the median, the least and the number of times; nothing of it names the machine.

    {"format": 1, "facts": {what: value},
     "cases": [{"case", "load", "view", "rows": [{"measure", "peers": {peer: cell}}], "memory": as rows,
                "curves": [{"measure", "unit", "from", "points": [{"n", "peers"}], "growth": {peer: form}}]}],
     "goals": [{"measure", "figure", "goal", "met"}]}

A cell is {"ms": median, "least": ms, "times": count}, {"kb": number} or {"reason": text}.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from goals import judge
from growth import growth
from measure import Unable

FORMAT = 1
RATIOS = ("runc", "crun", "bwrap")
CHANGED = 0.1  # a ratio that moved by less says nothing on a machine that does other things, too


def summary(facts: Mapping[str, str], raw: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The results file's content; `raw` is as contest.py describes it."""
    cases = [_case(one) for one in raw]
    whole: dict[str, Any] = {"format": FORMAT, "facts": dict(facts), "cases": cases}
    curves = [curve for case in cases for curve in case["curves"]]
    whole["goals"] = [asdict(verdict) for verdict in judge(figures(whole), curves)]
    return whole


def _case(raw: dict[str, Any]) -> dict[str, Any]:
    case = {key: value for key, value in raw.items() if key in ("case", "load", "view")}
    if "load" in case:
        case["load"] = round(case["load"], 3)
    for part in ("rows", "memory"):
        case[part] = [{"measure": row["measure"], "peers": _cells(row["peers"])} for row in raw[part]]
    case["curves"] = [_curve(curve) for curve in raw["curves"]]
    return case


def _cells(peers: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    cells = {}
    for peer, cell in peers.items():
        if times := cell.get("ms"):
            middle, least = round(statistics.median(times), 3), round(min(times), 3)
            cells[peer] = {"ms": middle, "least": least, "times": len(times)}
        else:
            cells[peer] = cell
    return cells


def _curve(raw: dict[str, Any]) -> dict[str, Any]:
    points = [{"n": point["n"], "peers": _cells(point["peers"])} for point in raw["points"]]
    forms = {}
    fitted = [point for point in raw["points"] if point["n"] >= raw["from"]]
    for peer in raw["points"][0]["peers"]:
        times = {point["n"]: point["peers"][peer].get("ms", []) for point in fitted}
        if len(times) > 2 and all(times.values()):
            form = growth(times)
            digits = {key: round(value, 3) for key, value in asdict(form).items()}
            forms[peer] = {**digits, "verdict": form.verdict}
    return {**{key: raw[key] for key in ("measure", "unit", "from")}, "points": points, "growth": forms}


def figures(whole: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The figure of every row and peer that has one: median milliseconds, or kB."""
    found: dict[str, dict[str, float]] = {}
    for case in whole["cases"]:
        for row in (*case["rows"], *case["memory"]):
            cells = row["peers"].items()
            known = {peer: cell.get("ms", cell.get("kb")) for peer, cell in cells if "reason" not in cell}
            if known:
                found[row["measure"]] = known
    return found


def changes(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[tuple[str, str, float, float]]:
    """(row, peer, ratio then, ratio now) of each ratio rt/peer that both runs have.

    Ratios of ratios are what two runs can be compared by: another hour moves the milliseconds of all peers.
    """
    new, old = figures(now), figures(then)
    found = []
    for measure, values in new.items():
        before = old.get(measure, {})
        for peer in RATIOS:
            if "rt" in values and "rt" in before and values.get(peer) and before.get(peer):
                found.append((measure, peer, before["rt"] / before[peer], values["rt"] / values[peer]))
    return found


def insist_writable(path: Path) -> None:
    """Raises `Unable` when a results file cannot be written there: better before an hour of measuring."""
    nearest = path if path.exists() else next(one for one in path.absolute().parents if one.exists())
    if not os.access(nearest, os.W_OK):
        raise Unable(f"cannot write {path}\nhint: name another file: --results FILE")


def save(whole: Mapping[str, Any], path: Path) -> None:
    """Writes the file, with the directories above it. Raises `Unable`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise Unable(f"cannot write {path}: {error.strerror}") from None


def load(path: Path) -> dict[str, Any]:
    """An earlier run. Raises `Unable` when there is none, or not of this form."""
    try:
        whole = json.loads(path.read_text())
    except OSError as error:
        raise Unable(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise Unable(f"{path} is not JSON: {error}") from None
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise Unable(f"{path} is not a results file of form {FORMAT}")
    return whole
