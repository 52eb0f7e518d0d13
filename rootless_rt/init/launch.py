"""The Python end of the hand-shake with rt-init: start it, hand it a plan, read its messages.

Knows bytes and descriptors; must not know what a plan means. rt-init runs from a sealed file in memory:
`/proc/PID/exe` of a process that the container sees is never a program of the host (CVE-2019-5736), and no
Python is ever in the container's namespaces.
"""

from __future__ import annotations

import errno
import fcntl
import posix
import sys
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    SCM_RIGHTS,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
    socketpair,
)

from rootless_rt import paths
from rootless_rt.errors import RtError

MSG_PID, MSG_SYNC, MSG_ERROR, MSG_NOTE, MSG_CONSOLE, MSG_TRACE, MSG_GONE = 1, 2, 3, 4, 5, 6, 0
MSG_LISTENER, MSG_FUSE, MSG_STALE = 8, 9, 10
_MSG_GO = 100
_HEAD = 20 + 24  # five i32 and the name of the call, as in report.c
_MFD_EXEC = 0x10
_F_ADD_SEALS = 1033
_SEAL_ALL = 0x1 | 0x2 | 0x4 | 0x8  # SEAL, SHRINK, GROW, WRITE
_SOCKET_FD = 3
_FDS_A_PACKET = 200
_INLINE = 16384  # bytes of a plan that go into a packet (rt.h); larger ones are sent as a file


class Message:
    """One message of rt-init.

    type   MSG_PID (value: the process id), MSG_SYNC (value: the marker), MSG_ERROR, MSG_NOTE, MSG_CONSOLE,
           MSG_TRACE (value: microseconds that the op took), MSG_LISTENER (fd: of the seccomp filter that
           notifies; rt-init waits to go on), MSG_FUSE (fd: a filesystem that waits for its server),
           MSG_STALE (the mounts that it has a copy of have changed: it ends, and has done nothing of what
           it was told to go on with), or MSG_GONE when rt-init has closed its end
    op     index of the op in the plan;  err, call, text: of a failed system call;  fd: a descriptor, or -1
    """

    __slots__ = ("call", "err", "fd", "op", "text", "type", "value")

    def __init__(self, data: bytes, fd: int) -> None:
        self.fd = fd
        if not data:
            self.type = MSG_GONE
            self.op = self.value = self.err = 0
            self.call = self.text = ""
            return
        self.type, self.op, self.value, self.err = (
            int.from_bytes(data[at : at + 4], sys.byteorder, signed=True) for at in (0, 4, 8, 12)
        )
        self.call = data[20:_HEAD].split(b"\0", 1)[0].decode("ascii", "replace")
        self.text = paths.fsdecode(data[_HEAD:])


def receive(sock: socket) -> Message:
    """Wait for the next message on a connection to rt-init."""
    while True:
        try:
            data, ancillary, _, _ = sock.recvmsg(8192, CMSG_SPACE(4), MSG_CMSG_CLOEXEC)
            break
        except ConnectionResetError:
            continue  # told once: it ended before it read all that was sent. What it has said comes behind.
    fd = -1
    for level, kind, content in ancillary:
        if level == SOL_SOCKET and kind == SCM_RIGHTS and len(content) >= 4:
            fd = int.from_bytes(content[:4], sys.byteorder)
    return Message(data, fd)


def go_on(sock: socket, pid: int) -> None:
    """Tell rt-init to go on after a sync point; `pid` is its process id as the runtime sees it."""
    try:
        sock.send(_MSG_GO.to_bytes(4, sys.byteorder) + pid.to_bytes(4, sys.byteorder))
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has failed meanwhile: its report, or its silence, is read next


def program_path() -> str:
    """The installed rt-init, or that of the source tree. Raises RtError when there is none."""
    here = paths.dirname(__file__)
    for path in (here + "/rt-init", paths.dirname(paths.dirname(here)) + "/build/rt-init"):
        if paths.exists(path):
            return path
    raise RtError(
        "rt-init is missing from the installation", hint="install rt again, or in a source tree: make build"
    )


def sealed_program(path: str) -> int:
    """A descriptor of a copy of the program in memory that nobody can change (memfd_create(2)).

    Raises RtError where the system allows no executable files in memory.
    """
    flags = posix.MFD_CLOEXEC | posix.MFD_ALLOW_SEALING
    try:
        memory = posix.memfd_create("rt-init", flags | _MFD_EXEC)
    except OSError as error:
        if error.errno == errno.EACCES:
            raise RtError(
                "cannot start rt-init from memory: this system executes no files in memory",
                hint="sysctl vm.memfd_noexec must be 0 or 1 (here it is 2)",
            ) from None
        if error.errno != errno.EINVAL:  # before Linux 6.3
            raise
        memory = posix.memfd_create("rt-init", flags)
    program = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        size = posix.fstat(program).st_size
        at = 0
        while at < size:
            sent = posix.sendfile(memory, program, at, size - at)
            if not sent:
                raise RtError(f"{path} became shorter while it was read")
            at += sent
    finally:
        posix.close(program)
    fcntl.fcntl(memory, _F_ADD_SEALS, _SEAL_ALL)
    if memory > _SOCKET_FD:
        return memory
    try:
        return fcntl.fcntl(memory, fcntl.F_DUPFD_CLOEXEC, _SOCKET_FD + 1)  # where `start` puts nothing
    finally:
        posix.close(memory)


