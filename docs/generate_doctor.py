"""Writes the table of ids in docs/rootless.md from the doctor's catalogue: python3 docs/generate_doctor.py"""

from __future__ import annotations

import sys
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TREE))

from rootless_rt.host.doctor.fixes import install  # noqa: E402
from rootless_rt.host.doctor.reasons import REASONS  # noqa: E402

PAGE = TREE / "docs/rootless.md"
START, END = "<!-- table of docs/generate_doctor.py -->\n", "<!-- end of the table -->\n"


def table() -> str:
    """A row for each id, in the order in which they are shown."""
    lines = ["| id | worst | cause | what helps |", "|---|---|---|---|"]
    for reason in REASONS:
        fixes = list(reason.fixes)
        if reason.thing:
            fixes.append(install(reason.thing, "apt")[0])
        cells = [
            f"`{reason.id}`",
            reason.severity,
            f"{reason.what}: {reason.cause}",
            "; ".join(dict.fromkeys(fixes)),
        ]
        lines.append(
            "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"
        )
    return "\n".join(lines) + "\n"


def page(old: str) -> str:
    """The page with the table in its place."""
    before, _, rest = old.partition(START)
    return before + START + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
