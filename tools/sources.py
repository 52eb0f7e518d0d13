"""Prints the files of the two packages, one a line, for meson.build: Python, markers, data and C."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGES = ("rootless_rt", "idmap")
INSTALLED = (".py", ".pyi", ".json", "py.typed")
COMPILED = (".c", ".h")
GENERATED = {"__pycache__", "_commit.py"}  # the latter by commit.py, at every build


def listing(tree: Path) -> list[str]:
    """The files, as paths relative to the tree."""
    found = []
    for package in PACKAGES:
        for directory, below, names in os.walk(tree / package):
            below[:] = sorted(set(below) - GENERATED)
            for name in sorted(set(names) - GENERATED):
                if name.endswith(INSTALLED + COMPILED):
                    found.append(str((Path(directory) / name).relative_to(tree)))
    return found


if __name__ == "__main__":
    print("\n".join(listing(Path(__file__).resolve().parent.parent)))
