"""`rt ps`: the processes of a container, as ps(1) of the host shows them.

The host's ps does the printing; where there is none, a table of the same columns is made from /proc.
"""

from __future__ import annotations

import subprocess

from rootless_rt import paths
from rootless_rt.cli.argv import Invocation, text
from rootless_rt.cli.common import store_of
from rootless_rt.cli.output import printable, write
from rootless_rt.container.lifecycle import status_of
from rootless_rt.container.members import members
from rootless_rt.container.store import check_id
from rootless_rt.errors import RtError
from rootless_rt.host import proctable
from rootless_rt.spec.jsonio import dumps

_USUAL = ["-ef"]


def run(inv: Invocation) -> int:
    """Print the processes of the container ID; the words behind the id are for ps."""
    container_id = check_id(inv.args[0])
    handle = store_of(inv).open(container_id)
    try:
        state = handle.read_state()
        if status_of(handle, state) in ("stopped", "creating"):
            raise RtError("container not running", hint=f"rt state {container_id} tells more")
        pids = members(state)
    finally:
        handle.close()
    if text(inv.options, "format") == "json":
        write(dumps(pids) + "\n")
        return 0
    write(_table(inv.args[1:] or _USUAL, pids))
    return 0


def _table(words: list[str], pids: list[int]) -> str:
    """What ps says with these arguments, of these processes alone. Raises RtError."""
    try:
        done = subprocess.run(
            ["ps", *words],
            env=paths.environment(),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError:
        if words != _USUAL:
            raise RtError(
                "there is no ps on this host to take these arguments",
                hint="install it (package procps), or call rt ps without arguments for ps",
            ) from None
        return proctable.table(pids)
    except OSError as error:
        raise RtError(f"cannot run ps: {(error.strerror or '').lower()}") from None
    if done.returncode != 0:
        said = paths.fsdecode(done.stderr).strip().partition("\n")[0]
        raise RtError(f"ps {' '.join(words)}: {said or f'exit status {done.returncode}'}")
    # Not splitlines(): a process may have characters in its name that end a line for Python alone.
    return _filtered(paths.fsdecode(done.stdout).rstrip("\n").split("\n"), {str(pid) for pid in pids})


def _filtered(lines: list[str], pids: set[str]) -> str:
    """The heading and the lines with one of `pids` in the column PID."""
    heading = lines[0].split()
    if "PID" not in heading:
        raise RtError("no column PID in what ps prints", hint="add it to the arguments: -o pid,args")
    column = heading.index("PID")
    kept = [lines[0]]
    for line in lines[1:]:
        fields = line.split(None, column + 1)
        if len(fields) > column and fields[column] in pids:
            kept.append(line)
    return "".join(printable(line) + "\n" for line in kept)
