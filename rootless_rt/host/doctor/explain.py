"""The long form of what `rt doctor`, errors and degradations name by an id."""

from __future__ import annotations

from textwrap import wrap

from rootless_rt.host.doctor.fixes import DISTRIBUTIONS, install
from rootless_rt.host.doctor.reason import Reason
from rootless_rt.host.doctor.reasons import BY_ID

_WIDTH = 80


def explained(message: str, hint: str | None, id: str) -> str:
    """An error, its hint, and the long form of its id where it has one."""
    lines = [message, *([f"hint: {hint}"] if hint else [])]
    reason = BY_ID.get(id)
    return "\n".join([*lines, "", long_form(reason)] if reason else [*lines, ""])


def long_form(reason: Reason) -> str:
    """The text on one id."""
    lines = [f"{reason.id}: {reason.what} ({reason.severity} at worst)", "", *wrap(reason.cause, _WIDTH), ""]
    lines += wrap(f"How it is found: {reason.found}.", _WIDTH)
    lines += ["", "What helps:"]
    for fix in reason.fixes:
        lines += wrap(fix, _WIDTH, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False)
    if reason.thing:
        for manager, systems in DISTRIBUTIONS.items():
            lines.append(f"    {systems + ':':16} {install(reason.thing, manager)[0]}")
    return "\n".join([*lines, "", f'See docs/rootless.md, "{reason.chapter}"', ""])
