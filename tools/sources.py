"""Prints the files of the two packages, one a line, for meson.build: Python, markers, data and C."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGES = ("rootless_rt", "idmap")
INSTALLED = (".py", ".pyi", ".json", "py.typed")
COMPILED = (".c", ".h")


def listing(tree: Path) -> list[str]:
    """The files, as paths relative to the tree."""
    found = []
    for package in PACKAGES:
        for directory, below, names in os.walk(tree / package):
            below[:] = sorted(name for name in below if name != "__pycache__")
            for name in sorted(names):
                if name.endswith(INSTALLED + COMPILED):
                    found.append(str((Path(directory) / name).relative_to(tree)))
    return found


if __name__ == "__main__":
    print("\n".join(listing(Path(__file__).resolve().parent.parent)))
