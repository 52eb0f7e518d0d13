"""`rt events`: statistics of a container as lines of JSON, and word of its memory running out."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation, flag, text
from rootless_rt.cli.common import store_of
from rootless_rt.cli.output import OutputClosed, write
from rootless_rt.container import events
from rootless_rt.errors import RtError
from rootless_rt.spec.amounts import duration
from rootless_rt.spec.jsonio import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SHORTEST = 1_000_000  # nanoseconds
_STDOUT = 1


def run(inv: Invocation) -> int:
    """Print the events of the container ID, until it ends; with --stats its statistics once."""
    store, container_id = store_of(inv), inv.args[0]
    try:
        if flag(inv.options, "stats"):
            events.show(store, container_id, _print)
        else:
            interval = _interval(text(inv.options, "interval") or "")
            events.follow(store, container_id, interval, _print, _STDOUT)
    except OutputClosed:
        return 0
    return 0


def _interval(given: str) -> int:
    try:
        interval = duration(given)
    except RtError as error:
        raise RtError(f"--interval: {error.message}") from None
    if interval < _SHORTEST:
        raise RtError(f"--interval: expected at least 1ms, got {given}")
    return interval


def _print(event: dict[str, Any]) -> None:
    write(dumps(event) + "\n")
