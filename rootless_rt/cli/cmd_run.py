"""`rt run`: create, start and, unless detached, wait for a container."""

from __future__ import annotations

from posix import close, set_inheritable

from rootless_rt.cli.argv import Invocation, flag
from rootless_rt.cli.common import (
    changes_nothing,
    container_options,
    load_spec,
    log_of,
    notify_directory,
    notify_socket,
    store_of,
    tell,
    tell_of_root,
    with_network,
)
from rootless_rt.cli.log import Log
from rootless_rt.container import signals
from rootless_rt.container.create import Container, build, run_hooks_of, start_now
from rootless_rt.container.lifecycle import forget, kill_all
from rootless_rt.container.prepare import prepare
from rootless_rt.container.record import has_cgroup, manager
from rootless_rt.container.store import Handle, check_id
from rootless_rt.container.supervise import Wakeup, supervise, window_size
from rootless_rt.spec.names import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_rt.container.notify import Proxy

_KILL_SECONDS = 10.0
_KILLED = 128 + 9


def run(inv: Invocation) -> int:
    """Run the container ID of the bundle; the exit code is its process's."""
    if inv.held:
        return _see_off(inv)
    signals.catch()
    container_id = check_id(inv.args[0])
    options = container_options(inv)
    options.foreground = not flag(inv.options, "detach")
    options.start_later = False
    store = store_of(inv)
    options.notify = notify_directory(store, container_id)
    spec = with_network(inv, store, container_id, options, load_spec(inv))
    prepared = prepare(spec, container_id, options, window_size(0))
    if options.foreground and not prepared.plan.own_pid and not flag(inv.options, "no_subreaper"):
        from rootless_rt.host.prctl import become_subreaper

        become_subreaper()
    # Let through again where the making waits, and for good once they can be forwarded.
    signals.hold()
    container = build(store, prepared, container_id, options)
    log = log_of(inv)
    tell_of_root(log, store)
    tell(log, prepared.plan)
    # Before the start: whoever sees the program run may signal it through this process.
    wakeup = Wakeup() if options.foreground else None
    proxy = None
    try:
        if options.notify:
            from rootless_rt.container.notify import listen

            proxy = listen(container.handle, notify_socket(), log.warning)
        start_now(container, wakeup)
        # From here on others may stop and delete it, a hook among them.
        container.handle.unlock()
        if spec.data.get("hooks", {}).get("poststart"):
            signals.catch()  # one that hangs can be interrupted
            run_hooks_of(container, spec.data["hooks"], "poststart", "running")
        if proxy is not None and wakeup is None:
            from rootless_rt.container.notify import wait_ready

            wait_ready(proxy, container.pidfd, container.pid, log.warning)
    except BaseException:
        _discard(container, log)
        raise
    if wakeup is None:
        container.handle.close()
        return 0
    if spec.data.get("hooks", {}).get("poststart"):
        wakeup.catch()
    signals.release()
    # Where memory may be short, serving the container comes first.
    if changes_nothing(inv) and prepared.facts.has_memory:
        try:
            from rootless_rt.container.kept import keep

            keep(container, prepared, options)
        except OSError:
            pass  # no descriptor to load it with: the program runs, and that is what counts
    return serve(container, log, wakeup, proxy, keep=flag(inv.options, "keep"))


def _see_off(inv: Invocation) -> int:
    """Put away a container that the launcher has run, and say why it ended: what it could not do itself."""
    directory, _, code = inv.held.partition(",")
    handle = Handle(store_of(inv).root, check_id(inv.args[0]), decimal(directory) or -1)
    set_inheritable(handle.fd, False)
    status = decimal(code) or 0
    _put_away(handle, handle.read_state(), status, log_of(inv))
    return status


def serve(container: Container, log: Log, wakeup: Wakeup, proxy: Proxy | None, *, keep: bool) -> int:
    """The foreground: serve a container that runs until its process ends; the exit code for the command."""
    code = supervise(container.pid, container.pidfd, container.console, wakeup, proxy)
    close(container.pidfd)  # has done its work: where descriptors are few, the removal takes its place
    container.pidfd = -1
    if keep:
        _explain_kill(container.state, code, log)
    else:
        _put_away(container.handle, container.state, code, log)
    return code


def _explain_kill(state: dict[str, Any], code: int, log: Log) -> None:
    """Say so if it was the kernel that has killed the container, for its memory."""
    if code != _KILLED or not has_cgroup(state):
        return
    from rootless_rt.cgroups.oom import explanation

    reason = explanation(manager(state))
    if reason is not None:
        log.warning(reason)


def _put_away(handle: Handle, state: dict[str, Any], code: int, log: Log) -> None:
    """Explain the end of a container, and remove it unless somebody has done so."""
    _explain_kill(state, code, log)
    if handle.lock():
        if not state["ownPid"]:
            kill_all(handle, state, _KILL_SECONDS)
        forget(handle, state, log.warning)


def _discard(container: Container, log: Log) -> None:
    """Nothing is left of a container whose program did not start."""
    if not container.handle.lock():
        return
    kill_all(container.handle, container.state, _KILL_SECONDS)
    forget(container.handle, container.state, log.warning)
