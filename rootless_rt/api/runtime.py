"""Containers with a name and a state directory: the same that the command `rt` makes, lists and deletes.

Theory of operation: each method does what the command of its name does, by the same functions of `container`.
What the command does as the owner of its process (signals, stray descriptors, adopting orphans) is left out.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from idmap.userns import in_user_namespace
from rootless_rt.api.config import Bundle, Environment, Limits, changed, spec_of
from rootless_rt.api.container import Container, Named
from rootless_rt.api.errors import ContainerNotFound, found, told
from rootless_rt.api.process import Process
from rootless_rt.api.result import Result
from rootless_rt.api.streams import DEVNULL, PIPE, Source, Streams, Target
from rootless_rt.container import create as making
from rootless_rt.container.lifecycle import FORCE_SECONDS, delete, kill, kill_all, listing, public_state
from rootless_rt.container.lifecycle import forget as forget_container
from rootless_rt.container.prepare import Options, prepare
from rootless_rt.container.start import start
from rootless_rt.container.store import Store, check_id, default_root
from rootless_rt.errors import RtError
from rootless_rt.init import launch
from rootless_rt.spec.load import Spec
from rootless_rt.spec.names import signal_number

_DEGRADE = ("warn", "strict")


class Runtime:
    """The containers below one state root.

    `root` is the directory of their state; the default is the command's (`rt --root`). `degrade` says what
    becomes of what this host cannot give: "warn" goes on with something safe, and notes it in `degradations`;
    "strict" raises. `cgroup_manager` is "auto", "cgroupfs", "systemd" or "disabled". Threads may share one.

    As a context manager it lets go of what it keeps open; containers are not touched by that.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        degrade: str = "warn",
        cgroup_manager: str = "auto",
    ) -> None:
        if degrade not in _DEGRADE:
            raise ValueError(f"degrade: one of {', '.join(_DEGRADE)}, not {degrade!r}")
        if root is not None:
            self._store = Store(os.path.abspath(root), True)
        else:
            euid = os.geteuid()
            initial = euid != 0 or not in_user_namespace()
            self._store = Store(default_root(os.environ, euid, initial), False)
        self._strict = degrade == "strict"
        self._cgroup_manager = cgroup_manager
        self._sealed = launch.sealed_program(launch.program_path())

    @property
    def root(self) -> str:
        """The state root."""
        return self._store.root

    def create(
        self,
        bundle: Bundle,
        container_id: str | None = None,
        *,
        rootfs: str | os.PathLike[str] | None = None,
        args: Sequence[str] | None = None,
        env: Environment | None = None,
        cwd: str | None = None,
        limits: Limits | None = None,
        mounts: Sequence[Mapping[str, Any]] = (),
        stdin: Source = DEVNULL,
        stdout: Target = None,
        stderr: Target = None,
    ) -> Container:
        """Make a container that waits for `Container.start`. Raises RtError; then nothing is left of it.

        `bundle` is a bundle directory, or a config as a dict, for which `rootfs` names the root file system.
        The rest stands in for the config's process, limits the whole, or adds mounts (as in config.json).
        Without `container_id` it gets one that is free. stdout and stderr are this program's unless given;
        PIPE is for `run` and `popen`.
        """
        streams = Streams(stdin, stdout, stderr)
        try:
            if max(streams.ours) >= 0:
                raise ValueError("PIPE: create gives no process to read from; see popen")
            spec = changed(spec_of(bundle, rootfs), args=args, env=env, cwd=cwd, limits=limits, mounts=mounts)
            with told():
                made = self._make(spec, container_id, streams, start_later=True)
        finally:
            streams.close()
        if made.sock is not None:
            made.sock.close()
        made.handle.close()
        return Container(self, made.handle.id, pidfd=made.pidfd, pid=made.pid)

    def run(
        self,
        bundle: Bundle,
        container_id: str | None = None,
        *,
        rootfs: str | os.PathLike[str] | None = None,
        args: Sequence[str] | None = None,
        env: Environment | None = None,
        cwd: str | None = None,
        limits: Limits | None = None,
        mounts: Sequence[Mapping[str, Any]] = (),
        stdin: Source = DEVNULL,
        stdout: Target = PIPE,
        stderr: Target = PIPE,
        timeout: float | None = None,
        max_output: int | None = None,
    ) -> Result:
        """Run a container to its end, and delete it. Raises RtError when it cannot start.

        Arguments as of `create` and `popen`; `timeout` (seconds) and `max_output` (bytes a pipe) as of
        `Process.communicate`.
        """
        process = self.popen(
            bundle,
            container_id,
            rootfs=rootfs,
            args=args,
            env=env,
            cwd=cwd,
            limits=limits,
            mounts=mounts,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
        with process:
            return process.communicate(timeout=timeout, max_output=max_output)

    def popen(
        self,
        bundle: Bundle,
        container_id: str | None = None,
        *,
        rootfs: str | os.PathLike[str] | None = None,
        args: Sequence[str] | None = None,
        env: Environment | None = None,
        cwd: str | None = None,
        limits: Limits | None = None,
        mounts: Sequence[Mapping[str, Any]] = (),
        stdin: Source = DEVNULL,
        stdout: Target = PIPE,
        stderr: Target = PIPE,
    ) -> Process:
        """Start a container and return while it runs; it is deleted once its end has been waited for.

        Raises RtError when it cannot start; then nothing is left of it.
        """
        begun = time.monotonic()
        spec = changed(spec_of(bundle, rootfs), args=args, env=env, cwd=cwd, limits=limits, mounts=mounts)
        streams = Streams(stdin, stdout, stderr)
        try:
            with told():
                made = self._make(spec, container_id, streams, start_later=False)
                streams.sent()
                try:
                    making.start_now(made, None)
                    made.handle.unlock()
                    making.run_hooks_of(made, spec.data.get("hooks", {}), "poststart", "running")
                except BaseException:
                    discard(made)
                    raise
            return Process(spec.data["process"]["args"], Named(made), streams, begun)
        except BaseException:
            streams.close()
            raise

    def _make(
        self, spec: Spec, container_id: str | None, streams: Streams, *, start_later: bool
    ) -> making.Container:
        name = check_id(container_id) if container_id is not None else "rt-" + secrets.token_hex(6)
        options = self.options()
        options.stdio = streams.stdio
        options.start_later = start_later
        return making.build(self._store, prepare(spec, name, options), name, options)

    def options(self) -> Options:
        """What all containers of this runtime have in common, as `container` takes it."""
        if self._sealed < 0:
            raise RtError("the runtime is closed")
        options = Options()
        options.cgroup_manager = self._cgroup_manager
        options.strict = self._strict
        options.sealed = self._sealed
        return options

    def get(self, container_id: str) -> Container:
        """A container that exists, whoever has made it. Raises ContainerNotFound."""
        found(self._store, container_id).close()
        return Container(self, container_id)

    def containers(self) -> list[Container]:
        """All containers, sorted by id."""
        try:
            return [Container(self, container_id) for container_id in self._store.ids()]
        except RtError:
            if not os.path.exists(self._store.root):
                return []  # nothing has been made there yet
            raise

    def list(self) -> list[dict[str, Any]]:
        """What `rt list --format json` prints, without the owner's name: a state each, with its uid."""
        return listing(self._store) if os.path.isdir(self._store.root) else []

    def state(self, container_id: str) -> dict[str, Any]:
        """What `rt state` prints: the state of the runtime-spec, and more. Raises ContainerNotFound."""
        handle = found(self._store, container_id)
        try:
            return public_state(handle, handle.read_state())
        finally:
            handle.close()

    def start(self, container_id: str) -> None:
        """Let a created container execute its program. Raises RtError."""
        found(self._store, container_id).close()
        start(self._store, container_id, _no_warning)

    def exec(self, container_id: str, args: Sequence[str], **options: Any) -> Result:
        """Run a further program in a container; see `Container.exec`."""
        return self.get(container_id).exec(args, **options)

    def kill(self, container_id: str, signal: int | str = "TERM", *, everyone: bool = False) -> None:
        """Send a signal, a number or a name, to the container's process, or to all. Raises RtError."""
        found(self._store, container_id).close()
        number = signal_number(signal) if isinstance(signal, str) else int(signal)
        kill(self._store, container_id, number, everyone=everyone)

    def delete(self, container_id: str, *, force: bool = False) -> None:
        """Remove a container that has stopped, or with `force` any: then one that is not there is fine.

        Raises RtError.
        """
        if not force:
            found(self._store, container_id).close()
        delete(self._store, container_id, _no_warning, force=force)

    def close(self) -> None:
        """Let go of what is kept open to make containers."""
        if self._sealed >= 0:
            os.close(self._sealed)
            self._sealed = -1

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_sealed", -1) >= 0:
            self.close()


def discard(made: making.Container) -> None:
    """Nothing is left of a container whose program did not start."""
    try:
        if made.handle.lock():
            kill_all(made.handle, made.state, FORCE_SECONDS)
            forget_container(made.handle, made.state, _no_warning)
    finally:
        making.end_process(made)
        made.handle.close()
        if made.pidfd >= 0:
            os.close(made.pidfd)


def _no_warning(text: str) -> None:
    """What a poststop hook has to complain of changes nothing any more."""


__all__ = ["ContainerNotFound", "Runtime"]
