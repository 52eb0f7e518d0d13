"""NOTIFY_SOCKET (sd_notify(3)): the service manager learns when the container's program is ready.

Theory of operation: the manager's own socket is never shown to the container, which could then speak for the
whole service. The container sees a socket of ours, bound with its directory: `create` makes the directory,
and whoever starts the container the socket in it. What comes in is believed as far as one line, `READY=1`;
that is passed on once, followed by MAINPID, and then nobody listens any more. Everything else is thrown
away: other lines, descriptors, and a program that only floods after a number of messages that no honest
one needs. Loaded only where NOTIFY_SOCKET is set.
"""

from __future__ import annotations

import posix
import select
import sys
from _socket import (
    AF_UNIX,
    MSG_TRUNC,
    SCM_RIGHTS,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    SOL_SOCKET,
    socket,
)

from rootless_rt import paths
from rootless_rt.container import signals
from rootless_rt.errors import RtError
from rootless_rt.plan.notify import FILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless_rt.container.store import Handle

NOTIFY = "notify"
_BARRIER_MS = 30_000
_SEND_SECONDS = 5.0  # how long a manager may leave its queue full
_MESSAGE = 4096  # what systemd takes (NOTIFY_BUFFER_MAX)
_BATCH, _MOST = 64, 1 << 16


def make_directory(handle: Handle) -> None:
    """Make the directory that the container is going to see. Raises RtError."""
    try:
        posix.mkdir(NOTIFY, 0o755, dir_fd=handle.fd)
        posix.chmod(NOTIFY, 0o755, dir_fd=handle.fd)  # whatever the umask; any user of the container comes by
    except OSError as error:
        raise _cannot(handle, error) from None


class Proxy:
    """Listens to the container and speaks to the service manager. `fd` is what to poll, -1 when closed."""

    __slots__ = ("_left", "_manager", "_socket", "_warn", "fd")

    def __init__(self, listener: socket, manager: socket, warn: Callable[[str], None]) -> None:
        self._socket = listener
        self._manager = manager
        self._warn = warn
        self._left = _MOST
        self.fd = listener.fileno()

    def is_ready(self) -> bool:
        """Read what has come; whether READY=1 was in it. Closes at that, and when too much has come."""
        for _ in range(_BATCH):
            try:
                # Without room for ancillary data: the kernel closes descriptors that were sent along.
                data, _, flags, _ = self._socket.recvmsg(_MESSAGE)
            except BlockingIOError:
                return False
            except OSError as error:
                self._warn(f"NOTIFY_SOCKET: cannot be read: {posix.strerror(error.errno or 0).lower()}")
                self._stop_listening()
                return False
            if not flags & MSG_TRUNC and b"READY=1" in data.split(b"\n"):
                self._stop_listening()
                return True
            self._left -= 1
            if not self._left:
                self._warn(f"NOTIFY_SOCKET: no READY=1 in {_MOST} messages: nobody listens any more")
                self._stop_listening()
                return False
        return False

    def tell(self, pid: int) -> int:
        """Pass READY=1 on, and `pid` as the service's main process; -1, or a descriptor to wait for.

        It reports the end of the other side (POLLHUP) when the manager has taken everything in, so that
        this process may end (sd_notify(3), BARRIER=1); the caller closes it.
        """
        far = near = -1
        try:
            self._manager.settimeout(_SEND_SECONDS)
            self._manager.send(b"READY=1\n")
            self._manager.send(b"MAINPID=%d\n" % pid)
            near, far = posix.pipe2(posix.O_CLOEXEC)
            rights = far.to_bytes(4, sys.byteorder)
            self._manager.sendmsg([b"BARRIER=1"], [(SOL_SOCKET, SCM_RIGHTS, rights)])
        except OSError as error:
            reason = posix.strerror(error.errno).lower() if error.errno else "it does not read"
            self._warn(f"NOTIFY_SOCKET: the service manager cannot be told: {reason}")
        finally:
            if far >= 0:
                posix.close(far)
            self._manager.close()
        return near

    def serve(self) -> bool:
        """For the foreground: read, and pass on with this very process as the main one. Whether that is all.

        This process lives on, and ends with the container's exit code: the manager goes on to watch it.
        """
        if self.is_ready():
            barrier = self.tell(posix.getpid())
            if barrier >= 0:
                posix.close(barrier)  # not waited for: only a process that is about to end needs to
        return self.fd < 0

    def _stop_listening(self) -> None:
        self.fd = -1
        self._socket.close()  # whoever goes on to send is told so at once, and is not held up

    def close(self) -> None:
        """Give everything up; harmless when done already."""
        self._stop_listening()
        self._manager.close()


