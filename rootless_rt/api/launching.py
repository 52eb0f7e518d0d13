"""Making the container of one run of a sandbox: no state directory, and as few steps as there can be.

Theory of operation: as in `container.create`, whose pieces this uses; but all of it is in the hands of the
caller's thread, and what fails leaves nothing behind.
"""

from __future__ import annotations

import os
from _socket import socket

from rootless_rt import cgroups
from rootless_rt.api import children
from rootless_rt.api.compiled import Compiled, Task
from rootless_rt.api.measures import measure
from rootless_rt.api.process import Ending
from rootless_rt.container import confine, processes
from rootless_rt.container.create import Ended
from rootless_rt.container.prepare import Prepared, open_fds
from rootless_rt.container.report import failure
from rootless_rt.errors import RtError
from rootless_rt.init import launch
from rootless_rt.plan.model import Degradation, Plan
from rootless_rt.plan.ops import SYNC_MAPS

_END_SECONDS = 10.0


class Run:
    """One container of a sandbox, from its making to its end: a `process.Life` once it is started."""

    def __init__(self, compiled: Compiled, number: int, task: Task) -> None:
        self._compiled = compiled
        self._plan: Plan = compiled.plan_of(task)
        self._prepared: Prepared = compiled.prepared_for(number, self._plan)
        self._cgroup: cgroups.Manager | None = None
        self._sock: socket | None = None
        self._starter = 0
        self.pid = 0
        self.fd = -1
        self.degradations: list[Degradation] = self._plan.degradations
        self._wire = compiled.wire(number, task)

    def start(self, stdio: tuple[int, int, int], sealed: int) -> None:
        """Make it, up to where its program runs. Raises RtError; then nothing is left of it."""
        fds = open_fds(self._plan, self._prepared.facts)
        try:
            self._make_cgroup(fds)
            self._sock, self._starter = launch.start(self._wire, fds, stdio, sealed)
            self._serve()
        except BaseException:
            self._take_back()
            raise
        finally:
            for fd in fds:
                children.close(fd)
            self._wire = b""

    def _make_cgroup(self, fds: list[int]) -> None:
        if not self._compiled.has_cgroup:
            return
        self._cgroup = self._prepared.cgroup
        confine.make(self._prepared, self._compiled.options)
        for place, (kind, _) in enumerate(self._plan.fds):
            if kind == "into-cgroup":
                fds[place] = confine.open_dir(self._cgroup)

    def _serve(self) -> None:
        """Serve rt-init's messages until its end of the socket closes: the program runs."""
        sock = self._sock
        assert sock is not None
        waiting = 0
        started = False
        while True:
            message = launch.receive(sock)
            if message.type == launch.MSG_PID:
                self.pid, self.fd = message.value, message.fd
                self._reap_starter()
            elif message.type == launch.MSG_SYNC:
                waiting = message.value
            elif message.type == launch.MSG_NOTE:
                self._note(message)
            elif message.type == launch.MSG_ERROR:
                raise failure(self._plan, message)
            elif message.type == launch.MSG_GONE and started:
                break
            elif message.type == launch.MSG_GONE:
                raise Ended(
                    "the container's process ended before it could start",
                    hint="was it killed? (out of memory, a signal)",
                )
            if waiting and self.pid:
                if waiting == SYNC_MAPS:
                    self._map()
                else:
                    started = True
                waiting = 0
                launch.go_on(sock, self.pid)
        sock.close()
        self._sock = None

    def _note(self, message: launch.Message) -> None:
        degradation = self._plan.tolerated.get(message.op)
        if degradation is None:
            return
        if self._compiled.options.strict and not degradation.always:
            raise RtError(f"{degradation.field}: {degradation.asked} is not possible: {degradation.why}")
        self.degradations.append(degradation)

    def _map(self) -> None:
        confine.enter(self._prepared, self._compiled.options, self.pid)
        plan, facts = self._plan, self._prepared.facts
        if plan.uid_map is None or plan.gid_map is None:
            return
        from idmap.write import write_maps

        write_maps(
            self.pid,
            plan.uid_map,
            plan.gid_map,
            euid=facts.euid,
            egid=facts.egid,
            privileged=facts.can_map_all,
            setgroups=None if plan.set_groups else "deny",
        )

    def _reap_starter(self) -> None:
        try:
            os.waitpid(self._starter, 0)
        except ChildProcessError:
            pass  # SIGCHLD is ignored: the kernel has reaped it
        self._starter = 0

    def _take_back(self) -> None:
        if self._sock is not None:
            self._sock.close()
        if self._starter:
            try:
                os.kill(self._starter, 9)
            except ProcessLookupError:
                pass
            self._reap_starter()
        if self.fd >= 0:
            processes.send_signal(self.fd, 9)
            processes.wait_end(self.fd, _END_SECONDS)
            try:
                children.reap(self.pid, self.fd)
            except RtError:
                pass
            os.close(self.fd)
        if self._cgroup is not None:
            self._cgroup.undo()

    def kill(self, number: int) -> None:
        """Send a signal to its first process: SIGKILL ends all of its pid namespace."""
        processes.send_signal(self.fd, number)

    def end(self) -> Ending:
        """How it ended; what is left of it is put away."""
        try:
            ending = children.reap(self.pid, self.fd)
            if self._cgroup is not None:
                measure(self._cgroup, ending)
            return ending
        finally:
            os.close(self.fd)
            if self._cgroup is not None:
                self._cgroup.delete()
