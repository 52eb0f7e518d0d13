"""Draws a results file: the table with bars and goals, and the curves: `draw.py RESULTS.json OUT.svg`.

Needs matplotlib, which nothing else here does. Knows the form of a results file (results.py) and nothing of
how it was measured. Text stays text in an SVG: small files, and differences that can be read.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measure import Unable
from report import milliseconds
from results import figures, load

PEERS = ("rt", "runc", "crun", "bwrap")
COLOURS = {"rt": "#c0392b", "runc": "#7f8c8d", "crun": "#34495e", "bwrap": "#b8a06a"}
SHADES = {True: "#1e7b34", False: "#b03a2e", None: "#444444"}  # of a goal: met, missed, not known
STYLE: Any = {  # matplotlib types each key by itself
    "svg.fonttype": "none",
    "svg.hashsalt": "rt",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
# Inches.
WIDTH = 11.0
ROW = 0.24  # one row of the table
CURVES = 2.5  # a row of curves
HEAD = 0.6  # the title
COLUMNS = {"rt": 3.2, "runc": 3.85, "crun": 4.5, "bwrap": 5.15}  # the right edges of the figures
BARS, GOALS = (5.35, 6.4), 6.6
GOAL = 1.45  # the width of one


def pyplot() -> Any:
    """matplotlib's, for files alone. Raises `Unable` without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("agg")  # no display
        import matplotlib.pyplot as plt
    except ImportError as error:
        hint = f"hint: {sys.executable} -m pip install matplotlib"
        raise Unable(f"cannot draw: {error}\n{hint}") from None
    return plt


def draw(whole: Mapping[str, Any], path: Path) -> None:
    """Draws a run into a file; its suffix says as what. Raises `Unable` when it cannot be written."""
    plt = pyplot()
    rows = _rows(whole)
    curves = [curve for case in whole["cases"] for curve in case["curves"] if curve["growth"]]
    down = -(-len(curves) // 2)
    table = ROW * (len(rows) + 2)
    height = HEAD + table + CURVES * down
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(WIDTH, height), facecolor="white")
        figure.text(0.01, 1 - 0.12 / height, _title(whole["facts"]), va="top", linespacing=1.5)
        if rows:
            area = (0, (CURVES * down) / height, 1, table / height)
            _table(figure.add_axes(area), whole, rows)
        for number, curve in enumerate(curves):
            left, bottom = 0.06 + 0.5 * (number % 2), CURVES * (down - 1 - number // 2) + 0.45
            _curve(figure.add_axes((left, bottom / height, 0.42, (CURVES - 0.95) / height)), curve)
        try:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        except (OSError, ValueError) as error:
            raise Unable(f"cannot draw {path}: {error}") from None
        finally:
            plt.close(figure)


def _title(facts: Mapping[str, str]) -> str:
    """When, where, with what: two lines."""
    versions = [facts[peer].partition(" (")[0].replace(" version", "") for peer in PEERS if peer in facts]
    place = [facts.get("date", ""), f"Linux {facts.get('kernel', '')}", f"CPUs: {facts.get('CPUs', '')}"]
    rounds = f"medians of {facts.get('rounds', '?')} rounds in turns"
    return " · ".join(place) + "\n" + " · ".join([*versions, rounds])


def _rows(whole: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, float]]]:
    """(name, unit, figure of each peer) of the rows that have one of rt."""
    known = figures(whole)
    timed = [(row["measure"], "ms") for case in whole["cases"] for row in case["rows"]]
    weighed = [(row["measure"], "kB") for case in whole["cases"] for row in case["memory"]]
    return [(name, unit, known[name]) for name, unit in timed + weighed if "rt" in known.get(name, {})]


def _table(axes: Any, whole: Mapping[str, Any], rows: Sequence[tuple[str, str, Mapping[str, float]]]) -> None:
    """The figures of each peer, as bars too (a share of the largest in the row), and the goals."""
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(len(rows) + 0.5, -1.5)
    axes.axis("off")
    for peer, edge in COLUMNS.items():
        axes.text(edge, -1, peer, ha="right", va="center", color=COLOURS[peer], fontweight="bold")
    axes.text(GOALS, -1, "measured (goal)", va="center")
    thin = 0.8 / len(PEERS)
    for number, (name, unit, values) in enumerate(rows):
        axes.text(0.1, number, f"{name}, {unit}", va="center")
        largest = max(values.values())
        for place, peer in enumerate(COLUMNS):
            if peer not in values:
                continue
            words = milliseconds(values[peer]) if unit == "ms" else f"{values[peer]:,}"
            axes.text(COLUMNS[peer], number, words, ha="right", va="center")
            width = (BARS[1] - BARS[0]) * values[peer] / largest
            y = number - 0.4 + thin * (place + 0.5)
            axes.barh(y, width, left=BARS[0], height=thin, color=COLOURS[peer])
        x = GOALS
        for goal in (goal for goal in whole["goals"] if goal["measure"] == name):
            mark = {True: " ✓", False: " ✗", None: ""}[goal["met"]]
            words = f"{goal['figure']} ({goal['goal']}){mark}"
            axes.text(x, number, words, va="center", fontsize=7, color=SHADES[goal["met"]])
            x += GOAL


def _curve(axes: Any, curve: Mapping[str, Any]) -> None:
    """One curve of each peer."""
    for peer in PEERS:
        found = [(point["n"], point["peers"].get(peer, {}).get("ms")) for point in curve["points"]]
        known = [(size, time) for size, time in found if time is not None]
        if len(known) > 1:
            form = curve["growth"].get(peer)
            label = f"{peer}: {form['each']:.0f} µs each, {form['verdict']}" if form else peer
            axes.plot(*zip(*known, strict=True), marker="o", markersize=3, color=COLOURS[peer], label=label)
    axes.set_title(curve["measure"], fontsize=8, loc="left")
    axes.set_xlabel(curve["unit"])
    axes.set_ylabel("ms")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)  # room for the legend
    axes.set_xlim(left=0)
    axes.legend(frameon=False, fontsize=7, loc="upper left")


def main() -> int:
    if len(sys.argv) != 3:
        print("usage: draw.py RESULTS.json OUT.svg", file=sys.stderr)
        return 2
    try:
        draw(load(Path(sys.argv[1])), Path(sys.argv[2]))
    except Unable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
