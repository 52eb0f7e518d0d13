"""Telling what happens to a container: its statistics at intervals, and that memory ran out.

Waits in one poll for the container's end, for the kernel's word on memory and for the next interval; between
them nothing runs. Loaded by `events` alone.
"""

from __future__ import annotations

import posix
import select
import time

from rootless_rt.cgroups import oom, stats
from rootless_rt.container import processes
from rootless_rt.container.lifecycle import status_of
from rootless_rt.container.record import has_cgroup, manager
from rootless_rt.container.store import Store, check_id
from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Emit = Callable[[dict[str, Any]], None]

_LONGEST_MS = (1 << 31) - 1  # of one poll(2)


def _find(store: Store, container_id: str) -> dict[str, Any]:
    """The state of a container with a cgroup, whose process has not ended. Raises RtError."""
    handle = store.open(check_id(container_id))
    try:
        state = handle.read_state()
        if status_of(handle, state) in ("stopped", "creating"):
            raise RtError(
                f"container with id {container_id} is not running", hint=f"rt state {container_id} tells more"
            )
    finally:
        handle.close()
    if not has_cgroup(state):
        reason = state["cgroup"].get("reason") or "none was asked for"
        raise RtError(
            f"no statistics: the container has no cgroup ({reason})",
            hint="start it where one is delegated: systemd-run --user --scope -p Delegate=yes COMMAND",
        )
    return state


def show(store: Store, container_id: str, emit: Emit) -> None:
    """Emit the statistics once. Raises RtError."""
    emit(_statistics(_find(store, container_id), container_id))


def follow(store: Store, container_id: str, interval: int, emit: Emit, reader: int) -> None:
    """Emit statistics every `interval` nanoseconds, and out-of-memory events, until the container ends.

    `reader` is the descriptor that `emit` writes to: when nobody reads it any more, that is the end too.
    Raises RtError.
    """
    state = _find(store, container_id)
    pidfd = processes.open_process(state)
    if pidfd < 0:
        raise RtError(f"container with id {container_id} is not running")
    watched = None
    try:
        watched = oom.watch(manager(state))
        _follow(state, container_id, pidfd, watched, interval, emit, reader)
    finally:
        posix.close(pidfd)
        if watched is not None:
            watched.close()


def _follow(
    state: dict[str, Any],
    container_id: str,
    pidfd: int,
    watched: oom.Watch | None,
    interval: int,
    emit: Emit,
    reader: int,
) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(reader, 0)
    if watched is not None:
        poll.register(watched.fd, watched.mask)
    following = time.monotonic_ns() + interval
    while True:
        rest = following - time.monotonic_ns()
        # Rounded up: a poll that ends early would be called again at once.
        ready = dict(poll.poll(min(max(0, -(-rest // 1_000_000)), _LONGEST_MS)))
        ended = pidfd in ready
        if watched is not None and (ended or watched.fd in ready):
            for _ in range(watched.last() if ended else watched.fresh()):
                emit({"type": "oom", "id": container_id})
        if ended or reader in ready:
            return
        if time.monotonic_ns() >= following:
            emit(_statistics(state, container_id))
            following = max(following + interval, time.monotonic_ns())


def _statistics(state: dict[str, Any], container_id: str) -> dict[str, Any]:
    data = stats.collect(manager(state))
    if "rdt" in state:
        from rootless_rt.cgroups.resctrl_stats import collect

        data["intel_rdt"] = collect(state["rdt"], container_id)
    return {"type": "stats", "id": container_id, "data": data}
