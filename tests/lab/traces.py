"""What a command and the processes it makes open and execute, as strace(1) sees it."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from lab.runtime import Runtime
from lab.waiting import until
from lab.wrapped import Wrapped

_CALLS = "?open,openat,?openat2,?creat,execve,execveat,?open_tree,?uselib,?clone,?clone3,?fork,?vfork"
_CALL = re.compile(r"^(\d+) +(?:(\w+)\(|<\.\.\. (\w+) resumed>)(.*)$")
_FORKS = ("clone", "clone3", "fork", "vfork")
INIT = "/proc/self/fd/"


class Trace:
    """The calls of one command, by the kind of process that made them.

    `runtime`: (call, its line) of the interpreter and its helpers; `init`: those of rt-init up to the program
    that it becomes; what the container's programs do is left out.
    """

    def __init__(self, text: str) -> None:
        lines = [(int(m[1]), m[2] or m[3], m[4]) for line in text.splitlines() if (m := _CALL.match(line))]
        parents = {
            int(result[1]): pid
            for pid, call, rest in lines
            if call in _FORKS and (result := re.search(r"= (\d+)$", rest))
        }
        self.runtime: list[tuple[str, str]] = []
        self.init: list[tuple[str, str]] = []
        kinds: dict[int, str] = {}

        def kind_of(pid: int) -> str:
            if pid not in kinds:
                kinds[pid] = kind_of(parents[pid]) if pid in parents else "runtime"
            return kinds[pid]

        for pid, call, rest in lines:
            kind = kind_of(pid)
            if kind != "program" and call not in _FORKS:
                (self.init if kind == "init" else self.runtime).append((call, rest))
            # A successful one does not always end its line ("unfinished"): a failed one does.
            if call in ("execve", "execveat") and "= -1" not in rest and '"' in rest:
                path = rest.split('"')[1]
                if kind == "init":
                    kinds[pid] = "program"
                elif path.startswith(INIT):
                    kinds[pid] = "init"

    def paths(self, kind: str) -> set[str]:
        """Every path that these processes opened or executed, or tried to."""
        found = self.init if kind == "init" else self.runtime
        return {match[1] for _, rest in found if (match := re.search(r'"((?:[^"\\]|\\.)*)"', rest))}


class Traced:
    """A runtime that writes down what each command does."""

    def __init__(self, rt: Runtime, folder: Path) -> None:
        if not shutil.which("strace"):
            pytest.skip("needs strace")
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
        self.folder = folder
        self.rt = rt
        self.number = 0

    def __call__(self, *words: str) -> tuple[Path, int, str]:
        """(file of the trace, exit status, stderr) of a command; its container goes on under strace."""
        self.number += 1
        out = self.folder / f"{self.number}-{words[0]}"
        # -D: what is waited for is the command, not the tracer, which stays with a detached container.
        traced = Wrapped(
            self.rt, "strace", "-D", "-f", "-qq", "-s", "4096", "-e", f"trace={_CALLS}", "-o", str(out)
        )
        done = traced(*words)
        if "ptrace" in done.stderr and not out.exists():
            pytest.skip(f"strace cannot trace here: {done.stderr.strip()[-100:]}")
        return out, done.returncode, done.stderr


def read(out: Path) -> Trace:
    """The trace of a command all of whose processes end, once strace has ended too: nothing is added then."""
    until(lambda: out.exists() and not _writers(out), f"strace has written {out}")
    return Trace(out.read_text(errors="replace"))


def _writers(path: Path) -> list[str]:
    """The processes that have a file open, as far as we may look at them."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended
            for name in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{name}") == str(path):
                    found.append(pid)
    return found
