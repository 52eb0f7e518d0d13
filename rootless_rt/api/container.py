"""One named container, and the processes that this program runs in it."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence
from typing import Any

from rootless_rt.api import children
from rootless_rt.api.config import Bundle, Environment, Limits, environment, words
from rootless_rt.api.errors import Expired, found, told
from rootless_rt.api.measures import measure
from rootless_rt.api.process import Ending, Process
from rootless_rt.api.result import Result
from rootless_rt.api.streams import DEVNULL, PIPE, Source, Streams, Target
from rootless_rt.container import create as making
from rootless_rt.container import processes
from rootless_rt.container.execute import add_process, check_status, saved_spec
from rootless_rt.container.lifecycle import FORCE_SECONDS, forget, kill_all
from rootless_rt.container.pause import pause, resume
from rootless_rt.container.record import has_cgroup, manager
from rootless_rt.errors import RtError
from rootless_rt.plan.model import Degradation
from rootless_rt.spec import rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.api.runtime import Runtime


class Named:
    """The life (see `process.Life`) of a container of `Runtime.popen`, which is deleted at its end."""

    ends_at_once = False

    def __init__(self, made: making.Container) -> None:
        self._made = made
        self.pid = made.pid
        self.fd = made.pidfd
        self.degradations: list[Degradation] = made.plan.degradations
        if made.sock is not None:
            made.sock.close()

    def kill(self, number: int) -> None:
        """Where it has no pid namespace, SIGKILL reaches all of its processes through its cgroup."""
        made = self._made
        processes.send_signal(self.fd, number)
        if number == 9 and not made.plan.own_pid and has_cgroup(made.state):
            manager(made.state).kill()

    def end(self) -> Ending:
        """How it ended; the container is deleted. Raises RtError."""
        made = self._made
        try:
            ending = children.reap(self.pid, self.fd)
            if has_cgroup(made.state):
                measure(manager(made.state), ending)
            return ending
        finally:
            if made.handle.lock():
                if not made.plan.own_pid:
                    kill_all(made.handle, made.state, FORCE_SECONDS)
                forget(made.handle, made.state, _no_warning)
            made.handle.close()
            os.close(self.fd)


class Added:
    """The life of a process of `Container.exec`."""

    ends_at_once = True

    def __init__(self, made: making.Container) -> None:
        self.pid = made.pid
        self.fd = made.pidfd
        self.degradations: list[Degradation] = made.plan.degradations
        if made.sock is not None:
            made.sock.close()

    def kill(self, number: int) -> None:
        """Of this one process; what it started belongs to the container."""
        processes.send_signal(self.fd, number)

    def end(self) -> Ending:
        """How it ended. Raises RtError."""
        try:
            return children.reap(self.pid, self.fd)
        finally:
            os.close(self.fd)


class Container:
    """A container below a state root. As a context manager it is deleted, by force, at the end of the block.

    `id` is its id. Every method raises ContainerNotFound once it is gone.
    """

    def __init__(self, runtime: Runtime, container_id: str, *, pidfd: int = -1, pid: int = 0) -> None:
        self.id = container_id
        self._runtime = runtime
        self._pidfd = pidfd  # of its process, where that is a child of ours
        self._pid = pid
        self._returncode: int | None = None

    def __repr__(self) -> str:
        return f"Container({self.id!r})"

    def state(self) -> dict[str, Any]:
        """What `rt state` prints."""
        return self._runtime.state(self.id)

    @property
    def status(self) -> str:
        """One of creating, created, running, paused, stopped."""
        return str(self.state()["status"])

    @property
    def pid(self) -> int:
        """Its first process on the host; 0 once it has stopped."""
        return int(self.state()["pid"])

    @property
    def degradations(self) -> list[dict[str, str]]:
        """What differs from what its config asks: field, asked, got, why, fix."""
        return list(self.state().get("degraded", []))

    def start(self) -> None:
        """Let it execute its program. Raises RtError."""
        self._runtime.start(self.id)

    def exec(
        self,
        args: Sequence[str],
        *,
        env: Environment | None = None,
        cwd: str | None = None,
        user: tuple[int, int] | None = None,
        stdin: Source = DEVNULL,
        stdout: Target = PIPE,
        stderr: Target = PIPE,
        timeout: float | None = None,
        max_output: int | None = None,
    ) -> Result:
        """Run a further program in it to its end. Raises RtError when it cannot start.

        `env` changes the variables of the container's process, `user` is a uid and a gid inside.
        """
        process = self.popen(args, env=env, cwd=cwd, user=user, stdin=stdin, stdout=stdout, stderr=stderr)
        with process:
            return process.communicate(timeout=timeout, max_output=max_output)

    def popen(
        self,
        args: Sequence[str],
        *,
        env: Environment | None = None,
        cwd: str | None = None,
        user: tuple[int, int] | None = None,
        stdin: Source = DEVNULL,
        stdout: Target = PIPE,
        stderr: Target = PIPE,
    ) -> Process:
        """Start a further program in it. Raises RtError."""
        begun = time.monotonic()
        streams = Streams(stdin, stdout, stderr)
        options = self._runtime.options()
        options.stdio = streams.stdio
        options.start_later = False
        handle = found(self._runtime._store, self.id)
        try:
            state = handle.read_state()
            check_status(handle, state, paused=False)
            spec = saved_spec(handle, state)
            process = dict(spec.data["process"])
            process["terminal"] = False
            process["args"] = words(args)
            process["env"] = environment(process.get("env", []), env or {})
            process["cwd"] = cwd or process.get("cwd", "/")
            if user is not None:
                process["user"] = {"uid": user[0], "gid": user[1]}
            spec.data["process"] = process
            rules.check_process(process)
            with told():
                made = add_process(handle, state, spec, options, (0, 0))
                streams.sent()
                try:
                    making.start_now(made, None)
                except BaseException:
                    making.end_process(made)
                    os.close(made.pidfd)
                    raise
            return Process(process["args"], Added(made), streams, begun)
        except BaseException:
            streams.close()
            raise
        finally:
            handle.close()

    def kill(self, signal: int | str = "TERM", *, everyone: bool = False) -> None:
        """Send a signal, a number or a name, to its process, or to all of its processes. Raises RtError."""
        self._runtime.kill(self.id, signal, everyone=everyone)

    def pause(self) -> None:
        """Stop every process of it where it is, by the cgroup's freezer. Raises RtError."""
        found(self._runtime._store, self.id).close()
        pause(self._runtime._store, self.id)

    def resume(self) -> None:
        """Let them run again. Raises RtError."""
        found(self._runtime._store, self.id).close()
        resume(self._runtime._store, self.id)

    def update(self, limits: Limits) -> None:
        """Change the limits of its cgroup: memory, pids, cpus. Raises RtError, ValueError for the others."""
        from rootless_rt.container.update import Wanted, update

        config: dict[str, Any] = {"process": {}}
        limits.put_into(config)
        if config["process"]["rlimits"]:
            raise ValueError("limits: only memory, pids and cpus can be changed while it runs")
        wanted = Wanted(config["linux"]["resources"], [], lambda path: path)
        found(self._runtime._store, self.id).close()
        update(self._runtime._store, self.id, wanted, _no_warning)

    def stats(self) -> dict[str, Any]:
        """What its cgroups have measured, as `rt events --stats` prints it below "data". Raises RtError."""
        from rootless_rt.cgroups.stats import collect

        handle = found(self._runtime._store, self.id)
        try:
            return collect(manager(handle.read_state()))
        finally:
            handle.close()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until it has stopped; its return code, as of `Result`, or None if it is no child of ours.

        Raises Expired after `timeout` seconds, RtError when somebody else took the status.
        """
        if self._returncode is not None:
            return self._returncode
        pidfd = self._pidfd
        if pidfd < 0:
            handle = found(self._runtime._store, self.id)
            try:
                pidfd = processes.open_process(handle.read_state())
            finally:
                handle.close()
            if pidfd < 0:
                return None
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(None if timeout is None else max(0.0, timeout) * 1000):
                raise Expired(f'container "{self.id}" still runs after {timeout} s')
        finally:
            if pidfd != self._pidfd:
                os.close(pidfd)
        self._reap()
        return self._returncode

    def _reap(self) -> None:
        """Our child has ended: take its status, so that no zombie stays."""
        if self._pidfd < 0:
            return
        pidfd, self._pidfd = self._pidfd, -1
        try:
            self._returncode = os.waitstatus_to_exitcode(children.reap(self._pid, pidfd).status)
        finally:
            os.close(pidfd)

    def checkpoint(self, images: str | os.PathLike[str], **options: Any) -> None:
        """Save it to the directory `images`, with CRIU, as root; then it is gone. Raises RtError.

        Keywords are the options of `rt checkpoint`: leave_running and pre_dump (it goes on), parent, work,
        criu (the program), tcp_established, file_locks, ext_unix_sk, shell_job, link_remap, auto_dedup,
        tcp_skip_in_flight, cgroup_mode.
        """
        from rootless_rt.api.saving import save

        save(self._runtime._store, self.id, images, options)
        if self._pidfd >= 0 and not options.get("leave_running") and not options.get("pre_dump"):
            self._reap()

    @classmethod
    def restore(
        cls,
        runtime: Runtime,
        bundle: Bundle,
        images: str | os.PathLike[str],
        container_id: str,
        *,
        stdin: Source = DEVNULL,
        stdout: Target = None,
        stderr: Target = None,
        **options: Any,
    ) -> Container:
        """Make a container of a bundle from a checkpoint of it; it runs. Raises RtError.

        The streams take the place of those it was saved with. Keywords as of `checkpoint`, as far as `rt
        restore` has them.
        """
        from rootless_rt.api.saving import bring_back

        streams = (stdin, stdout, stderr)
        made = bring_back(runtime._store, runtime.options(), bundle, images, container_id, streams, options)
        made.handle.close()
        return cls(runtime, container_id, pidfd=made.pidfd, pid=made.pid)

    def delete(self, *, force: bool = False) -> None:
        """Remove it when it has stopped, or with `force` in any state. Raises RtError."""
        self._runtime.delete(self.id, force=force)
        if self._pidfd >= 0 and processes.wait_end(self._pidfd, FORCE_SECONDS):
            try:
                self._reap()
            except RtError:
                pass  # whoever waits for every child has this one

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.delete(force=True)


def _no_warning(text: str) -> None:
    """What a poststop hook has to complain of changes nothing any more."""
