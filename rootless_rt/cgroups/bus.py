"""A connection to systemd's D-Bus: the system's, or that of a user's own service manager.

Finds the socket, proves who answers, calls methods and waits for signals. Messages are jeepney's; connecting
is done here: its own loads asyncio and more, trusts the environment alone, and authenticates with an id that
a user namespace has made wrong. Must not know units. Source: D-Bus specification, "Authentication Protocol".
"""

from __future__ import annotations

import posix
import sys
from _socket import AF_UNIX, SO_PEERCRED, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, socket
from select import POLLIN, poll
from time import monotonic

from rootless_rt import paths
from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

SYSTEM, USER = "system", "user"
_SYSTEM_SOCKETS = ("/run/dbus/system_bus_socket", "/var/run/dbus/system_bus_socket")
_SECONDS = 25.0  # how long a reply may take, as in other clients
_MOST_BYTES, _MOST_SIGNALS = (
    1 << 24,
    1 << 14,
)  # of what has come and was not asked for: no honest bus has more
_NAME, _PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
_MISSING = RtError(
    "talking to systemd needs the Python package jeepney",
    hint="pip install 'rootless-rt[dbus]', or the distribution's python3-jeepney",
)


class BusError(Exception):
    """An error reply: `name` such as org.freedesktop.systemd1.UnitExists, and its text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{text} ({name})" if text else name)
        self.name = name
        self.text = text


def own_uid() -> int:
    """Our user's id outside of the user namespace we may be in: by that the bus knows us."""
    from idmap.extents import to_outside
    from idmap.userns import own_map

    euid = posix.geteuid()
    outside = to_outside(own_map("uid"), euid)
    return euid if outside is None else outside


def find(kind: str, environ: Mapping[str, str]) -> str | None:
    """The socket of a bus, or None where there is none; nothing is connected.

    The user's: $DBUS_SESSION_BUS_ADDRESS, $XDG_RUNTIME_DIR/bus, /run/user/UID/bus, the first that is a socket
    of the user's own.
    """
    if kind == SYSTEM:
        return next((path for path in _SYSTEM_SOCKETS if _is_socket(path)), None)
    euid = posix.geteuid()
    return next((path for path in candidates(environ) if _is_socket(path, euid)), None)


def candidates(environ: Mapping[str, str]) -> list[str]:
    """Where the socket of the user's bus may be."""
    found = []
    for address in environ.get("DBUS_SESSION_BUS_ADDRESS", "").split(";"):
        transport, _, rest = address.partition(":")
        for pair in rest.split(",") if transport == "unix" else ():
            name, _, value = pair.partition("=")
            if name == "path":
                found.append(_unescape(value))
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        found.append(runtime + "/bus")
    found.append(f"/run/user/{own_uid()}/bus")
    return found


def _is_socket(path: str, owner: int | None = None) -> bool:
    try:
        status = posix.stat(path)
    except (OSError, ValueError):
        return False
    return status.st_mode & 0o170000 == 0o140000 and owner in (None, status.st_uid)


def _unescape(text: str) -> str:
    """Undo the %XX of a D-Bus address."""
    head, *rest = text.split("%")
    for part in rest:
        try:
            head += bytes.fromhex(part[:2]).decode("latin-1") + part[2:]
        except ValueError:
            return ""
    return head


