"""`start`: a created container goes on to execute its program, and whoever waits for that is served.

Must not know how a container was made: what a failure needs to be explained was written down by `create`.
"""

from __future__ import annotations

import posix
from _socket import AF_UNIX, SOCK_SEQPACKET, socket

from rootless_rt.container import processes
from rootless_rt.container.lifecycle import (
    FORCE_SECONDS,
    config_of,
    connect,
    hook_state_of,
    kill_all,
    lock_in_time,
    status_of,
)
from rootless_rt.container.store import START, Handle, Store, check_id, missing
from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_rt.container.lifecycle import Warn
    from rootless_rt.container.notify import Proxy
    from rootless_rt.container.notify_seccomp import Agent
    from rootless_rt.init.launch import Message


def start(store: Store, container_id: str, warn: Warn, *, notify: str = "") -> None:
    """Let a created container execute its program. Raises RtError.

    `notify` is the service manager's socket (NOTIFY_SOCKET): the program has said that it is ready, or has
    ended, when this comes back.
    """
    handle = store.open(check_id(container_id))
    try:
        # Before the lock: a hook of `create` that starts its container must not wait for that very create.
        if status_of(handle, handle.read_state()) == "creating":
            raise RtError("cannot start a container that is still being created")
        if not lock_in_time(handle):
            raise missing(container_id)
        state = handle.read_state()
        status = status_of(handle, state)
        if status == "stopped":
            raise RtError("cannot start a container that has stopped", hint=f"rt delete {container_id}")
        if status == "paused":
            raise RtError("cannot start a container that is paused", hint=f"rt resume {container_id}")
        try:
            connection = connect(handle) if status == "created" else None
        except BlockingIOError:
            raise RtError(
                "the container's process does not answer",
                hint=f"was it stopped or frozen? rt kill {container_id} CONT",
            ) from None
        if connection is None:
            raise RtError(f"cannot start an already running container ({status})")
        try:
            proxy = None
            if notify:
                from rootless_rt.container.notify import listen

                proxy = listen(handle, notify, warn)
            _let_go(handle, state, connection)
        finally:
            connection.close()
        if proxy is not None:
            _wait_ready(handle, state, proxy, warn)
    finally:
        handle.close()


def see_through(store: Store, container_id: str, directory: int, connection: int) -> None:
    """Go on with a `start` that the launcher has begun: rt-init was told to go on, and has something to say.

    The descriptors are those of the container's directory, with its lock, and of the connection to rt-init;
    both are closed when this comes back. Raises RtError.
    """
    for fd in (directory, connection):
        posix.set_inheritable(fd, False)
    handle = Handle(store.root, check_id(container_id), directory)
    answers = socket(AF_UNIX, SOCK_SEQPACKET, 0, connection)
    try:
        _hear(handle, handle.read_state(), answers, None)
    finally:
        answers.close()
        handle.close()


def _let_go(handle: Handle, state: dict[str, Any], connection: socket) -> None:
    from rootless_rt.init import launch

    agent = None
    if any(name == "seccomp_listen" for name, _ in state.get("startOps", {}).get("ops", [])):
        from rootless_rt.container.notify_seccomp import agent_at_start

        agent = agent_at_start(handle.id, state, config_of(handle))  # if it fails, the container still waits
    launch.go_on(connection, state["pid"])
    _hear(handle, state, connection, agent)
    _poststart(handle, state)


def _hear(handle: Handle, state: dict[str, Any], connection: socket, agent: Agent | None) -> None:
    """Serve rt-init until it executes the program. Raises RtError when it does not get there."""
    from rootless_rt.init import launch

    while True:
        message = launch.receive(connection)
        if agent is not None and message.type == launch.MSG_LISTENER:
            try:
                agent.hand_over(message.fd)
            except RtError:
                handle.unlink(START)
                kill_all(handle, state, FORCE_SECONDS)
                raise
            launch.go_on(connection, state["pid"])
        elif message.type != launch.MSG_TRACE:  # comes when `create` was asked to debug
            break
    if message.type == launch.MSG_ERROR:
        handle.unlink(START)
        raise _start_failure(handle, state, message)
    handle.unlink(START)


def _poststart(handle: Handle, state: dict[str, Any]) -> None:
    config = config_of(handle)
    hooks = config.get("hooks", {}).get("poststart")
    if hooks:
        text = hook_state_of(handle, state, config, "running", state["pid"])
        from rootless_rt.container.hooks import run_hooks

        # Nothing is written any more, and a hook may well kill or delete its container.
        handle.unlock()
        try:
            run_hooks("poststart", hooks, text, state["bundle"])
        except RtError:
            if lock_in_time(handle):
                kill_all(handle, state, FORCE_SECONDS)
            raise


def _wait_ready(handle: Handle, state: dict[str, Any], proxy: Proxy, warn: Warn) -> None:
    from rootless_rt.container.notify import wait_ready

    handle.unlock()
    pidfd = processes.open_process(state)
    if pidfd < 0:
        return
    try:
        wait_ready(proxy, pidfd, state["pid"], warn)
    finally:
        posix.close(pidfd)


def _start_failure(handle: Handle, state: dict[str, Any], message: Message) -> RtError:
    """Name the op that failed: those that `start` can reach were written down by `create`."""
    from rootless_rt.container.report import failure
    from rootless_rt.plan.model import Plan
    from rootless_rt.plan.ops import blank

    plan = Plan()
    plan.ops = [blank("wait_start")] * state.get("startOps", {}).get("first", 0)
    plan.ops += [blank(name, label) for name, label in state.get("startOps", {}).get("ops", [])]
    kill_all(handle, state, FORCE_SECONDS)
    return failure(plan, message)
