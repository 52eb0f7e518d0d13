"""`rt delete`: remove a container."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation, flag
from rootless_rt.cli.common import log_of, store_of
from rootless_rt.container.lifecycle import delete


def run(inv: Invocation) -> int:
    """Remove the container ID, or with --regex all that match it."""
    store, warn, force = store_of(inv), log_of(inv).warning, flag(inv.options, "force")

    def remove(container_id: str) -> None:
        if flag(inv.options, "purge"):
            from rootless_rt.cli.purge import purge

            purge(inv, store, container_id, lambda: delete(store, container_id, warn, force=force))
        else:
            delete(store, container_id, warn, force=force)

    if flag(inv.options, "regex"):
        from rootless_rt.cli.each import each

        each(store, inv.args[0], remove)
    else:
        remove(inv.args[0])
    return 0
