"""Writes rootless_rt/_commit.py, which says the commit a build was made from: commit.py [FILE].

As a script of `meson dist` (MESON_DIST_ROOT is set) it writes the one of the distribution.
Knows git and the file's form. The file is no part of the repository. A tree without git (a source
distribution, a copy) keeps the file that it came with; where there is nothing to know, none is written.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
FILE = TREE / "rootless_rt/_commit.py"


def content() -> str:
    """The module's text."""
    if not (TREE / ".git").exists() and FILE.exists():
        return FILE.read_text()
    return f'''"""The commit that this was built from; written by tools/commit.py."""

COMMIT = "{described()}"
'''


def described() -> str:
    """The commit's hash, with `-dirty` when tracked files differ from it; empty without git or history."""
    if not (TREE / ".git").exists():
        return ""
    # The tree may belong to another user than the one who builds (sudo): git wants to be told that so be it.
    command = ["git", "-c", f"safe.directory={TREE}", "-C", str(TREE), "describe"]
    wanted = ["--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def write(file: Path = FILE) -> None:
    """Writes the file when its text would change: its time stamp counts for byte-compilation."""
    text = content()
    if not file.exists() or file.read_text() != text:
        file.write_text(text)


if __name__ == "__main__":
    if "MESON_DIST_ROOT" in os.environ:
        write(Path(os.environ["MESON_DIST_ROOT"]) / FILE.relative_to(TREE))
    else:
        write(*(Path(name) for name in sys.argv[1:2]))
