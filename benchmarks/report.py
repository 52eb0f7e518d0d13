"""The tables: goals, times with ratios, memory, curves, what changed, what was not measured and why.

Pure: takes results (their form is described in results.py), gives lines of text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from results import CHANGED, changes

NOTHING = "-"
RATIOS = ("runc", "crun")
BUSY = 0.1


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool) -> list[str]:
    """Aligned columns, the first one to the left; with `markdown`, as a Markdown table."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        parts = [cells[0].ljust(widths[0])]
        parts += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join(parts)} |" if markdown else "  ".join(parts).rstrip()

    if markdown:
        rule = ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])]
        return [line(head), line(rule), *(line(row) for row in rows)]
    return [line(head), "-" * len(line(head)), *(line(row) for row in rows)]


def _ratio(mine: float | None, other: float | None) -> str:
    return f"{mine / other:.2f}" if mine is not None and other else NOTHING


def milliseconds(value: float) -> str:
    """A time with three digits or so."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _cell(cell: Mapping[str, Any]) -> str:
    if "ms" in cell:
        return f"{milliseconds(cell['ms'])} ({milliseconds(cell['least'])})"
    return f"{cell['kb']:,}" if "kb" in cell else NOTHING


def _comparison(
    title: str, rows: Sequence[Mapping[str, Any]], peers: Sequence[str], *, markdown: bool
) -> list[str]:
    lines = []
    for row in rows:
        cells = [row["peers"].get(peer, {}) for peer in peers]
        values = {peer: cell.get("ms", cell.get("kb")) for peer, cell in zip(peers, cells, strict=True)}
        ratios = [_ratio(values["rt"], values.get(other)) for other in RATIOS]
        lines.append([row["measure"], *map(_cell, cells), *ratios])
    return table([title, *peers, *(f"rt/{other}" for other in RATIOS)], lines, markdown=markdown)


def _curves(curves: Sequence[Mapping[str, Any]], peers: Sequence[str], *, markdown: bool) -> list[str]:
    lines = []
    for curve in curves:
        lines += [""]
        rows = []
        for peer in peers:
            cells = [point["peers"].get(peer, {}) for point in curve["points"]]
            form = curve["growth"].get(peer)
            if not form:
                continue
            bend = f"{form['bend']:+.0%} ({form['low']:+.0%} to {form['high']:+.0%})"
            row = [peer, *map(_cell, cells), f"{form['each']:.1f} µs", bend, form["verdict"]]
            rows.append(row)
        sizes = [f"{point['n']}" for point in curve["points"]]
        head = [f"{curve['measure']}, ms", *sizes, "for one more", "bend", "growth"]
        lines += table(head, rows, markdown=markdown)
    return lines


def _absences(cases: Sequence[Mapping[str, Any]], peers: Sequence[str]) -> list[str]:
    """One line per reason, with the cases that it explains."""
    cases_of: dict[tuple[str, str], list[str]] = {}
    for case in cases:
        points = [point for curve in case["curves"] for point in curve["points"]]
        for row in (*case["rows"], *case["memory"], *points):
            for peer in peers:
                reason = row["peers"].get(peer, {}).get("reason")
                if reason and case["case"] not in cases_of.setdefault((peer, reason), []):
                    cases_of[peer, reason].append(case["case"])
    return [
        f"{peer}, {', '.join(names)}: not measured: {reason}" for (peer, reason), names in cases_of.items()
    ]


def goals(verdicts: Sequence[Mapping[str, Any]], *, markdown: bool) -> list[str]:
    """The table of goals, and how many are met."""
    words = {True: "met", False: "MISSED", None: "not known"}
    rows = [[one["measure"], one["figure"], one["goal"], words[one["met"]]] for one in verdicts]
    met = sum(one["met"] is True for one in verdicts)
    return [*table(["goals", "measured", "goal", ""], rows, markdown=markdown), f"{met} of {len(rows)} met"]


def compared(now: Mapping[str, Any], then: Mapping[str, Any], *, markdown: bool) -> list[str]:
    """The ratios that moved since another run, the worst first."""
    found = [(new / old, measure, peer, old, new) for measure, peer, old, new in changes(now, then)]
    found.sort(reverse=True)
    rows = [
        [f"{measure}, rt/{peer}", f"{old:.2f}", f"{new:.2f}", f"{change:.2f}"]
        for change, measure, peer, old, new in found
        if abs(change - 1) > CHANGED
    ]
    close = f"{len(found) - len(rows)} of {len(found)} ratios are within {CHANGED:.0%} of that run"
    since = f"since {then['facts'].get('date', 'an earlier run')}"
    return [*(table([since, "then", "now", "now/then"], rows, markdown=markdown) if rows else []), close]


def render(whole: Mapping[str, Any], peers: Sequence[str], *, markdown: bool) -> str:
    """The report of a run, but for the comparison with another."""
    bullet = "- " if markdown else "  "
    cases = whole["cases"]
    lines = [f"{bullet}{what}: {value}" for what, value in whole["facts"].items()]
    for case in cases:
        if case.get("load", 0.0) >= BUSY:
            lines.append(f"{bullet}{case['case']}: others used {case['load']:.0%} of the CPUs meanwhile")
    for title, key in (("median (minimum), ms", "rows"), ("memory, kB", "memory")):
        rows = [row for case in cases for row in case[key]]
        shown = [row for row in rows if any("reason" not in cell for cell in row["peers"].values())]
        if shown:
            lines += ["", *_comparison(title, shown, peers, markdown=markdown)]
    lines += _curves([curve for case in cases for curve in case["curves"]], peers, markdown=markdown)
    if whole["goals"]:
        lines += ["", *goals(whole["goals"], markdown=markdown)]
    if absences := _absences(cases, peers):
        lines += ["", *(f"{bullet}{line}" for line in absences)]
    return "\n".join(lines)
