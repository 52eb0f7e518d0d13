"""`rt kill`: a signal for a container."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation, flag
from rootless_rt.cli.common import store_of
from rootless_rt.container.lifecycle import kill
from rootless_rt.spec.names import signal_number


def run(inv: Invocation) -> int:
    """Send SIGNAL (TERM unless named) to the container ID."""
    number = signal_number(inv.args[1] if len(inv.args) > 1 else "TERM")
    kill(store_of(inv), inv.args[0], number, everyone=flag(inv.options, "all"))
    return 0
