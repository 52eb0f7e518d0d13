"""Reads the patches of tests/cve/red: what each takes out, and which tests must then fail.

A patch begins with `Test:` lines, each a test as pytest takes it, then has a sentence on what is taken out,
and then the diff. Knows their form only: `red_runs.py` runs them, `docs/generate_red.py` lists them.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
PATCHES = TREE / "tests/cve/red"


def patches() -> list[Path]:
    return sorted(PATCHES.glob("*.patch"))


def named_tests(patch: Path) -> list[str]:
    """The tests that a patch names. Raises ValueError when it names none."""
    lines = patch.read_text().splitlines()
    found = [line.removeprefix("Test:").strip() for line in lines if line.startswith("Test:")]
    if not found:
        raise ValueError(f"{patch.name} names no test: a line such as `Test: tests/cve/test_x.py`")
    return found


def taken_out(patch: Path) -> str:
    """The sentence on what the patch takes out. Raises ValueError when there is none."""
    head = patch.read_text().split("\n--- ", 1)[0].splitlines()
    sentence = " ".join(line.strip() for line in head if line and not line.startswith("Test:"))
    if not sentence.endswith("."):
        raise ValueError(f"{patch.name} does not say in a sentence what it takes out")
    return sentence


def applies(patch: Path, tree: Path, *, only_try: bool = False) -> bool:
    """Apply a patch to a tree, or see whether it would; not where the code around it is another by now."""
    words = ["patch", "-p1", "-s", "-F0", "-f", "--no-backup-if-mismatch", "-d", str(tree)]
    with patch.open("rb") as text:
        done = subprocess.run(
            [*words, *(["--dry-run"] if only_try else [])], stdin=text, capture_output=True, check=False
        )
    return done.returncode == 0
