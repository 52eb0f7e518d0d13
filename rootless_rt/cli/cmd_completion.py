"""`rt completion`: a script with which a shell completes the words of rt."""

from __future__ import annotations

from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.completion import SHELLS, script
from rootless_rt.cli.output import write
from rootless_rt.errors import RtError


def run(inv: Invocation) -> int:
    """Print the script for SHELL."""
    shell = inv.args[0]
    if shell not in SHELLS:
        raise RtError(f"no completion for the shell {shell[:40]!r}", hint="one of: " + ", ".join(SHELLS))
    write(script(shell))
    return 0
