"""The verbs on a container that exists: its status, kill, delete (start has a module of its own).

The status is never written down: it is derived each time from the recorded process, the socket that a created
container listens on, and the freezer of its cgroup.
"""

from __future__ import annotations

import posix
import time
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, socket

from rootless_rt.container import processes
from rootless_rt.container.record import has_cgroup, manager, shown
from rootless_rt.container.store import CONFIG, START, STATE, Handle, Store, check_id, missing
from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Warn = Callable[[str], None]
    """Says in the log what differs from what was asked."""

FORCE_SECONDS = 10.0
"""How long anything may take to die of SIGKILL, or to let go of a container's lock."""


def status_of(handle: Handle, state: dict[str, Any]) -> str:
    """One of creating, created, running, paused, stopped (runtime-spec, "State"; paused is an extension)."""
    if not processes.is_alive(state):
        maker = state.get("maker")
        if state.get("phase") == "creating" and isinstance(maker, dict) and processes.is_alive(maker):
            return "creating"
        return "stopped"
    if state.get("phase") == "creating":
        return "creating"
    if has_cgroup(state) and manager(state).frozen():
        return "paused"
    if handle.has(START) and _listens(handle):
        return "created"
    return "running"


def connect(handle: Handle) -> socket | None:
    """A connection to the container's process that waits for start; None when it does not wait any more.

    Raises BlockingIOError when it waits but takes no more connections: it has been stopped or frozen.
    """
    connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    connection.setblocking(False)
    try:
        connection.connect(handle.place(START))
    except (ConnectionRefusedError, FileNotFoundError):
        connection.close()
        return None
    except BlockingIOError:
        connection.close()
        raise
    except OSError as error:
        connection.close()
        raise RtError(
            f"cannot reach the container's process: {posix.strerror(error.errno or 0).lower()}"
        ) from None
    connection.setblocking(True)
    return connection


def _listens(handle: Handle) -> bool:
    try:
        connection = connect(handle)
    except BlockingIOError:
        return True
    if connection is None:
        return False
    connection.close()
    return True


def public_state(handle: Handle, state: dict[str, Any]) -> dict[str, Any]:
    """What `rt state` prints."""
    return shown(state, status_of(handle, state))


def config_of(handle: Handle) -> dict[str, Any]:
    """The saved config; empty when it cannot be read."""
    from rootless_rt.spec.jsonio import parse

    try:
        config = parse(handle.read(CONFIG), CONFIG)
    except (OSError, RtError):
        return {}
    return config if isinstance(config, dict) else {}


def hook_state_of(
    handle: Handle, state: dict[str, Any], config: dict[str, Any], status: str, pid: int | None
) -> str:
    """The state that a hook reads."""
    from rootless_rt.plan.hooks import hook_state

    return hook_state({"ociVersion": state["ociVersion"], **config}, state["bundle"], handle.id, status, pid)


def kill(store: Store, container_id: str, number: int, *, everyone: bool = False) -> None:
    """Send a signal to the container's process, or with `everyone` to all of its processes.

    Raises RtError when it does not run. With `everyone` that is no error: engines say it of what has ended.
    """
    handle = store.open(check_id(container_id))
    try:
        state = handle.read_state()
        status = status_of(handle, state)
        if status != "stopped" and number == 9 and not state["ownPid"] and has_cgroup(state):
            manager(state).kill()
        elif everyone:
            from rootless_rt.container import members

            (members.signal_left if status == "stopped" else members.signal_members)(state, number)
        else:
            _signal(state, number, container_id)
        if number == 9 and status == "paused":
            _thaw(state)
    finally:
        handle.close()


def _signal(state: dict[str, Any], number: int, container_id: str) -> None:
    pidfd = processes.open_process(state)
    if pidfd < 0:
        raise RtError("container not running", hint=f"it has stopped: rt delete {container_id}")
    try:
        processes.send_signal(pidfd, number)
    finally:
        posix.close(pidfd)


def _thaw(state: dict[str, Any]) -> None:
    """Let killed processes die: those that a v1 freezer has stopped cannot."""
    if has_cgroup(state):
        cgroup = manager(state)
        if cgroup.frozen():
            cgroup.thaw()


def kill_all(handle: Handle, state: dict[str, Any], seconds: float) -> None:
    """SIGKILL everything of the container and wait until it has ended. Raises RtError when it does not."""
    pidfd = processes.open_process(state)
    if pidfd >= 0:
        try:
            processes.send_signal(pidfd, 9)
            _thaw(state)
            if not processes.wait_end(pidfd, seconds):
                raise RtError(
                    f'container "{handle.id}": process {state["pid"]} has not died of SIGKILL',
                    hint="it may be waiting for a disk or the network: try again when that answers",
                )
        finally:
            posix.close(pidfd)
    if not state["ownPid"] and has_cgroup(state):
        manager(state).kill(seconds)


