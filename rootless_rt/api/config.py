"""From what callers give (a bundle, or a config) to a checked Spec, with what they change for one run.

Knows configs; must not know what becomes of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rootless_rt.api.errors import told
from rootless_rt.errors import RtError
from rootless_rt.spec.load import Spec, check_rootfs, from_bytes, load

Config = Mapping[str, Any]
Bundle = str | os.PathLike[str] | Config
Environment = Mapping[str, str | None]

_PERIOD = 100_000  # microseconds, cpu.max
_RLIMITS = {
    "cpu_seconds": "RLIMIT_CPU",
    "file_size": "RLIMIT_FSIZE",
    "open_files": "RLIMIT_NOFILE",
    "processes": "RLIMIT_NPROC",
    "address_space": "RLIMIT_AS",
    "core_size": "RLIMIT_CORE",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may use at most; None leaves what the config says.

    Of the cgroup, all processes together; a degradation tells where there is no cgroup to hold them:
    memory         bytes
    pids           processes and threads
    cpus           processors, 0.5 being half of one

    Of each process (setrlimit(2)), which hold everywhere:
    cpu_seconds    seconds of processor time
    file_size      bytes that a file may grow to
    open_files     descriptors
    processes      of the user inside the container
    address_space  bytes
    core_size      bytes of a core file
    """

    memory: int | None = None
    pids: int | None = None
    cpus: float | None = None
    cpu_seconds: int | None = None
    file_size: int | None = None
    open_files: int | None = None
    processes: int | None = None
    address_space: int | None = None
    core_size: int | None = None

    def put_into(self, config: dict[str, Any]) -> None:
        """Change a config, which is a copy, to have these limits. Raises ValueError."""
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None and value < 0:
                raise ValueError(f"limits: {item.name}: {value} is below 0")
        resources = dict(config.get("linux", {}).get("resources", {}))
        if self.memory is not None:
            resources["memory"] = {**resources.get("memory", {}), "limit": self.memory}
        if self.pids is not None:
            resources["pids"] = {"limit": self.pids}
        if self.cpus is not None:
            asked = {"quota": round(self.cpus * _PERIOD), "period": _PERIOD}
            resources["cpu"] = {**resources.get("cpu", {}), **asked}
        config["linux"] = {**config.get("linux", {}), "resources": resources}
        asked = {kind: value for name, kind in _RLIMITS.items() if (value := getattr(self, name)) is not None}
        process = config["process"]
        kept = [limit for limit in process.get("rlimits", []) if limit["type"] not in asked]
        new = [{"type": kind, "soft": value, "hard": value} for kind, value in asked.items()]
        process["rlimits"] = kept + new


def spec_of(bundle: Bundle, rootfs: str | os.PathLike[str] | None = None) -> Spec:
    """The checked Spec of a bundle directory, or of a config given as a dict.

    `rootfs` stands in for root.path, which counts from the working directory where there is no bundle.
    Raises RtError and SpecError, TypeError for a config that is no JSON.
    """
    if isinstance(bundle, Mapping):
        config = dict(bundle)
        base = os.getcwd()
    else:
        with told():
            spec = load(os.fspath(bundle))
        if rootfs is None:
            return spec
        config, base = dict(spec.data), spec.bundle
    if rootfs is not None:
        config["root"] = {**config.get("root", {}), "path": os.path.abspath(rootfs)}
    made = respelled(config, base)
    check_rootfs(made.rootfs)
    return made


def respelled(config: Config, bundle: str) -> Spec:
    """The Spec of a config that was changed: it is checked as a config.json is."""
    return from_bytes(json.dumps(config).encode("utf-8", "surrogateescape"), bundle)


def changed(
    spec: Spec,
    *,
    args: Sequence[str] | None = None,
    env: Environment | None = None,
    cwd: str | None = None,
    limits: Limits | None = None,
    mounts: Sequence[Mapping[str, Any]] = (),
) -> Spec:
    """The Spec with another program, variables, working directory, limits, and more mounts."""
    if args is None and env is None and cwd is None and limits is None and not mounts:
        return spec
    config = dict(spec.data)
    process = config["process"] = dict(config["process"])
    if args is not None:
        process["args"] = words(args)
    if env is not None:
        process["env"] = environment(process.get("env", []), env)
    if cwd is not None:
        process["cwd"] = cwd
    if mounts:
        config["mounts"] = [*config.get("mounts", []), *map(dict, mounts)]
    if limits is not None:
        limits.put_into(config)
    made = respelled(config, spec.bundle)
    made.rootfs = spec.rootfs
    return made


def words(args: Sequence[str]) -> list[str]:
    """The program and its arguments as a list. Raises TypeError for one string, which is no command here."""
    if isinstance(args, str | bytes):
        raise TypeError(f"args: a list of words is needed, not {args!r}: there is no shell but one you name")
    return [os.fspath(word) for word in args]


def environment(given: list[str], changes: Environment) -> list[str]:
    """NAME=value entries with some set, and those whose value is None left out."""
    kept = [entry for entry in given if entry.partition("=")[0] not in changes]
    return kept + [f"{name}={value}" for name, value in changes.items() if value is not None]


def refuse(spec: Spec, what: str) -> None:
    """Raise RtError for a config that asks for what only a container with a state directory can have."""
    linux, process = spec.data.get("linux", {}), spec.data["process"]
    if any(spec.data.get("hooks", {}).values()):
        raise RtError(f"config.json: hooks: {what} runs none", hint="use Runtime.run, which does")
    if process.get("terminal"):
        raise RtError(f"config.json: process.terminal: {what} has no terminal", hint="set it to false")
    if linux.get("netDevices") or linux.get("intelRdt"):
        raise RtError(f"config.json: linux.netDevices and intelRdt: not in {what}", hint="use Runtime.run")
    if process.get("scheduler") or process.get("ioPriority"):
        raise RtError(f"config.json: process.scheduler and ioPriority: not in {what}", hint="use Runtime.run")
    if not any(item["type"] == "pid" and not item.get("path") for item in linux.get("namespaces", [])):
        raise RtError(
            f"config.json: linux.namespaces: {what} needs a pid namespace of its own, so that all of its "
            "processes end together",
            hint='add {"type": "pid"}',
        )
