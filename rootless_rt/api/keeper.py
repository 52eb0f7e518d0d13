"""The process between this program and the containers of its sandboxes: `rt-init`, op `keep`.

Theory of operation: it is their parent. It starts each on request (a copy of itself performs the plan), waits
for it, and tells its end on a pipe of that run's own. When this program ends in whatever way, or closes the
connection, it kills them all and removes their cgroups. So nothing here depends on what the program does with
signals and children. Knows descriptors and bytes; must not know plans.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_SEQPACKET, SOL_SOCKET, socket, socketpair
from resource import struct_rusage

from rootless_rt.api.process import Ending
from rootless_rt.container.create import write_maps_of
from rootless_rt.container.processes import reap
from rootless_rt.container.report import failure
from rootless_rt.errors import RtError
from rootless_rt.host.facts import HostFacts
from rootless_rt.init import launch
from rootless_rt.plan.model import Plan
from rootless_rt.plan.ops import NO_SLOT, SYNC_CREATED, SYNC_MAPS, Op, encode
from rootless_rt.spec.names import NAMESPACES

_REQUEST = (200).to_bytes(4, sys.byteorder)
_TOLD = struct.Struct("=17q")  # keeper.c: the wait status, and the fields of getrusage(2)
_MICRO = 1_000_000
_NEWUSER = NAMESPACES["user"][0]


class Lost(RtError):
    """The keeper has been killed: another one can be started."""


class Keeper:
    """One keeper; `dirs` are directories of cgroups to be removed when it ends.

    With `outer` (a plan and the facts it was made from) it lives in a user namespace with the plan's maps,
    for containers in further ones: the helpers of shadow-utils are needed once. Raises RtError, IdmapError.
    """

    def __init__(self, dirs: list[str], outer: tuple[Plan, HostFacts] | None = None) -> None:
        self._sending = threading.Lock()
        self._made_by = os.getpid()
        self._pidfd = -1
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
        ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)
        status, told = os.pipe2(os.O_CLOEXEC)
        try:
            rights = struct.pack("=5i", theirs.fileno(), told, *stdio)
            with self._sending:
                self._sock.sendmsg([_REQUEST], [(SOL_SOCKET, SCM_RIGHTS, rights)])
            theirs.close()
            launch.send_plan(ours, wire, fds)
            return ours, status
        except BaseException as error:
            ours.close()
            os.close(status)
            if isinstance(error, BrokenPipeError | ConnectionResetError):
                raise Lost("the process that keeps the sandbox has been killed") from None
            raise
        finally:
            theirs.close()
            os.close(told)

    def close(self) -> None:
        """End every run under way, and wait until nothing is left of them."""
        with self._sending:
            if self._sock.fileno() < 0:
                return
            self._sock.close()
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
    data = os.read(status, _TOLD.size)
    if len(data) != _TOLD.size:
        return None
    code, user, system, *rest = _TOLD.unpack(data)
    return Ending(code, struct_rusage((user / _MICRO, system / _MICRO, *rest)))
