"""`rt rm`: remove files that belong to ids of /etc/subuid."""

from __future__ import annotations

from rootless_rt.cli import inside
from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.own_files import run_tool


def run(inv: Invocation) -> int:
    """Remove the paths and all below them; rm(1)'s exit code."""
    for path in inv.args:
        inside.check(path, followed=False)
    return run_tool(inv, "rm", ["-rf", "--", *inv.args])
