"""`rt cp`: copy files into or out of a bundle whatever ids they belong to."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.own_files import run_tool


def run(inv: Invocation) -> int:
    """Copy with all below; what is made is the caller's. cp(1)'s exit code."""
    return run_tool(inv, "cp", ["-R", "-P", "--", *inv.args])
