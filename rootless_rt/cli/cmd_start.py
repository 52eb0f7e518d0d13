"""`rt start`: let a created container execute its program."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.common import log_of, notify_socket, store_of
from rootless_rt.container.start import see_through, start
from rootless_rt.spec.names import decimal


def run(inv: Invocation) -> int:
    """Start the container ID."""
    if inv.held:
        directory, _, connection = inv.held.partition(",")
        see_through(store_of(inv), inv.args[0], decimal(directory) or -1, decimal(connection) or -1)
    else:
        start(store_of(inv), inv.args[0], log_of(inv).warning, notify=notify_socket())
    return 0
