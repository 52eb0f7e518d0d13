"""The process between this program and the containers of its sandboxes: `rt-init`, op `keep`.

Theory of operation: it is their parent. It starts each on request (a copy of itself performs the plan), waits
for it, and tells its end on a pipe of that run's own. When this program ends in whatever way, or closes the
connection, it kills them all and removes their cgroups. So nothing here depends on what the program does with
signals and children. Knows descriptors and bytes; must not know plans.
"""

from __future__ import annotations

import os
import select
import struct
import sys
import threading
from _socket import (
    AF_UNIX,
    SCM_RIGHTS,
    SHUT_RDWR,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
    socketpair,
)
from resource import struct_rusage

from rootless_rt.api.process import Ending
from rootless_rt.container.create import write_maps_of
from rootless_rt.container.processes import reap, wait_end
from rootless_rt.container.report import failure
from rootless_rt.errors import RtError
from rootless_rt.host.facts import HostFacts
from rootless_rt.init import launch
from rootless_rt.plan.model import Plan
from rootless_rt.plan.ops import NO_SLOT, SYNC_CREATED, SYNC_MAPS, Op, encode
from rootless_rt.spec.names import NAMESPACES

_REQUEST = (200).to_bytes(4, sys.byteorder)
_READY = (201).to_bytes(4, sys.byteorder)
TOLD = struct.Struct("=17q")  # keeper.c: the wait status, and the fields of getrusage(2)
KILLED = "the process that keeps the sandbox has been killed"
_MICRO = 1_000_000
_NEWUSER = NAMESPACES["user"][0]


class Lost(RtError):
    """The keeper has been killed: another one can be started."""


class Begun:
    """A process in new namespaces that waits for its plan, made by `first` (see `Compiled.first`).

    sock    the connection to it
    status  the descriptor that will tell its end (see `ending`)
    ahead   the plan that it was given already, which ends with waiting for the rest; or nothing
    pid, pidfd   its number and a descriptor of it, once it is known
    notes   its messages about that plan
    """

    def __init__(self, first: bytes, sock: socket, status: int) -> None:
        self.first = first
        self.ahead = b""
        self.sock = sock
        self.status = status
        self.pid, self.pidfd = 0, -1
        self.notes: list[launch.Message] = []
        self.refused = False  # it could not perform that plan

    def give(self, ahead: bytes) -> None:
        """Have it perform a plan that ends with waiting for more."""
        self.ahead = ahead
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            launch.send_plan(self.sock, ahead, [null] * 3)
        finally:
            os.close(null)

    def told(self) -> launch.Message:
        """What the keeper says of it: MSG_PID, else why there is none."""
        message = launch.receive(self.sock)
        if message.type == launch.MSG_PID:
            self.pid, self.pidfd = message.value, message.fd
        return message

    def waits(self) -> bool:
        """Whether it was made, has come to where it waits, and nobody has killed it meanwhile."""
        message = self.told()
        while self.ahead and message.type in (launch.MSG_PID, launch.MSG_NOTE):
            message = self.told()
            if message.type == launch.MSG_NOTE:
                self.notes.append(message)
        self.refused = message.type == launch.MSG_ERROR
        here = launch.MSG_SYNC if self.ahead else launch.MSG_PID
        return message.type == here and not wait_end(self.pidfd, 0)

    def close(self) -> None:
        """It ends, if it has no plan yet."""
        self.sock.close()
        for fd in (self.status, self.pidfd):
            if fd >= 0:
                os.close(fd)
        self.status = self.pidfd = -1


