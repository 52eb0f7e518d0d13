"""A new container's cgroup: which it is to be, with which limits, and when it is made and entered.

Knows the managers of `cgroups`, and what the plan must know of them. Must not know the state directory, nor
how a plan is performed.
"""

from __future__ import annotations

import posix

from rootless_rt import cgroups, paths
from rootless_rt.errors import RtError
from rootless_rt.host.facts import CgroupFacts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.cgroups.limits import Limit
    from rootless_rt.container.prepare import Options, Prepared
    from rootless_rt.host.facts import HostFacts
    from rootless_rt.plan.model import Plan
    from rootless_rt.spec.load import Spec


def choose(spec: Spec, container_id: str, options: Options, facts: HostFacts) -> cgroups.Manager:
    """The manager of the container's cgroup; facts.cgroup tells the plan of it. Raises RtError."""
    view = cgroups.view()
    linux = spec.data.get("linux", {})
    confined = facts.euid != 0 or not facts.initial_userns

    def chosen(name: str) -> cgroups.Manager:
        return cgroups.choose(
            view,
            manager=name,
            cgroups_path=linux.get("cgroupsPath") or None,
            container_id=container_id,
            euid=facts.euid,
            strict=options.strict,
            rootless=confined,
        )

    notes = []
    try:
        manager = chosen(options.cgroup_manager)
    except RtError as error:
        if options.strict or options.cgroup_manager != "systemd":
            raise
        notes.append(f"--systemd-cgroup: {error.message}: going on without systemd")
        manager = chosen("cgroupfs")
    facts.cgroup = CgroupFacts(view.mode, manager.reason or "")
    facts.cgroup.notes = notes
    files = manager
    if manager.kind == "systemd":
        from rootless_rt.cgroups.systemd import Systemd

        assert isinstance(manager, Systemd)
        files = manager.inner
        manager.prepare(linux.get("resources", {}), spec.data.get("annotations", {}))
    dirs = {}
    if files.kind == "v1":
        for names, path in files.to_state()["paths"].items():
            dirs.update(dict.fromkeys(names.split(","), path))
        if manager is files:
            facts.cgroup.task_files, beside = by_tasks(files)
            facts.cgroup.enter_by_clone = beside is not None
    if files.kind == "v2":
        facts.cgroup.container_dirs[""] = files.paths[0]
        facts.cgroup.enter_by_clone = manager is files
    for name, mount in view.mounts.items():
        # Without a cgroup of its own the container sees the one it shares with its caller.
        path = dirs.get(name) or view.own_dir(name)
        if path:
            facts.cgroup.container_dirs[name] = path
            facts.cgroup.folders[name] = paths.basename(mount)
    if view.mode == "v2" and manager.kind == "none":
        own = view.own_dir()
        if own:
            facts.cgroup.container_dirs[""] = own
    return manager


def limits_of(spec: Spec, manager: cgroups.Manager, facts: HostFacts) -> list[Limit]:
    """What is to be written into the container's cgroups. Raises RtError."""
    resources = spec.data.get("linux", {}).get("resources", {})
    if not any(value for name, value in resources.items() if name != "devices"):
        return []
    from rootless_rt.container.limits import limits_for

    return limits_for(resources, manager, facts)


def make(prepared: Prepared, options: Options) -> None:
    """Make the cgroup with its limits; systemd makes it in `enter`. Raises RtError."""
    prepared.cgroup.create()
    prepared.cgroup.apply(prepared.limits)
    if prepared.cgroup.kind != "systemd":
        _set_devices(prepared, options)


def enter(prepared: Prepared, options: Options, pid: int) -> None:
    """Put the container's process in, unless it was made there. Raises RtError."""
    if prepared.facts.cgroup.enter_by_clone or prepared.facts.cgroup.task_files:
        return
    add(prepared, options, pid)


def add(prepared: Prepared, options: Options, pid: int) -> None:
    """Put a process in that was not made there. Raises RtError."""
    prepared.cgroup.add(pid)
    if prepared.cgroup.kind == "systemd":
        _set_devices(prepared, options)


def by_tasks(manager: cgroups.Manager) -> tuple[list[str], cgroups.Manager | None]:
    """For cgroups of v1: the files into which a process writes itself, and the v2 tree beside, if any."""
    from rootless_rt.cgroups.v1 import V1

    assert isinstance(manager, V1)
    return manager.task_files(), manager.beside()


def fill(fds: list[int], plan: Plan, manager: cgroups.Manager | None) -> None:
    """Open what the plan's slots want of the cgroup that has been made. Raises RtError."""
    for place, (kind, path) in enumerate(plan.fds):
        if kind == "into-cgroup":
            assert manager is not None
            fd = manager.open_dir()
            if fd is None:
                raise RtError(f"cannot enter the cgroup {manager.paths[0]} by its directory")
            fds[place] = fd
        elif kind == "tasks":
            try:
                fds[place] = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
            except OSError as error:
                reason = posix.strerror(error.errno or 0).lower()
                raise RtError(f"cannot enter the cgroup: {path}: {reason}") from None


def _set_devices(prepared: Prepared, options: Options) -> None:
    rules = prepared.spec.data.get("linux", {}).get("resources", {}).get("devices")
    if not rules:
        return
    manager = prepared.cgroup
    reason = manager.set_devices(rules) if manager.kind != "none" else manager.reason
    if reason is None:
        return
    if prepared.facts.euid != 0 or not prepared.facts.initial_userns:
        return  # no device can be made there: the user namespace already says what the rules would
    from rootless_rt.plan.model import Degradation

    field = "linux.resources.devices"
    if options.strict and manager.kind == "none":
        prepared.plan.warnings.append(f"{field}: not enforced: {reason}")
        return
    found = Degradation(field, "device rules", "not enforced", reason or "", id="RT-BUNDLE-LIMITS")
    prepared.plan.degradations.append(found)
