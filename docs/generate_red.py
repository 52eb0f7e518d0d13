"""Writes the table of tests that can fail into docs/security.md: python3 docs/generate_red.py

Knows the patches of tests/cve/red (tools/red_patches.py) and the place in the page, nothing else.
tests/unit/house/test_red.py fails when the table is older than the patches.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
if str(TREE / "tools") not in sys.path:
    sys.path.insert(0, str(TREE / "tools"))

from red_patches import named_tests, patches, taken_out  # noqa: E402

PAGE = TREE / "docs/security.md"
BEGIN = "<!-- Written by docs/generate_red.py from tests/cve/red. -->\n"
END = "<!-- End of what docs/generate_red.py writes. -->\n"


def page() -> str:
    """The whole page, the table in it new."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{PAGE} has no place for the table: {BEGIN.strip()} ... {END.strip()}")
    return before + BEGIN + table() + END + after


def table() -> str:
    rows = [
        f"| {_attacks(named_tests(patch))} | {taken_out(patch)} | `{patch.stem}` |" for patch in patches()
    ]
    return "\n".join(["| attack | taken out | patch |", "|---|---|---|", *rows]) + "\n"


def _attacks(tests: list[str]) -> str:
    """The CVEs, or the files of other tests, that go red."""
    found = []
    for test in tests:
        file = test.split("::")[0]
        numbers = re.fullmatch(r"tests/cve/test_cve_(\d+)_(\d+)\.py", file)
        found.append(f"CVE-{numbers[1]}-{numbers[2]}" if numbers else f"`{file}`")
    return ", ".join(dict.fromkeys(found))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
