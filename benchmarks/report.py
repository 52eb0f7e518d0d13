"""The tables: times with ratios, memory, what was not measured and why, and where it was measured.

Pure: takes results (their form is described in cases.py), gives lines of text.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

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


def _values(row: dict[str, Any], peers: Sequence[str]) -> dict[str, float | None]:
    """The figure of every peer in one row: median milliseconds, or kB; None where there is none."""
    values: dict[str, float | None] = {}
    for peer in peers:
        cell = row["peers"].get(peer, {})
        values[peer] = statistics.median(cell["ms"]) if cell.get("ms") else cell.get("kb")
    return values


def _table_of(
    title: str, rows: Sequence[dict[str, Any]], peers: Sequence[str], *, markdown: bool
) -> list[str]:
    lines = []
    for row in rows:
        values = _values(row, peers)
        cells = [row["measure"]]
        for peer in peers:
            times, value = row["peers"].get(peer, {}).get("ms"), values[peer]
            if value is None:
                cells.append(NOTHING)
            else:
                cells.append(f"{value:.1f} ({min(times):.1f})" if times else f"{value:,.0f}")
        cells += [_ratio(values["rt"], values.get(other)) for other in RATIOS]
        lines.append(cells)
    return table([title, *peers, *(f"rt/{other}" for other in RATIOS)], lines, markdown=markdown)


def _absences(results: Sequence[dict[str, Any]], peers: Sequence[str]) -> list[str]:
    """One line per reason, with the rows that it explains; a reason of a whole case stands once."""
    rows_of: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for row in [*result["rows"], *result["memory"]]:
            for peer in peers:
                reason = row["peers"].get(peer, {}).get("reason")
                if reason and result["case"] not in rows_of.setdefault((peer, reason), []):
                    rows_of[peer, reason].append(result["case"])
    return [
        f"{peer}, {', '.join(cases)}: not measured: {reason}" for (peer, reason), cases in rows_of.items()
    ]


def render(
    results: Sequence[dict[str, Any]],
    peers: Sequence[str],
    environment: Sequence[tuple[str, str]],
    *,
    markdown: bool,
) -> str:
    """The whole report. `environment` is (what, value) pairs."""
    bullet = "- " if markdown else "  "
    lines = [f"{bullet}{what}: {value}" for what, value in environment]
    for result in results:
        if result.get("load", 0.0) >= BUSY:
            lines.append(f"{bullet}{result['case']}: others used {result['load']:.0%} of the CPUs meanwhile")
    for title, key in (("median (minimum), ms", "rows"), ("memory, kB", "memory")):
        rows = [row for result in results for row in result[key]]
        shown = [row for row in rows if any(value is not None for value in _values(row, peers).values())]
        if shown:
            lines += ["", *_table_of(title, shown, peers, markdown=markdown)]
    absences = _absences(results, peers)
    if absences:
        lines += ["", *(f"{bullet}{line}" for line in absences)]
    return "\n".join(lines)
