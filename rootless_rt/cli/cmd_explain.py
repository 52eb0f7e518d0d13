"""`rt explain`: the long form of an id that `rt doctor` prints."""

from __future__ import annotations

from difflib import get_close_matches

from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.output import table, write
from rootless_rt.errors import RtError
from rootless_rt.host.doctor.explain import long_form
from rootless_rt.host.doctor.reasons import BY_ID, REASONS


def run(inv: Invocation) -> int:
    """Print what an id means, or without one the list of ids. Raises RtError for one that is none."""
    if not inv.args:
        write(table([(reason.id, reason.severity, reason.what) for reason in REASONS]))
        return 0
    name = inv.args[0].upper()
    reason = BY_ID.get(name) or BY_ID.get("RT-" + name)
    if reason is None:
        near = get_close_matches(name, BY_ID, 1)
        hint = f"did you mean {near[0]}?" if near else f"`{inv.prog} explain` lists the ids"
        raise RtError(f'there is no id "{inv.args[0]}"', hint=hint)
    write(long_form(reason))
    return 0
