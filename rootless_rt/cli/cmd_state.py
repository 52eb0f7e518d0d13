"""`rt state`: the state of one container as JSON."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.common import store_of
from rootless_rt.cli.output import write
from rootless_rt.container.lifecycle import public_state
from rootless_rt.container.store import check_id
from rootless_rt.spec.jsonio import dumps


def run(inv: Invocation) -> int:
    """Print the state of the container ID."""
    handle = store_of(inv).open(check_id(inv.args[0]))
    write(dumps(public_state(handle, handle.read_state()), "  ") + "\n")
    return 0
