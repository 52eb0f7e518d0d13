"""`rt delete`: remove a container."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation, flag
from rootless_rt.cli.common import log_of, store_of
from rootless_rt.container.lifecycle import delete


def run(inv: Invocation) -> int:
    """Remove the container ID."""
    delete(store_of(inv), inv.args[0], log_of(inv).warning, force=flag(inv.options, "force"))
    return 0
