"""`rt chown`: make files that belong to ids of /etc/subuid the caller's own."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.own_files import run_tool


def run(inv: Invocation) -> int:
    """Give the paths and all below them to the caller; chown(1)'s exit code."""
    return run_tool(inv, "chown", ["-R", "-h", "0:0", "--", *inv.args])
