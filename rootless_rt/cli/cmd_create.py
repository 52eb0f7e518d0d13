"""`rt create`: make a container that waits for `rt start`."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.common import (
    container_options,
    load_spec,
    log_of,
    notify_directory,
    store_of,
    tell,
    tell_of_root,
    with_network,
)
from rootless_rt.container import signals
from rootless_rt.container.create import build
from rootless_rt.container.prepare import prepare
from rootless_rt.container.store import check_id


def run(inv: Invocation) -> int:
    """Create the container ID of the bundle."""
    signals.catch()
    container_id = check_id(inv.args[0])
    options = container_options(inv)
    store = store_of(inv)
    options.notify = notify_directory(store, container_id)
    spec = with_network(inv, store, container_id, options, load_spec(inv))
    prepared = prepare(spec, container_id, options)
    # From here on a signal either takes everything back or finds a container that is made.
    signals.hold()
    container = build(store, prepared, container_id, options)
    log = log_of(inv)
    tell_of_root(log, store)
    tell(log, prepared.plan)
    container.handle.close()
    return 0
