"""Writes the table of docs/engines.md from docs/engines.json: python3 docs/generate_engines.py

The numbers come from a run of all tests of engines (`make engines`), which leaves them in
build/engines.json; with `--take` they are taken from there into docs/engines.json first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
PAGE = TREE / "docs/engines.md"
NUMBERS = TREE / "docs/engines.json"
FRESH = TREE / "build/engines.json"
START, END = "<!-- table of docs/generate_engines.py -->\n", "<!-- end of the table -->\n"


def table(numbers: dict[str, dict[str, int]]) -> str:
    """A row for each engine and mode."""
    lines = ["| engine | mode | cases | pass on runc | pass on rt |", "|---|---|--:|--:|--:|"]
    for where, row in sorted(numbers.items()):
        engine, _, mode = where.partition(", ")
        lines.append(f"| {engine} | {mode} | {row['cases']} | {row['runc']} | {row['rt']} |")
    return "\n".join(lines) + "\n"


def page(old: str) -> str:
    """The page with the table of docs/engines.json in its place."""
    before, _, rest = old.partition(START)
    return before + START + table(json.loads(NUMBERS.read_text())) + END + rest.partition(END)[2]


def take() -> None:
    """Take the numbers of the last run over; those of engines that did not run in it stay."""
    numbers = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    numbers.update(json.loads(FRESH.read_text()))
    NUMBERS.write_text(json.dumps(numbers, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--take"]:
        take()
    PAGE.write_text(page(PAGE.read_text()))