class Bus:
    """A connection; `version` is that of the systemd that answers."""

    def __init__(self, kind: str, path: str) -> None:
        """Raises RtError when it cannot be connected, or does not belong to who it should."""
        self.kind = kind
        self.path = path
        self._serial = 0
        self._systemd = ""
        self._unread = 0
        self._signals: list[Any] = []
        try:
            import jeepney.low_level as low
        except ImportError:
            raise _MISSING from None
        self._low = low
        self._parser = low.Parser()
        self._socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        self._socket.settimeout(_SECONDS)
        self._poll = poll()
        self._poll.register(self._socket.fileno(), POLLIN)
        try:
            self._connect()
            self._call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")
        except OSError as error:
            self._socket.close()
            reason = posix.strerror(error.errno).lower() if error.errno else str(error)
            raise RtError(f"cannot reach the {kind} bus at {path}: {reason}", hint=hint(kind)) from None
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _connect(self) -> None:
        self._socket.connect(self.path)
        peer = self._socket.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
        uid = int.from_bytes(peer[4:8], sys.byteorder)
        # Whoever listens: systemd itself, or the bus's own account, to which the socket belongs.
        if uid not in (0, posix.geteuid() if self.kind == USER else posix.stat(self.path).st_uid):
            raise RtError(
                f"the {self.kind} bus at {self.path} belongs to uid {uid}",
                hint="unset DBUS_SESSION_BUS_ADDRESS",
            )
        name = str(own_uid()).encode().hex().encode()
        self._socket.sendall(b"\0AUTH EXTERNAL " + name + b"\r\n")
        answer = b""
        deadline = monotonic() + _SECONDS
        while not answer.endswith(b"\r\n"):
            part = self._socket.recv(4096)
            if not part or len(answer) > 1 << 16 or monotonic() > deadline:
                raise RtError(
                    f"the {self.kind} bus at {self.path} closed the connection", hint=hint(self.kind)
                )
            answer += part
        if not answer.startswith(b"OK "):
            said = answer[:60].decode("ascii", "replace").strip()
            raise RtError(
                f"the {self.kind} bus at {self.path} does not let us in: {said}", hint=hint(self.kind)
            )
        self._socket.sendall(b"BEGIN\r\n")

    def manager(self, method: str, signature: str = "", *body: Any) -> tuple[Any, ...]:
        """Call a method of systemd's Manager. Raises BusError, and RtError when no answer comes."""
        return self._call(_NAME, _PATH, MANAGER, method, signature, body)

    def property(self, name: str, path: str = _PATH, interface: str = MANAGER) -> Any:
        """A property of systemd's Manager, or of another of its objects. Raises as `manager`."""
        body = (interface, name)
        reply = self._call(_NAME, path, "org.freedesktop.DBus.Properties", "Get", "ss", body)
        try:
            return reply[0][1]
        except (IndexError, TypeError):
            raise self._lost(f"its {name} is no value") from None

    def watch(self, member: str) -> None:
        """Have signals of systemd's Manager sent to us. Raises as `manager`."""
        rule = f"type='signal',sender='{_NAME}',interface='{MANAGER}',member='{member}',path='{_PATH}'"
        bus, path = "org.freedesktop.DBus", "/org/freedesktop/DBus"
        self._call(bus, path, bus, "AddMatch", "s", (rule,))
        # The rule keeps nobody from sending us signals: whose one is, its sender's unique name tells.
        owner = self._call(bus, path, bus, "GetNameOwner", "s", (_NAME,))
        self._systemd = owner[0] if owner and isinstance(owner[0], str) else ""
        self.manager("Subscribe")

    def wait(self, member: str, kind: str, wanted: Callable[[tuple[Any, ...]], bool]) -> tuple[Any, ...]:
        """The arguments of systemd's next signal `member` that is `wanted`; it may have come already.

        `kind` is the signature that it must have.
        """
        deadline = monotonic() + _SECONDS
        names = self._low.HeaderFields
        signal = self._low.MessageType.signal
        while True:
            for message in self._signals:
                fields = message.header.fields
                found = tuple(fields.get(name) for name in (names.sender, names.member, names.signature))
                if (
                    message.header.message_type == signal
                    and found == (self._systemd, member, kind)
                    and wanted(message.body)
                ):
                    self._signals.remove(message)
                    return tuple(message.body)
            self._keep(self._receive(deadline))

    def _keep(self, message: Any) -> None:
        if len(self._signals) >= _MOST_SIGNALS:
            raise self._lost("it sends too much that was not asked for")
        self._signals.append(message)

    def _call(
        self,
        name: str,
        path: str,
        interface: str,
        method: str,
        signature: str = "",
        body: tuple[Any, ...] = (),
    ) -> tuple[Any, ...]:
        low = self._low
        fields = {
            low.HeaderFields.path: path,
            low.HeaderFields.destination: name,
            low.HeaderFields.interface: interface,
            low.HeaderFields.member: method,
        }
        if signature:
            fields[low.HeaderFields.signature] = signature
        self._serial += 1
        header = low.Header(
            low.Endianness.little, low.MessageType.method_call, flags=0, protocol_version=1,
            body_length=-1, serial=self._serial, fields=fields,
        )  # fmt: skip
        try:
            self._socket.sendall(low.Message(header, body).serialise())
        except OSError as error:
            raise self._lost(str(error)) from None
        deadline = monotonic() + _SECONDS
        while True:
            reply = self._receive(deadline)
            if reply.header.fields.get(low.HeaderFields.reply_serial) != self._serial:
                self._keep(reply)
                continue
            if reply.header.message_type == low.MessageType.error:
                text = reply.body[0] if reply.body and isinstance(reply.body[0], str) else ""
                raise BusError(str(reply.header.fields.get(low.HeaderFields.error_name, "error")), text)
            return tuple(reply.body)

    def _receive(self, deadline: float) -> Any:
        while True:
            try:
                message = self._parser.get_next_message()
            except Exception as error:  # whatever bytes that are no message make of a parser
                raise self._lost(f"what it says is not D-Bus ({type(error).__name__})") from None
            if message is not None:
                self._unread = 0
                return message
            if self._unread > _MOST_BYTES:
                raise self._lost("its message is too long")
            rest = deadline - monotonic()
            if rest <= 0 or not self._poll.poll(rest * 1000):
                raise self._lost(f"no answer within {_SECONDS:.0f} seconds")
            try:
                data = self._socket.recv(1 << 16)
            except OSError as error:
                raise self._lost(str(error)) from None
            if not data:
                raise self._lost("the connection was closed")
            self._unread += len(data)
            self._parser.add_data(data)

    def _lost(self, reason: str) -> RtError:
        return RtError(f"systemd does not answer on the {self.kind} bus at {self.path}: {reason}")


def connect(kind: str) -> Bus:
    """The bus of systemd, or of the user's service manager. Raises RtError."""
    path = find(kind, paths.environment())
    if path is None:
        where = "/run/dbus/system_bus_socket" if kind == SYSTEM else f"/run/user/{own_uid()}/bus"
        raise RtError(f"there is no {kind} bus of D-Bus at {where}", hint=hint(kind))
    return Bus(kind, path)


def hint(kind: str) -> str:
    """How a bus is come by."""
    if kind == SYSTEM:
        return "is systemd running here, and dbus? --cgroup-manager=cgroupfs does without"
    return (
        "a login session has one; without: loginctl enable-linger USER, machinectl shell USER@, "
        "or --cgroup-manager=cgroupfs"
    )
