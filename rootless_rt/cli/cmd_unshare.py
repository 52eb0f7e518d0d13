"""`rt unshare`: a program, or a shell, as root of the caller's id map."""

from __future__ import annotations

from rootless_rt import paths
from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.own_files import run_program


def run(inv: Invocation) -> int:
    """Run the command in a user namespace with all granted ids; its exit code."""
    return run_program(inv, list(inv.args) or [paths.environment().get("SHELL") or "/bin/sh"])
