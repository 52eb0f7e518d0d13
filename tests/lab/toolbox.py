"""A Debian root with the tools of a developer in it, for anybody to run read-only: nobody owns a file there.

Built once on a machine, by root, as the machines' roots are (see machines/debian.py).
"""

from __future__ import annotations

from lab.machines.debian import Image

TOOLS = Image("toolbox", "bookworm", ("python3", "git", "gcc", "libc6-dev", "make"), boot=False)
