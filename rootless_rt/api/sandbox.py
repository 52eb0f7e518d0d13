"""A sandbox: a config compiled once, run as often as one likes."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rootless_rt.api.compiled import Compiled
from rootless_rt.api.config import Bundle, Environment, Limits, changed, spec_of
from rootless_rt.api.errors import Closed, told
from rootless_rt.api.keeper import Keeper, Lost
from rootless_rt.api.launching import Run
from rootless_rt.api.process import Process
from rootless_rt.api.result import Result
from rootless_rt.api.streams import DEVNULL, PIPE, Source, Streams, Target
from rootless_rt.container.prepare import Options

_VARIANTS = 16


class Sandbox:
    """A container's config, compiled for this host; every run makes a container of it that has no name.

    `bundle` is a bundle directory, or a config as a dict, for which `rootfs` names the root file system. The
    rest stands in for the config's process, limits the whole, or adds mounts (as in config.json).
    `degrade` and `cgroup_manager` are as of `Runtime`. Raises RtError for what cannot be done here.

    Runs leave nothing behind: no state, no cgroup, no process, however this program ends. The rootfs is as
    the config says: one that is not read-only keeps what is written to it. Threads may share a sandbox.
    `close` it, or use it as a context manager.
    """

    def __init__(
        self,
        bundle: Bundle,
        rootfs: str | os.PathLike[str] | None = None,
        *,
        args: Sequence[str] | None = None,
        env: Environment | None = None,
        cwd: str | None = None,
        limits: Limits | None = None,
        mounts: Sequence[Mapping[str, Any]] = (),
        overlay: bool = False,
        degrade: str = "warn",
        cgroup_manager: str = "auto",
    ) -> None:
        if degrade not in ("warn", "strict"):
            raise ValueError(f"degrade: one of warn, strict, not {degrade!r}")
        spec = changed(spec_of(bundle, rootfs), args=args, env=env, cwd=cwd, limits=limits, mounts=mounts)
        options = Options()
        options.start_later = False
        options.strict = degrade == "strict"
        options.cgroup_manager = cgroup_manager
        options.overlay = "" if overlay else None
        with told():
            self.compiled = Compiled(spec, options)
        self._numbers = itertools.count(1)
        self._keeping = threading.Lock()
        self._keeper: Keeper | None = None
        self._variants: dict[str, Compiled] = {}
        self._closed = False

    @property
    def degradations(self) -> tuple[Any, ...]:
        """What differs from what the config asks, and why, as far as it is known before a run."""
        return tuple(self.compiled.prepared.plan.degradations)

    def run(
        self,
        args: Sequence[str] | None = None,
        *,
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
        """Run a container to its end. Raises RtError when it cannot start.

        `args` stands in for the config's program, `env` sets variables of it (None removes one). New `limits`
        and `mounts` take a little longer: the config is compiled anew. When `timeout` seconds are over, or
        more than `max_output` bytes come from one pipe, it is killed, and the result says so.
        """
        streams = Streams(stdin, stdout, stderr)
        with self.started(args, env, cwd, limits, mounts, streams, files=False) as process:
            return process.communicate(timeout=timeout, max_output=max_output)

    def popen(
        self,
        args: Sequence[str] | None = None,
        *,
        env: Environment | None = None,
        cwd: str | None = None,
        limits: Limits | None = None,
        mounts: Sequence[Mapping[str, Any]] = (),
        stdin: Source = DEVNULL,
        stdout: Target = PIPE,
        stderr: Target = PIPE,
    ) -> Process:
        """Start a container and return while it runs. Raises RtError when it cannot start."""
        return self.started(args, env, cwd, limits, mounts, Streams(stdin, stdout, stderr))

    def started(
        self,
        args: Sequence[str] | None,
        env: Environment | None,
        cwd: str | None,
        limits: Limits | None,
        mounts: Sequence[Mapping[str, Any]],
        streams: Streams,
        *,
        files: bool = True,
    ) -> Process:
        """As `popen`; for who only wants to `communicate`, without `files`."""
        begun = time.monotonic()
        try:
            compiled = self._variant(limits, mounts)
            task = compiled.with_task(args, env, cwd)
            with told():
                run = self.made(compiled, lambda run, keeper: run.start(task, streams.stdio, keeper))
            streams.sent()
            return Process(task.args, run, streams, begun, files=files)
        except BaseException:
            streams.close()
            raise

    def known(self, limits: Limits | None, mounts: Sequence[Mapping[str, Any]]) -> Compiled | None:
        """What is compiled already for these limits and mounts."""
        if limits is None and not mounts:
            return self.compiled
        return self._variants.get(repr((limits, mounts)))

    def number(self) -> int:
        """Of the next run."""
        return next(self._numbers)

    def _variant(self, limits: Limits | None, mounts: Sequence[Mapping[str, Any]]) -> Compiled:
        """Compiled with other limits and more mounts; the last few are kept."""
        found = self.known(limits, mounts)
        if found is None:
            found = self.compiled.changed(limits, mounts)
            with self._keeping:
                while len(self._variants) >= _VARIANTS:
                    del self._variants[next(iter(self._variants))]
                self._variants[repr((limits, mounts))] = found
        return found

    def made(self, compiled: Compiled, begin: Callable[[Run, Keeper], None]) -> Run:
        """A new run that `begin` has begun, by a keeper that lives. For `Pool`; raises RtError."""
        keeper = self.keeper()
        run = Run(compiled, self.number())
        try:
            begin(run, keeper)
        except Lost:
            keeper.close()
            run = Run(compiled, self.number())
            begin(run, self.keeper())
        return run

    def keeper(self) -> Keeper:
        """The keeper, started for the first run, or again after somebody has killed it. Raises RtError."""
        with self._keeping:
            if self._closed:
                raise Closed("the sandbox is closed")
            if self._keeper is None or not self._keeper.lives:
                self._keeper = Keeper(self.compiled.dirs, self.compiled.outer)
            return self._keeper

    def close(self) -> None:
        """End the runs under way, and let go of what is kept for them."""
        with self._keeping:
            keeper, self._keeper, self._closed = self._keeper, None, True
        if keeper is not None:
            keeper.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_keeper", None) is not None:
            self.close()
