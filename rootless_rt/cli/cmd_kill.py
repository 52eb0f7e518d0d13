"""`rt kill`: a signal for a container."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation, flag
from rootless_rt.cli.common import store_of
from rootless_rt.container.lifecycle import kill
from rootless_rt.spec.names import signal_number


def run(inv: Invocation) -> int:
    """Send SIGNAL (TERM unless named) to the container ID, or with --regex to all that match it."""
    number = signal_number(inv.args[1] if len(inv.args) > 1 else "TERM")
    store, everyone = store_of(inv), flag(inv.options, "all")
    if flag(inv.options, "regex"):
        from rootless_rt.cli.each import each

        each(store, inv.args[0], lambda container_id: kill(store, container_id, number, everyone=everyone))
    else:
        kill(store, inv.args[0], number, everyone=everyone)
    return 0
