"""`rt pause`: stop all processes of a container."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.common import store_of
from rootless_rt.container.pause import pause


def run(inv: Invocation) -> int:
    """Pause the container ID."""
    pause(store_of(inv), inv.args[0])
    return 0
