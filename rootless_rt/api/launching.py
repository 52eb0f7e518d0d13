"""Making the container of one run of a sandbox: no state directory, and as few steps as there can be.

Theory of operation: as in `container.create`, whose pieces this uses; but all of it is in the hands of the
caller's thread, and what fails leaves nothing behind. The keeper starts it and waits for it.
"""

from __future__ import annotations

import os
from _socket import socket

from rootless_rt import cgroups
from rootless_rt.api.compiled import Compiled, Task
from rootless_rt.api.keeper import Begun, Keeper, ending
from rootless_rt.api.measures import measure
from rootless_rt.api.process import Ending
from rootless_rt.container import confine, processes
from rootless_rt.container.create import Ended, write_maps_of
from rootless_rt.container.prepare import open_fds
from rootless_rt.container.report import failure
from rootless_rt.errors import RtError
from rootless_rt.init import launch
from rootless_rt.plan.model import Degradation, Plan
from rootless_rt.plan.ops import SYNC_CREATED, SYNC_MAPS

_END_SECONDS = 10.0


class Stale(Exception):
    """What was made ahead has ended when it was told to go on: mounts have changed just then."""


class Run:
    """One container of a sandbox, from its making to its end: a `process.Life` once it is started."""

    def __init__(self, compiled: Compiled, number: int) -> None:
        self._compiled = compiled
        self._number = number
        self._plan = Plan()
        self._prepared = compiled.prepared
        self._cgroup: cgroups.Manager | None = None
        self._sock: socket | None = None
        self.pid = 0
        self._pidfd = -1
        self.fd = -1
        self.degradations: list[Degradation] = []
        self._counted: Keeper | None = None

    def start(self, task: Task, stdio: tuple[int, int, int], keeper: Keeper) -> None:
        """Make it, up to where its program runs. Raises RtError; then nothing is left of it."""
        while True:
            try:
                self._start(task, stdio, keeper)
                return
            except Stale:
                continue  # what had been made ahead is used up

    def _start(self, task: Task, stdio: tuple[int, int, int], keeper: Keeper) -> None:
        compiled, number = self._compiled, self._number
        first, ahead = compiled.first, compiled.ahead
        begun = keeper.made_ahead(first, ahead) if first is not None else None
        keeper.count(1)
        self._counted = keeper
        try:
            if begun is not None and begun.ahead:
                wire, plan = compiled.rest(number, task)
            else:
                wire, plan = compiled.wire(number, task), compiled.plan_of(number, task)
        except BaseException:
            if begun is not None:
                begun.close()
            self._close()
            raise
        self._make(wire, plan, stdio, keeper, begun)

    def prepare(self, null: int, keeper: Keeper) -> None:
        """Make it up to where it waits for its task. Raises RtError; then nothing is left of it."""
        wire, plan = self._compiled.head(self._number)
        self._make(wire, plan, (null, null, null), keeper)

    def go(self, task: Task, stdio: tuple[int, int, int]) -> None:
        """Give its task to one that waits. Raises RtError; then nothing is left of it."""
        assert self._sock is not None
        wire, ops = self._compiled.tail(self._number, task)
        self._plan.ops = self._plan.ops + ops
        try:
            launch.send_plan(self._sock, wire, list(stdio), self.pid)
            self._serve()
        except BaseException:
            self._take_back()
            raise

    @property
    def ends_at_once(self) -> bool:
        """Unless a cgroup is to be removed."""
        return self._cgroup is None

    @property
    def waits(self) -> bool:
        """Whether it can be given a task: nobody has killed it meanwhile."""
        return not processes.wait_end(self._pidfd, 0)

    def discard(self) -> None:
        """End one that waits."""
        self._take_back()

    def _make(
        self, wire: bytes, plan: Plan, stdio: tuple[int, int, int], keeper: Keeper, begun: Begun | None = None
    ) -> None:
        """Have a plan performed, by the process that is `begun`, if there is one."""
        fds: list[int] = []
        try:
            if begun is not None:
                self._adopt(begun)
            self._plan = plan
            self._prepared = self._compiled.prepared_for(self._number, plan)
            self.degradations = plan.degradations
            fds = open_fds(plan, self._prepared.facts)
            self._make_cgroup(fds)
            if begun is None and self._compiled.first is None:
                self._sock, self.fd = keeper.start(wire, fds, stdio)
            else:
                if begun is None:
                    begun = keeper.begin(self._compiled.first or b"")
                    self._adopt(begun)
                for note in begun.notes:
                    self._note(note)
                launch.send_plan(begun.sock, wire, [*fds, *stdio], begun.pid if begun.ahead else 0)
            self._serve()
        except BaseException:
            self._take_back()
            raise
        finally:
            for fd in fds:
                if fd >= 0:
                    os.close(fd)

    def _adopt(self, begun: Begun) -> None:
        self._sock, self.fd = begun.sock, begun.status
        self.pid, self._pidfd = begun.pid, begun.pidfd

    def _make_cgroup(self, fds: list[int]) -> None:
        if not self._compiled.has_cgroup:
            return
        self._cgroup = self._prepared.cgroup
        confine.make(self._prepared, self._compiled.options)
        confine.fill(fds, self._plan, self._cgroup)

    def _serve(self) -> None:
        """Serve rt-init's messages until it waits for a task, or its end closes: the program runs.

        Raises RtError, Stale.
        """
        sock = self._sock
        assert sock is not None
        waiting = 0
        while True:
            message = launch.receive(sock)
            if message.type == launch.MSG_PID:
                self.pid, self._pidfd = message.value, message.fd
            elif message.type == launch.MSG_SYNC:
                waiting = message.value
            elif message.type == launch.MSG_NOTE:
                self._note(message)
            elif message.type == launch.MSG_STALE:
                raise Stale
            elif message.type == launch.MSG_ERROR:
                raise failure(self._plan, message)
            elif message.type == launch.MSG_GONE and self._pidfd >= 0 and not waiting:
                break
            elif message.type == launch.MSG_GONE:
                raise Ended(
                    "the container's process ended before it could start",
                    hint="was it killed? (out of memory, a signal)",
                )
            if waiting and self.pid:
                if waiting == SYNC_CREATED:
                    return
                if waiting == SYNC_MAPS:
                    self._map()
                waiting = 0
                launch.go_on(sock, self.pid)
        sock.close()
        self._sock = None

    def _note(self, message: launch.Message) -> None:
        self.degradations += degraded(self._plan, message, strict=self._compiled.options.strict)

    def _map(self) -> None:
        confine.enter(self._prepared, self._compiled.options, self.pid)
        write_maps_of(self._plan, self.pid, self._prepared.facts)

    def _take_back(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self.kill(9)
        if self.fd >= 0:
            # At the latest with the end of the process the keeper lets go of it.
            processes.wait_end(self.fd, _END_SECONDS)
        self._close()
        if self._cgroup is not None:
            self._cgroup.undo()

    def kill(self, number: int) -> None:
        """Send a signal to its first process: SIGKILL ends all of its pid namespace."""
        if self._pidfd >= 0:
            processes.send_signal(self._pidfd, number)

    def end(self) -> Ending:
        """How it ended; what is left of it is put away. Raises RtError when the keeper has been killed."""
        try:
            told = ending(self.fd)
            if told is None:
                self.kill(9)
                processes.wait_end(self._pidfd, _END_SECONDS)
                raise vanished()
            if self._cgroup is not None:
                measure(self._cgroup, told)
            if self._counted is not None and self._compiled.first is not None:
                # Not before: it would take processor time from this run.
                self._counted.make_ahead(self._compiled.first, self._compiled.ahead)
            return told
        finally:
            self._close()
            if self._cgroup is not None:
                self._cgroup.delete()

    def _close(self) -> None:
        for fd in (self.fd, self._pidfd):
            if fd >= 0:
                os.close(fd)
        self.fd = self._pidfd = -1
        if self._counted is not None:
            self._counted.count(-1)
            self._counted = None


def degraded(plan: Plan, message: launch.Message, *, strict: bool) -> list[Degradation]:
    """What a note of rt-init's says is degraded. Raises RtError where that is `strict`ly refused."""
    degradation = plan.tolerated.get(message.op)
    if degradation is None:
        return []
    if strict and not degradation.always:
        raise RtError(f"{degradation.field}: {degradation.asked} is not possible: {degradation.why}")
    return [degradation]


def vanished() -> RtError:
    """The keeper ended before the run did."""
    return RtError("nobody can tell how the process ended: the one that keeps the sandbox has been killed")
