"""`rt resume`: let the processes of a paused container go on."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.common import store_of
from rootless_rt.container.pause import resume


def run(inv: Invocation) -> int:
    """Resume the container ID."""
    resume(store_of(inv), inv.args[0])
    return 0
