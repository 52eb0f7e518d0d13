"""`rt cp`: copy files into or out of a bundle whatever ids they belong to."""

from __future__ import annotations

from rootless_rt.cli import inside
from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.own_files import run_tool


def run(inv: Invocation) -> int:
    """Copy with all below; what is made is the caller's. cp(1)'s exit code."""
    *sources, destination = inv.args
    for source in sources:
        inside.check(source, followed=False)
    inside.check(destination, followed=True)
    # What is there is replaced: a link of the image below the destination would be written through. -d keeps
    # symbolic links, and hard links among what is copied.
    return run_tool(inv, "cp", ["-R", "-d", "--remove-destination", "--", *inv.args])
