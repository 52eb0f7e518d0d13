"""What the start of a Python command costs, module by module.

    python3 benchmarks/imports.py [--rounds N] [--python PATH] -- build/rt state ID

The command is a Python script or a launcher that becomes an interpreter; the launcher's time is in the whole.
It runs N times and should be one without side effects. Its exit status does not matter: an error path can be
looked at, too.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

BARE = ["-I", "-S", "-B"]
MARK = "import time:"
PTRACE_TRACEME, PTRACE_CONT = 0, 7


def python_argv(command: list[str]) -> list[str]:
    """The argv of the interpreter that `command` becomes, through any launcher or `#!` line. Exits if none.

    Follows the command from exec to exec, ptrace(2), and ends it before the interpreter's first instruction.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    pid = os.fork()
    if pid == 0:
        try:
            if libc.ptrace(PTRACE_TRACEME, 0, None, None) == 0:
                os.execv(command[0], command)
        finally:
            os._exit(127)
    while os.WIFSTOPPED(os.waitpid(pid, 0)[1]):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        if os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("python"):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return [os.fsdecode(word) for word in words]
        libc.ptrace(PTRACE_CONT, pid, None, None)
    sys.exit(f"{command[0]} ended, and had not become a Python interpreter")


def wall_times(argv: Sequence[str], rounds: int) -> list[float]:
    """Milliseconds of each of `rounds` runs, output thrown away."""
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    times = []
    for _ in range(rounds):
        start = time.perf_counter_ns()
        pid = os.posix_spawn(argv[0], list(argv), dict(os.environ), file_actions=null)
        os.waitpid(pid, 0)
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times


def imports_of(argv: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """The imports of one run under -X importtime: name to (own µs, with its children µs, depth), in order."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = {}
    for line in done.stderr.splitlines():
        if not line.startswith(MARK) or "self [us]" in line:
            continue
        own, total, name = line.removeprefix(MARK).split("|", 2)
        depth = (len(name) - len(name.lstrip()) - 1) // 2
        found[name.strip()] = (int(own), int(total), depth)
    return found


def least(argv: Sequence[str], rounds: int) -> dict[str, tuple[int, int, int]]:
    """`imports_of` over several runs, the least of each figure."""
    best = imports_of(argv)
    for _ in range(rounds - 1):
        for name, (own, total, depth) in imports_of(argv).items():
            known = best.get(name, (own, total, depth))
            best[name] = (min(own, known[0]), min(total, known[1]), depth)
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description="What a Python command's start costs, by module.")
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="runs (default 30)")
    parser.add_argument("--python", metavar="PATH", help="another interpreter than the command's own")
    parser.add_argument("command", nargs="+", help="the command and its arguments, after --")
    options = parser.parse_args()
    script = shutil.which(options.command[0])
    if script is None:
        parser.error(f"{options.command[0]}: not an executable file")
    command = [os.path.abspath(script), *options.command[1:]]
    argv = python_argv(command)
    python = shutil.which(options.python or argv[0])
    if python is None:
        parser.error(f"{options.python or argv[0]}: no such interpreter")

    bare = [python, *BARE, "-c", "import posix; posix._exit(0)"]
    whole = [python, *argv[1:]] if options.python else command
    bare_times: list[float] = []
    whole_times: list[float] = []
    wall_times(bare, 3), wall_times(whole, 3)
    for _ in range(options.rounds):  # in turn, so that a busy moment touches both
        bare_times += wall_times(bare, 1)
        whole_times += wall_times(whole, 1)
    always = imports_of([python, *BARE, "-X", "importtime", "-c", "pass"])
    modules = least([python, "-X", "importtime", *argv[1:]], min(options.rounds, 10))
    ours = {name: figures for name, figures in modules.items() if name not in always}

    print(f"becomes: {shlex.join([python, *argv[1:]])}")
    print(f"{'median':>8} {'least':>8}  ms")
    for what, times in ((" ".join(BARE) + ", posix._exit", bare_times), (shlex.join(whole), whole_times)):
        print(f"{statistics.median(times):8.2f} {min(times):8.2f}  {what}")
    print(f"{statistics.median(whole_times) - statistics.median(bare_times):8.2f} {'':8}  difference\n")
    if not modules:
        print("the command started no interpreter that listens to -X importtime")
        return 1
    print(f"{'own':>8} {'all':>8}  ms, the least seen; the next one less indented is the importer")
    for name, (own, total, depth) in ours.items():
        print(f"{own / 1000:8.2f} {total / 1000:8.2f}  {'  ' * depth}{name}")
    together = sum(own for own, _, _ in ours.values()) / 1000
    print(f"{together:8.2f} {'':8}  {len(ours)} modules more than the bare start")
    return 0


if __name__ == "__main__":
    sys.exit(main())
