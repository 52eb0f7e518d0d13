"""Pausing a container and letting it go on, by the freezer of its cgroup.

Not part of the runtime-spec; states and messages are those that engines know. Loaded by these two
commands alone.
"""

from __future__ import annotations

from rootless_rt.container.lifecycle import status_of
from rootless_rt.container.record import manager
from rootless_rt.container.store import Store, check_id
from rootless_rt.errors import RtError


def pause(store: Store, container_id: str) -> None:
    """Stop every process of a container that is created or running. Raises RtError."""
    handle = store.open(check_id(container_id))
    try:
        state = handle.read_state()
        status = status_of(handle, state)
        if status not in ("created", "running"):
            hint = f"rt resume {container_id}" if status == "paused" else "rt list shows what runs"
            raise RtError(f'container not running or created: "{container_id}" is {status}', hint=hint)
        manager(state).freeze()
    finally:
        handle.close()


def resume(store: Store, container_id: str) -> None:
    """Let the processes of a paused container run again. Raises RtError."""
    handle = store.open(check_id(container_id))
    try:
        state = handle.read_state()
        status = status_of(handle, state)
        if status != "paused":
            raise RtError(f'container not paused: "{container_id}" is {status}')
        manager(state).thaw()
    finally:
        handle.close()
