"""`rt restore`: bring a checkpointed container back to life."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation, flag, text
from rootless_rt.cli.cmd_run import serve
from rootless_rt.cli.common import (
    container_options,
    log_of,
    notify_directory,
    store_of,
    tell,
)
from rootless_rt.cli.criu import wanted_of
from rootless_rt.container import signals
from rootless_rt.container.prepare import prepare
from rootless_rt.container.restore import restore
from rootless_rt.container.store import check_id
from rootless_rt.container.supervise import Wakeup, window_size
from rootless_rt.spec.load import load


def run(inv: Invocation) -> int:
    """Restore the container ID of the bundle; the exit code is its process's."""
    signals.catch()
    container_id = check_id(inv.args[0])
    wanted = wanted_of(inv)
    wanted.lsm_profile = text(inv.options, "lsm_profile") or ""
    wanted.lsm_mount_context = text(inv.options, "lsm_mount_context") or ""
    options = container_options(inv)
    options.foreground = not flag(inv.options, "detach")
    options.start_later = False
    store = store_of(inv)
    options.notify = notify_directory(store, container_id)
    spec = load(text(inv.options, "bundle") or ".", text(inv.options, "config"))
    prepared = prepare(spec, container_id, options, window_size(0))
    if options.foreground and not prepared.plan.own_pid and not flag(inv.options, "no_subreaper"):
        from rootless_rt.host.prctl import become_subreaper

        become_subreaper()
    signals.hold()
    container = restore(store, prepared, container_id, options, wanted)
    tell(log_of(inv), prepared.plan)
    container.handle.unlock()
    if not options.foreground:
        container.handle.close()
        return 0
    wakeup = Wakeup()
    wakeup.catch()
    signals.release()
    return serve(container, log_of(inv), wakeup, None, keep=False)
