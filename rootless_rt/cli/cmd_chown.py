"""`rt chown`: make files that belong to ids of /etc/subuid the caller's own."""

from __future__ import annotations

from rootless_rt.cli import inside
from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.own_files import run_tool


def run(inv: Invocation) -> int:
    """Give the paths and all below them to the caller; chown(1)'s exit code."""
    for path in inv.args:
        inside.check(path, followed=False)
    return run_tool(inv, "chown", ["-R", "-h", "0:0", "--", *inv.args])
