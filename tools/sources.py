"""Prints the files of the two packages, one a line, for meson.build: Python, type marker, data; C for its dependencies."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGES = ("rootless_rt", "idmap")
INSTALLED = (".py", ".pyi", ".json", "py.typed")
COMPILED = (".c", ".h")


def main() -> None:
    tree = Path(__file__).resolve().parent.parent
    for package in PACKAGES:
        for directory, below, names in os.walk(tree / package):
            below[:] = sorted(name for name in below if name != "__pycache__")
            for name in sorted(names):
                if name.endswith(INSTALLED + COMPILED):
                    print((Path(directory) / name).relative_to(tree))


if __name__ == "__main__":
    main()
