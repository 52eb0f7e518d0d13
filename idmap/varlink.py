"""A varlink client for one call at a time, which can pass descriptors along with it.

Knows the protocol (varlink.org; sd-varlink(3) for descriptors): a JSON object ended by a NUL byte goes out,
one comes back. Must not know any interface. Trusts nobody: the socket must be served by the expected user,
the answer is short, in time, strict JSON and one object alone.
"""

from __future__ import annotations

from _socket import AF_UNIX, SCM_RIGHTS, SO_PEERCRED, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, socket
from _struct import pack, unpack
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

MOST_BYTES = 65536
"""The longest answer that is read; those of the calls that are made here have some hundred bytes."""


class VarlinkError(Exception):
    """A call that failed: `name` is the error's name in the interface, "" when there was no proper answer."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


def call(
    path: str,
    method: str,
    parameters: dict[str, Any],
    fds: Sequence[int] = (),
    *,
    owner: int = 0,
    seconds: float = 5.0,
) -> dict[str, Any]:
    """Call `method` of the service on the socket `path`, and give the answer's parameters.

    The service sees descriptor `fds[N]` as number N. It must be run by the uid `owner`, and answer within
    `seconds`. Raises VarlinkError.
    """
    import json

    deadline = monotonic() + seconds
    request = json.dumps({"method": method, "parameters": parameters}).encode() + b"\0"
    connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        connection.settimeout(seconds)
        connection.connect(path)
        _, uid, _ = unpack("iII", connection.getsockopt(SOL_SOCKET, SO_PEERCRED, 12))
        if uid != owner:
            raise VarlinkError(f"{path} is served by uid {uid}, not by {owner}")
        rights = [(SOL_SOCKET, SCM_RIGHTS, pack(f"{len(fds)}i", *fds))] if fds else []
        left = request[connection.sendmsg([request], rights) :]
        if left:  # who has answered already may have closed, and then nothing at all can be sent
            connection.sendall(left)
        return _parameters(_receive(connection, deadline), path)
    except OSError as error:
        raise VarlinkError(f"{path}: {(error.strerror or 'no answer in time').lower()}") from None
    finally:
        connection.close()


def _receive(connection: socket, deadline: float) -> bytes:
    """One message. Descriptors that come with it are the kernel's to close: there is no room for them."""
    answer = b""
    while not answer.endswith(b"\0"):
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(MOST_BYTES + 1 - len(answer))
        answer += part
        if not part or len(answer) > MOST_BYTES:
            raise VarlinkError("the answer is cut short" if not part else "the answer is too long")
    return answer[:-1]


def _parameters(answer: bytes, path: str) -> dict[str, Any]:
    import json

    try:
        message = json.loads(answer, object_pairs_hook=_object, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise VarlinkError(f"{path}: the answer is not JSON") from None
    if not isinstance(message, dict) or message.get("continues", False) is not False:
        raise VarlinkError(f"{path}: the answer is not one of varlink")
    name, parameters = message.get("error"), message.get("parameters")
    if name is not None:
        shown = name if isinstance(name, str) and name.isprintable() and len(name) < 200 else ""
        raise VarlinkError(f"{path}: {shown or 'an error without a name'}", shown)
    if parameters is not None and not isinstance(parameters, dict):
        raise VarlinkError(f"{path}: the answer is not one of varlink")
    return parameters or {}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _refuse(word: str) -> None:
    raise ValueError(word)
