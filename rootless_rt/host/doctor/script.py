"""From findings to a shell script for an administrator. Pure: it is printed, and never run by rt."""

from __future__ import annotations

from rootless_rt.errors import CONTROLS
from rootless_rt.host.doctor.model import OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless_rt.host.doctor.model import Finding, Me

_HEAD = """\
#!/bin/sh
# What root has to do so that {who} can run containers with rt here.
# Written by `rt doctor --fix-script`: read it before you run it. It may be run again.
set -eu
"""
_ROOT = """
if [ "$(id -u)" -ne 0 ]; then
\techo "run this as root" >&2
\texit 1
fi
"""


def fix_script(findings: Sequence[Finding], me: Me) -> str:
    """The script: the commands of all that is not well, each under its id and cause; other remedies as
    comments."""
    parts = [_HEAD.format(who=_comment(me.who))]
    troubles = [finding for finding in findings if finding.status != OK]
    if any(finding.commands for finding in troubles):
        parts.append(_ROOT)
    seen: set[str] = set()
    for finding in troubles:
        parts.append(f"\n# {finding.id}: {_comment(finding.what)}: {_comment(finding.why)}\n")
        fresh = [line for line in finding.commands if line not in seen]
        seen.update(fresh)
        if fresh:
            parts += [line + "\n" for line in fresh]
        elif finding.commands:
            parts.append("# (the same as above)\n")
        elif finding.fix:
            parts.append(f"# Not for a script: {_comment(finding.fix)}\n")
    if not troubles:
        parts.append("\n# Nothing to do.\n")
    return "".join(parts)


def _comment(text: str) -> str:
    return text.translate(CONTROLS)
