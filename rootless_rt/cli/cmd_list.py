"""`rt list`: the containers of a state root."""

from __future__ import annotations

from rootless_rt import paths
from rootless_rt.cli.argv import Invocation, flag, text
from rootless_rt.cli.common import store_of
from rootless_rt.cli.output import table, write
from rootless_rt.container.lifecycle import listing
from rootless_rt.spec.jsonio import dumps

_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def run(inv: Invocation) -> int:
    """Print a table, JSON, or only the ids."""
    store = store_of(inv)
    if flag(inv.options, "quiet"):
        write("".join(f"{container_id}\n" for container_id in store.ids()))
        return 0
    containers = listing(store)
    names: dict[int, str] = {}
    for shown in containers:
        uid = shown.pop("uid")
        if uid not in names:
            names[uid] = _user_name(uid)
        shown["owner"] = names[uid]
    if text(inv.options, "format") == "json":
        # An empty list is null, as runc prints it.
        write((dumps(containers) if containers else "null") + "\n")
        return 0
    rows = [tuple(str(shown[column.lower()]) for column in _COLUMNS) for shown in containers]
    write(table([_COLUMNS, *rows]))
    return 0


def _user_name(uid: int) -> str:
    from idmap.subid import user_name

    try:
        return user_name(uid) or f"#{uid}"
    except OSError:
        return paths.environment().get("USER", f"#{uid}")
