"""Handing the listener of a notifying seccomp filter to its agent (config-linux.md, "Seccomp").

The agent listens on `linux.seccomp.listenerPath`. It gets the listener's descriptor along with the container
process state, as JSON, in one message on a connection of its own. Only loaded for a profile with the action
SCMP_ACT_NOTIFY. Must not know how the filter is loaded, nor what rt-init does meanwhile.
"""

from __future__ import annotations

import posix
import sys
from _socket import SCM_RIGHTS, SOL_SOCKET

from rootless_rt.container.console import connect
from rootless_rt.errors import RtError, SpecError
from rootless_rt.plan.hooks import state_of
from rootless_rt.spec.jsonio import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_rt.container.create import Container

_FIELD = "linux.seccomp.listenerPath"
_HINT = "start the seccomp agent that listens there, or remove the rules with SCMP_ACT_NOTIFY"
_PATIENCE = 10.0  # seconds that an agent may take to receive; the program waits for it


def check_socket(path: str) -> None:
    """Refuse a path that cannot be an agent's, before anything is made. Raises SpecError."""
    try:
        mode = posix.stat(path).st_mode
    except OSError as error:
        problem = f"{path}: {posix.strerror(error.errno or 0).lower()}"
        raise SpecError(_FIELD, problem, hint=_HINT) from None
    if mode & 0o170000 != 0o140000:
        raise SpecError(_FIELD, f"{path} is not a unix socket", hint=_HINT)


class Agent:
    """A connection to the agent, on which one listener can be handed over.

    `config` is the container's; `status` and `container_pid` are what its state says, `pid` is the process
    that gets the filter, all as the runtime sees them. Raises RtError when nobody listens.
    """

    __slots__ = ("_connection", "_message")

    def __init__(
        self,
        config: dict[str, Any],
        bundle: str,
        container_id: str,
        status: str,
        container_pid: int,
        pid: int,
    ) -> None:
        profile = config["linux"]["seccomp"]
        message = {
            "ociVersion": config["ociVersion"],
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": profile.get("listenerMetadata") or "",
            "state": state_of(config, bundle, container_id, status, container_pid),
        }
        self._message = dumps(message).encode()
        self._connection = connect(profile["listenerPath"], _FIELD)

    def hand_over(self, listener: int) -> None:
        """Send the listener, and close it and the connection. Raises RtError."""
        rights = [(SOL_SOCKET, SCM_RIGHTS, listener.to_bytes(4, sys.byteorder))]
        try:
            self._connection.settimeout(_PATIENCE)
            sent = self._connection.sendmsg([self._message], rights)
            self._connection.sendall(self._message[sent:])
        except OSError as error:
            # Without a number: the time is over.
            reason = posix.strerror(error.errno).lower() if error.errno else "it does not receive"
            raise RtError(f"{_FIELD}: the agent did not take the listener: {reason}", hint=_HINT) from None
        finally:
            posix.close(listener)
            self.close()

    def close(self) -> None:
        """Give up what has not been handed over."""
        self._connection.close()


def agent_of(container: Container) -> Agent:
    """Connect for a process that its maker is about to let go on. Raises RtError."""
    # One that `exec` adds finds the state of its container; else it is the first, and not running yet.
    first = container.state["pid"]
    status = "created" if first == container.pid else "running"
    spec = container.spec
    name = container.handle.id
    return Agent(spec.data, spec.bundle, name, status=status, container_pid=first, pid=container.pid)


def agent_at_start(container_id: str, state: dict[str, Any], config: dict[str, Any]) -> Agent:
    """Connect for a container that waits for `start`: its state, and its saved config. Raises RtError."""
    if not config.get("linux", {}).get("seccomp", {}).get("listenerPath"):
        raise RtError(f"{_FIELD}: the container's saved config does not have it")
    pid = state["pid"]
    config = {"ociVersion": state["ociVersion"], **config}
    return Agent(config, state["bundle"], container_id, status="created", container_pid=pid, pid=pid)
