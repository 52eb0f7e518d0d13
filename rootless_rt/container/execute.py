"""A further process in a container that runs: `rt exec`.

Namespaces, limits and the filter come from the container's processes and from the config that was saved when
it was made, never from the bundle. The container is not locked: it may be killed or deleted meanwhile, which
ends this process with all others.
"""

from __future__ import annotations

import posix

from rootless_rt.container import confine, processes, record, signals
from rootless_rt.container.create import (
    Container,
    Ended,
    connect_to,
    end_process,
    send,
    until_created,
)
from rootless_rt.container.lifecycle import status_of
from rootless_rt.container.prepare import (
    Options,
    check_terminal,
    emulation_of,
    filter_of,
    look_at_joined,
    open_fds,
)
from rootless_rt.container.store import CONFIG, Handle
from rootless_rt.errors import RtError
from rootless_rt.host.facts import gather
from rootless_rt.init import launch
from rootless_rt.plan.execute import exec_plan
from rootless_rt.plan.model import Policy
from rootless_rt.plan.ops import encode
from rootless_rt.spec.load import Spec, from_bytes
from rootless_rt.spec.names import NAMESPACES

_MOMENT = 0.5  # seconds: all that a kill signals ends within it

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from idmap.extents import Extent
    from rootless_rt import cgroups
    from rootless_rt.host.facts import HostFacts


def saved_spec(handle: Handle, state: dict[str, Any]) -> Spec:
    """The config as it was when the container was made. Raises RtError."""
    try:
        data = handle.read(CONFIG)
    except OSError as error:
        raise RtError(f"{handle.path}/{CONFIG}: {posix.strerror(error.errno or 0).lower()}") from None
    spec = from_bytes(data, state["bundle"])
    spec.notes = ()  # were told when it was made
    return spec


def check_status(handle: Handle, state: dict[str, Any], *, paused: bool) -> None:
    """Refuse a container that no process can be added to; with `paused`, a frozen one is fine."""
    status = status_of(handle, state)
    if status == "paused" and not paused:
        raise RtError(
            f'cannot exec in a paused container (use --ignore-paused to override): "{handle.id}"',
            hint="a process that is added to a paused container waits until it is resumed",
        )
    if status in ("stopped", "creating"):
        raise _not_running(handle, status)


def _not_running(handle: Handle, status: str) -> RtError:
    return RtError(f'cannot exec in a container that is not running: "{handle.id}" is {status}')


def add_process(
    handle: Handle, state: dict[str, Any], spec: Spec, options: Options, size: tuple[int, int]
) -> Container:
    """Make the process up to where it waits to execute its program. Raises RtError, leaving nothing behind.

    `spec` is the saved one with the new process in it; `size` is rows and columns of the caller's terminal.
    """
    check_terminal(spec, options)
    facts = gather(spec.data)
    facts.filter = filter_of(spec)
    facts.emulation = emulation_of(spec)
    policy = Policy(
        handle.id,
        strict=options.strict,
        new_keyring=options.new_keyring,
        keep_fds=options.keep_fds,
        keep_groups=options.keep_groups or bool(state.get("keepGroups")),
        listen_fds=options.listen_fds,
        listen_names=options.listen_names,
        trace=options.debug is not None,
        rows=size[0],
        cols=size[1],
    )
    joined = _namespaces(state)
    look_at_joined(facts, joined)
    if "user" in joined:
        facts.joined_maps = _maps(state["pid"])
    manager = _cgroup(state, options.below)
    if manager is not None and manager.kind == "v1":
        facts.cgroup.task_files, manager = confine.by_tasks(manager)
    plan = exec_plan(spec, facts, policy, joined)
    container = Container(handle, spec, plan, state, options)
    container.facts = facts
    with signals.held():
        _start(container, facts, manager)
    return container


