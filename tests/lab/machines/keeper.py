"""Runs a machine as long as its test run lives: keeper.py SCRATCH CGROUP COMMAND...

Ends when stdin is closed, that is when the test run has ended in whatever way, or when the command ends. Then
it kills the command, and removes the directory SCRATCH and its cgroup below CGROUP ("" for none). The command
is the parent of a pid namespace, and its mounts are in a mount namespace: they go with it. Standard library
only.
"""

import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ENTER = 'echo $$ >"$1"; shift; exec "$@"'
NAME = "rt-test-machine-"  # then the pid of the keeper (cgroup) or of the test run (directory)


def remove_cgroup(top: Path, seconds: float = 5) -> None:
    """Kill what is in a cgroup and below it, and remove the directories."""
    deadline = time.monotonic() + seconds
    while top.is_dir():
        try:
            (top / "cgroup.kill").write_text("1")
            for directory, _, _ in os.walk(top, topdown=False):
                os.rmdir(directory)
        except OSError:
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)


def remove_directory(top: Path) -> None:
    shutil.rmtree(top, ignore_errors=True)


def runs(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state not in "ZX"


def sweep(parent: Path, remove: Callable[[Path], None]) -> None:
    """Remove what is left of machines whose keeper was killed before it could."""
    for entry in parent.glob(f"{NAME}*"):
        pid = re.match(rf"{NAME}(\d+)", entry.name)
        if pid and not runs(pid[1]) and entry.lstat().st_uid == os.getuid():
            remove(entry)


def main() -> int:
    scratch, parent, *command = sys.argv[1:]
    cgroup = Path(parent) / f"{NAME}{os.getpid()}" if parent else None
    sweep(Path(scratch).parent, remove_directory)
    if cgroup:
        sweep(cgroup.parent, remove_cgroup)
        cgroup.mkdir()
        command = ["sh", "-ec", ENTER, "sh", f"{cgroup}/cgroup.procs", *command]
    command = ["setpriv", "--pdeathsig", "KILL", *command]
    process = None
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False, start_new_session=True)
        ended = os.pidfd_open(process.pid)
        select.select([0, ended], [], [])
    finally:
        if process:
            process.kill()
            process.wait()
        if cgroup:
            remove_cgroup(cgroup)
        remove_directory(Path(scratch))
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