class Keeper:
    """One keeper; `dirs` are directories of cgroups to be removed when it ends.

    With `outer` (a plan and the facts it was made from) it lives in a user namespace with the plan's maps,
    for containers in further ones: the helpers of shadow-utils are needed once. Raises RtError, IdmapError.
    """

    def __init__(self, dirs: list[str], outer: tuple[Plan, HostFacts] | None = None) -> None:
        self._sending = threading.Lock()
        self._made_by = os.getpid()
        self._pidfd = -1
        self._runs = 0
        self._under_way = 0
        self._can_more = True  # as far as it is known
        self._next: Begun | None = None
        self._mounts: int | None = None
        self._changes = select.poll()
        plan = Plan()
        plan.ops = [Op("clone", _NEWUSER, NO_SLOT), Op("sync", SYNC_MAPS)] if outer else []
        plan.ops.append(Op("keep", 0, dirs))
        caller = os.pidfd_open(self._made_by)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._sock, starter = launch.start(encode(plan.ops), [caller], (null, null, null))
        finally:
            os.close(caller)
            os.close(null)
        try:
            if outer is None:
                self._pid, self._pidfd = starter, os.pidfd_open(starter)
            self._wait(plan, starter, outer)
        except BaseException:
            self.close()
            raise

    def _wait(self, plan: Plan, starter: int, outer: tuple[Plan, HostFacts] | None) -> None:
        """Until it can be asked for something. Raises RtError, IdmapError."""
        at = 0  # where it waits: it may get there before its starter has told its number
        while at != SYNC_CREATED:
            message = launch.receive(self._sock)
            if message.type == launch.MSG_PID:
                self._pid, self._pidfd = message.value, message.fd
                reap(starter)
            elif message.type == launch.MSG_SYNC:
                at = message.value
            elif message.type == launch.MSG_ERROR:
                raise failure(plan, message)
            else:
                raise RtError("the process that was to keep the sandbox has ended", hint="was it killed?")
            if at == SYNC_MAPS and self._pidfd >= 0 and outer is not None:
                at = 0
                write_maps_of(outer[0], self._pid, outer[1])
                launch.go_on(self._sock, self._pid)

    @property
    def lives(self) -> bool:
        """Whether it can be asked for anything: it has not been killed, and this is not another process."""
        return self._made_by == os.getpid() and self._sock.fileno() >= 0

    def start(self, wire: bytes, fds: list[int], stdio: tuple[int, int, int]) -> tuple[socket, int]:
        """Have a plan performed; `fds` fill its first slots (they stay open here).

        Returns the connection to it, and the descriptor that will tell its end (see `ending`).
        Raises RtError.
        """
        ours, status = self._requested(_REQUEST, stdio)
        try:
            launch.send_plan(ours, wire, fds)
        except BaseException:
            ours.close()
            os.close(status)
            raise
        return ours, status

    def made_ahead(self, first: bytes, ahead: bytes) -> Begun | None:
        """A process that `make_ahead` has made with the same, if there is one."""
        with self._sending:
            begun, self._next = self._next, None
            if begun is None:
                return None
            # As one made now: the same mounts around it, and the keeper lives.
            fresh = not self._changes.poll(0) and begun.first == first and begun.ahead in (b"", ahead)
        if fresh and begun.waits():
            return begun
        self._can_more = self._can_more and not begun.refused
        begun.close()
        return None

    def begin(self, first: bytes, *mounts: int) -> Begun:
        """A process made by `first`: the first message on its connection is its number. Raises RtError.

        With a descriptor of the keeper's mountinfo it ends when the mounts change before it has a run.
        """
        sock, status = self._requested(_READY + first, mounts)
        return Begun(first, sock, status)

    def make_ahead(self, first: bytes, ahead: bytes) -> None:
        """Have the process of the next run made when a run ends, from the second on.

        Not where several run at a time: then all would only wait for each other. It performs the plan
        `ahead`, too, unless one could not: not every kernel has what that takes.
        """
        if self._runs < 2 or self._under_way > 1 or self._next is not None or not self._looks_at_mounts():
            return
        mounts = -1
        try:
            # One of its own: who looks first takes the news of an open file.
            mounts = self._mountinfo()
            begun = self.begin(first, mounts)
        except (RtError, OSError):
            return  # who needs it will be told
        finally:
            if mounts >= 0:
                os.close(mounts)
        if ahead and self._can_more:
            begun.give(ahead)
        with self._sending:
            if self._next is None and self._sock.fileno() >= 0:
                self._next = begun
                return
        begun.close()

    def count(self, change: int) -> None:
        """A run begins (1), or has ended (-1)."""
        with self._sending:
            self._runs += change > 0
            self._under_way += change

    def _looks_at_mounts(self) -> bool:
        """Whether changes of the mounts that the keeper sees, and so its next child, can be noticed."""
        with self._sending:
            if self._mounts is None and self._sock.fileno() >= 0:
                try:
                    self._mounts = self._mountinfo()
                    self._changes.register(self._mounts, select.POLLPRI)
                    self._changes.register(self._sock, 0)
                except OSError:
                    self._mounts = -1
            return self._mounts is not None and self._mounts >= 0

    def connection(self) -> socket:
        """A descriptor of one's own of the connection to it. Raises RtError when it is closed."""
        with self._sending:
            if self._sock.fileno() < 0:
                raise Lost(KILLED)
            made = socket(AF_UNIX, SOCK_SEQPACKET, 0, os.dup(self._sock.fileno()))
            made.settimeout(None)  # whatever the program has as the default: nothing here may wait
            return made

    def _shut(self) -> None:
        try:
            self._sock.shutdown(SHUT_RDWR)
        except OSError:
            pass  # its end is closed

    def _mountinfo(self) -> int:
        return os.open(f"/proc/{self._pid}/mountinfo", os.O_RDONLY | os.O_CLOEXEC)

    def _requested(self, request: bytes, fds: tuple[int, ...]) -> tuple[socket, int]:
        """Ask the keeper for something. Returns the connection to it, and what will tell its end."""
        ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)
        status, told = os.pipe2(os.O_CLOEXEC)
        try:
            rights = struct.pack(f"={2 + len(fds)}i", theirs.fileno(), told, *fds)
            with self._sending:
                self._sock.sendmsg([request], [(SOL_SOCKET, SCM_RIGHTS, rights)])
            return ours, status
        except BaseException as error:
            ours.close()
            os.close(status)
            if isinstance(error, BrokenPipeError | ConnectionResetError):
                raise Lost(KILLED) from None
            raise
        finally:
            theirs.close()
            os.close(told)

    def close(self) -> None:
        """End every run under way, and wait until nothing is left of them."""
        with self._sending:
            if self._sock.fileno() < 0:
                return
            if self._made_by == os.getpid():
                # For a connection that somebody else holds, too; not for the program that this is a copy of.
                self._shut()
            self._sock.close()
            if self._next is not None:
                self._next.close()
                self._next = None
            if self._mounts is not None and self._mounts >= 0:
                os.close(self._mounts)
                self._mounts = -1
        if self._pidfd < 0:
            return
        if self._made_by != os.getpid():
            os.close(self._pidfd)
            return
        try:
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            pass  # SIGCHLD is ignored, or the program waits for every child: it has ended
        os.close(self._pidfd)


def ending(status: int) -> Ending | None:
    """How the process ended whose status descriptor can be read; None when the keeper has gone."""
    data = os.read(status, TOLD.size)
    return as_ending(data) if len(data) == TOLD.size else None


def as_ending(data: bytes) -> Ending:
    """What the keeper tells of an end, as `Ending`."""
    code, user, system, *rest = TOLD.unpack(data)
    return Ending(code, struct_rusage((user / _MICRO, system / _MICRO, *rest)))