def listen(handle: Handle, address: str, warn: Callable[[str], None]) -> Proxy | None:
    """The proxy of a container about to start, whose directory was made with it.

    None, with a warning, where nobody listens at `address` (a variable that was inherited from another
    service, say): a container must not wait for that. Raises RtError when the socket cannot be made.
    """
    if not handle.has(NOTIFY):
        return None  # was made without: its program knows of no socket
    manager = _connect(address, warn)
    if manager is None:
        return None
    listener = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
    try:
        handle.unlink(f"{NOTIFY}/{FILE}")  # of a start that was interrupted
        # By the umask, not by chmod(2): that would follow a link, were one put there meanwhile.
        before = posix.umask(0o111)
        try:
            listener.bind(handle.place(f"{NOTIFY}/{FILE}"))
        finally:
            posix.umask(before)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        manager.close()
        raise _cannot(handle, error) from None
    return Proxy(listener, manager, warn)


def _connect(address: str, warn: Callable[[str], None]) -> socket | None:
    if address[:1] not in ("/", "@") or len(address) < 2:
        warn(f"NOTIFY_SOCKET: {address} is neither a path nor the name of an abstract socket: not used")
        return None
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
    try:
        if address[0] == "@":
            manager.connect(b"\0" + paths.fsencode(address[1:]))
            return manager
        # An address holds 107 bytes; the directory's descriptor stands for a longer way.
        path = paths.normal(address)
        directory = posix.open(paths.dirname(path), posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            manager.connect(f"/proc/self/fd/{directory}/{paths.basename(path)}")
        finally:
            posix.close(directory)
        return manager
    except OSError as error:
        manager.close()
        reason = posix.strerror(error.errno).lower() if error.errno else str(error).lower()
        warn(f"NOTIFY_SOCKET: {address}: {reason}: not used")
        return None


def wait_ready(proxy: Proxy, pidfd: int, pid: int, warn: Callable[[str], None]) -> None:
    """Wait until the program says it is ready, and pass that on; or until its process has ended.

    As long as it takes: how long a start may take is the service manager's to say. A signal may strike.
    """
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(proxy.fd, select.POLLIN)
    try:
        while True:
            with signals.let_through():
                found = dict(poll.poll())
            # First: the last thing that a program says may be this.
            if proxy.fd in found and proxy.is_ready():
                break
            if proxy.fd < 0:
                return
            if pidfd in found:
                warn("NOTIFY_SOCKET: the container ended before it said that it is ready")
                return
        barrier = proxy.tell(pid)
        if barrier >= 0:
            _wait_for_barrier(barrier)
    finally:
        proxy.close()


def _wait_for_barrier(barrier: int) -> None:
    poll = select.poll()
    poll.register(barrier, 0)
    try:
        with signals.let_through():
            poll.poll(_BARRIER_MS)
    finally:
        posix.close(barrier)


def _cannot(handle: Handle, error: OSError) -> RtError:
    reason = posix.strerror(error.errno or 0).lower()
    return RtError(f"cannot make {handle.path}/{NOTIFY} for NOTIFY_SOCKET: {reason}")