def _namespaces(state: dict[str, Any]) -> dict[str, str]:
    """The namespaces of the container's process that are not ours: type -> file."""
    found = {}
    for kind, (_, name) in NAMESPACES.items():
        path = f"/proc/{state['pid']}/ns/{name}"
        try:
            theirs, ours = posix.stat(path), posix.stat(f"/proc/self/ns/{name}")
        except FileNotFoundError:
            continue  # a kind that this kernel has not, or the process has ended: noticed when they are open
        except OSError as error:
            reason = posix.strerror(error.errno or 0).lower()
            raise RtError(
                f"cannot look at the container's {kind} namespace: {reason}",
                hint="only the user who made the container, and root, can enter it",
            ) from None
        if theirs.st_ino != ours.st_ino:
            found[kind] = path
    # A process that is ending loses its namespaces some time before it counts as dead; and a state that names
    # a process of the host has none to lose. Without this the program would run on the host's files.
    if "mount" not in found:
        raise RtError(
            f"process {state['pid']} is in no mount namespace of its own: there is no container to enter",
            hint="has it ended this very moment? rt state tells",
        )
    return found


def _maps(pid: int) -> tuple[list[Extent], list[Extent]] | None:
    from idmap.userns import own_map

    try:
        return own_map("uid", f"/proc/{pid}"), own_map("gid", f"/proc/{pid}")
    except OSError:
        return None  # it has just ended: noticed when its namespaces are open


def _start(container: Container, facts: HostFacts, manager: cgroups.Manager | None) -> None:
    options = container.options
    fds = open_fds(container.plan, facts)
    console = pidfd_to = None
    try:
        confine.fill(fds, container.plan, manager)
        # Opened by number: they are the container's only if its process is still the same behind that.
        if not processes.is_alive(container.state):
            raise _not_running(container.handle, "stopped")
        if options.console_socket:
            console = connect_to(options.console_socket, "--console-socket")
        if options.pidfd_socket:
            pidfd_to = connect_to(options.pidfd_socket, "--pidfd-socket")
        started = launch.start(encode(container.plan.ops), fds, options.stdio, options.sealed)
        container.sock, container.starter = started
        try:
            until_created(container, console, lambda _: _enter(container, manager, options.below))
            if pidfd_to is not None:
                send(pidfd_to, container.pidfd, "setns")
            if options.pid_file:
                from rootless_rt.container.pidfile import write_pid_file

                write_pid_file(options.pid_file, container.pid)
        except RtError as error:
            end_process(container)
            # Killed, deleted, or gone by itself while we were on the way: that is what went wrong.
            if _has_ended(container.state, isinstance(error, Ended)):
                raise _not_running(container.handle, "stopped") from None
            raise
        except BaseException:
            end_process(container)
            raise
    finally:
        for connection in (console, pidfd_to):
            if connection is not None:
                connection.close()
        for fd in fds:
            if fd >= 0:
                posix.close(fd)


def _has_ended(state: dict[str, Any], soon: bool) -> bool:
    """Whether the container's first process has; with `soon`, it may be the next that a kill reaches."""
    pidfd = processes.open_process(state)
    if pidfd < 0:
        return True
    try:
        return processes.wait_end(pidfd, _MOMENT if soon else 0)
    finally:
        posix.close(pidfd)


def _cgroup(state: dict[str, Any], wanted: dict[str, str]) -> cgroups.Manager | None:
    """The cgroup of the new process: the container's, or what --cgroup names below it. Raises RtError."""
    if not record.has_cgroup(state) and not wanted:
        return None
    manager = record.manager(state)
    return manager.below(wanted) if wanted else manager


def _enter(container: Container, manager: cgroups.Manager | None, wanted: dict[str, str]) -> None:
    if "rdt" in container.state:
        from rootless_rt.container.outside import enter_group

        enter_group(container.state, container.handle.id, container.pid)
    if manager is not None and wanted:
        manager.add(container.pid)
    elif manager is not None:
        manager.add_beside(container.pid, container.state["pid"])
    if container.plan.tuning:
        from rootless_rt.container.tuning import set_from_outside

        set_from_outside(container)