def delete(store: Store, container_id: str, warn: Warn, *, force: bool) -> None:
    """Remove a container that has stopped, or with `force` any. Raises RtError.

    A created container that was never started is removed without force, as runc does. With force a container
    that does not exist is fine, and one with a damaged state is cleaned up as far as can be known.
    """
    handle = store.find(check_id(container_id))
    if handle is None:
        if force:
            return
        raise missing(container_id)
    try:
        # Before the lock. With force, a `create` that is held up by a hook gives up when its process is
        # killed; without, a hook that deletes its container must not wait for the command that runs it.
        if force:
            kill_all(handle, _salvaged(handle), FORCE_SECONDS)
        elif handle.has(STATE):
            _refuse_what_lives(handle)
        if not lock_in_time(handle):
            if force:
                return
            raise missing(container_id)
        # A `create` or `start` that was under way has ended by now.
        if not handle.has(STATE):
            handle.remove()
            return
        if force:
            state = _salvaged(handle)
        else:
            state = handle.read_state()
            _refuse_alive(handle, state)
        kill_all(handle, state, FORCE_SECONDS)
        forget(handle, state, warn)
    finally:
        handle.close()


def _salvaged(handle: Handle) -> dict[str, Any]:
    """What can be believed of a damaged state.json; the process also of the launcher's record of it."""
    state = handle.salvage_state()
    if not state["pid"]:
        from rootless_rt.container.shortcut import NAME, process_of

        try:
            state.update(process_of(handle.read(NAME)))
        except (OSError, RtError):
            pass
    return state


def _refuse_what_lives(handle: Handle) -> None:
    """Without the lock: another command may be removing the container, which the lock then tells."""
    try:
        state = handle.read_state()
    except RtError:
        if handle.has(STATE):
            raise
        return
    _refuse_alive(handle, state)


def _refuse_alive(handle: Handle, state: dict[str, Any]) -> None:
    status = status_of(handle, state)
    if status in ("running", "paused", "creating"):
        raise RtError(
            f'cannot delete container "{handle.id}" that is not stopped: {status}',
            hint=f"rt kill {handle.id} KILL, or: rt delete --force {handle.id}",
        )


def lock_in_time(handle: Handle) -> bool:
    """Take the lock; False when the container is gone. Raises RtError when somebody keeps it."""
    deadline = time.monotonic() + FORCE_SECONDS
    while not handle.lock(wait=False):
        if not handle.exists():
            return False
        if time.monotonic() > deadline:
            raise RtError(
                f'container "{handle.id}" is held by another rt command', hint="end that command first"
            )
        # flock(2) has no time-out; this only waits where two commands meet on one container.
        time.sleep(0.005)
    return True


def forget(handle: Handle, state: dict[str, Any], warn: Warn) -> None:
    """Remove cgroup, poststop hooks' turn included, and directory of a container that has ended.

    What a poststop hook has to complain of goes to `warn`.
    """
    if has_cgroup(state):
        manager(state).delete()
    if "network" in state:
        from rootless_rt.container.helper import end

        end(state["network"])
    if "rdt" in state:
        from rootless_rt.container.outside import remove_groups

        remove_groups(state, handle.id)
    _poststop(handle, state, warn)
    handle.remove()


def _poststop(handle: Handle, state: dict[str, Any], warn: Warn) -> None:
    """Run the poststop hooks: all of them, whatever they say (runtime-spec, "Lifecycle")."""
    hooks = config_of(handle).get("hooks", {}).get("poststop") if _has_hooks(handle) else None
    if not hooks:
        return
    from rootless_rt.container.hooks import run_hooks

    text = hook_state_of(handle, state, config_of(handle), "stopped", None)
    for hook in hooks:
        try:
            run_hooks("poststop", [hook], text, state["bundle"])
        except RtError as error:
            warn(error.message)


def _has_hooks(handle: Handle) -> bool:
    try:
        return b'"poststop"' in handle.read(CONFIG)
    except (OSError, RtError):
        return False


def listing(store: Store) -> list[dict[str, Any]]:
    """All containers of the store as `rt list` shows them; those that cannot be read are left out."""
    found = []
    for container_id in store.ids():
        try:
            handle = store.open(container_id)
        except RtError:
            continue
        try:
            listed = public_state(handle, handle.read_state())
            listed["uid"] = posix.fstat(handle.fd).st_uid
        except RtError:
            continue
        finally:
            handle.close()
        found.append(listed)
    return found