def _sealed_plan(wire: bytes) -> int:
    memory = posix.memfd_create("plan", posix.MFD_CLOEXEC | posix.MFD_ALLOW_SEALING)
    view = memoryview(wire)
    while view:
        view = view[posix.write(memory, view) :]
    fcntl.fcntl(memory, _F_ADD_SEALS, _SEAL_ALL)
    return memory


def start(
    wire: bytes, fds: list[int], stdio: tuple[int, int, int] | None = None, sealed: int = -1
) -> tuple[socket, int]:
    """`begin`, and `send_plan` at once. Raises RtError when the program cannot be started."""
    sock, pid = begin(stdio, sealed)
    try:
        send_plan(sock, wire, fds)
    except BaseException:
        sock.close()
        raise
    return sock, pid


def begin(stdio: tuple[int, int, int] | None = None, sealed: int = -1) -> tuple[socket, int]:
    """Start rt-init, which waits for its plan; it ends when the connection is closed before.

    `stdio` are the descriptors that become its 0, 1 and 2, else it has this process's. `sealed` is a
    descriptor of `sealed_program`, for callers that start more than one.
    Returns the connection and the process id of the starter, which ends once the container's process exists
    and must be waited for. Raises RtError when the program cannot be started.
    """
    ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)
    program = -1
    moved: list[int] = []
    try:
        program = sealed_program(program_path()) if sealed < 0 else -1
        # Above the numbers they are copied to, since dup2 onto itself would leave them close-on-exec.
        for fd in (*(stdio or ()), theirs.fileno()):
            moved.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _SOCKET_FD + 1))
        targets = (0, 1, 2, _SOCKET_FD) if stdio else (_SOCKET_FD,)
        try:
            pid = posix.posix_spawn(
                f"/proc/self/fd/{program if sealed < 0 else sealed}",
                ["rt-init"],
                {},
                file_actions=[
                    (posix.POSIX_SPAWN_DUP2, fd, target) for fd, target in zip(moved, targets, strict=True)
                ],
            )
        except OSError as error:
            raise _not_started(error.errno or 0) from None
        return ours, pid
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        for fd in (program, *moved):
            if fd >= 0:
                posix.close(fd)


def send_plan(sock: socket, wire: bytes, fds: list[int], pid: int = 0) -> None:
    """Hand over an encoded plan, or the rest of one, with the descriptors of its slots (they stay open).

    With `pid`, rt-init is told to go on right before: so it has not to wait twice.
    """
    if pid:
        go_on(sock, pid)
    if 0 < len(wire) <= _INLINE and len(fds) <= _FDS_A_PACKET:
        _send(sock, len(fds).to_bytes(8, sys.byteorder) + wire, fds)
        return
    plan = _sealed_plan(wire)
    try:
        count = len(fds).to_bytes(8, sys.byteorder)
        fds = [plan, *fds]
        for at in range(0, len(fds), _FDS_A_PACKET):
            _send(sock, count, fds[at : at + _FDS_A_PACKET])
    finally:
        posix.close(plan)


def _not_started(number: int) -> RtError:
    """The C library makes processes by clone3(2), and goes back to clone(2) only where that is ENOSYS."""
    from rootless_rt.host.filtered import is_filtered

    if number == errno.EPERM and is_filtered():
        from rootless_rt.host.outer import fix_here

        return RtError(
            "cannot start rt-init: a seccomp filter of the surrounding container forbids clone3(2)",
            hint=fix_here("seccomp"),
            id="RT-SECCOMP-CALLS",
        )
    return RtError(
        f"cannot start rt-init from memory: {posix.strerror(number).lower()}",
        hint="/proc must be mounted, and memory files executable: sysctl vm.memfd_noexec (0 or 1)",
    )


def _send(sock: socket, data: bytes, fds: list[int]) -> None:
    """One packet: a number of slots, perhaps a plan, and descriptors."""
    rights = b"".join([fd.to_bytes(4, sys.byteorder) for fd in fds])
    try:
        sock.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, rights)] if fds else [])
    except (BrokenPipeError, ConnectionResetError):
        pass  # it died: the caller will find that it has gone
