"""`rt start`: let a created container execute its program."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.common import log_of, notify_socket, store_of
from rootless_rt.container.start import start


def run(inv: Invocation) -> int:
    """Start the container ID."""
    start(store_of(inv), inv.args[0], log_of(inv).warning, notify=notify_socket())
    return 0
