"""The system calls of a `rt` command one by one, and a signal at a chosen one: strace(1) injects it.

Of the command's own process only: what it starts goes on untraced, as when an engine's command is killed.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from lab.runtime import Runtime
from lab.wrapped import Wrapped

Call = tuple[str, int]  # the name, and which one of that name in the process's life, from 1
_LINE = re.compile(r"^(\w+)\(")
_NO_MATTER = ("exit_group", "rt_sigreturn", "restart_syscall")  # never reached twice alike


class Calls:
    """Commands of one user on one state root, under strace."""

    def __init__(self, rt: Runtime, folder: Path) -> None:
        if not shutil.which("strace"):
            pytest.skip("needs strace")
        self.rt, self.folder = rt, folder

    def of(self, *words: str, first: str) -> list[Call]:
        """Run a command that succeeds; its calls from the first one that has `first` in its line.

        What comes before, the start of the interpreter and the reading of options, touches no container.
        """
        out = self.folder / "calls"
        done = self._run(("-s", "4096", "-o", str(out)), words)
        if "ptrace" in done.stderr:
            pytest.skip(f"strace cannot trace here: {done.stderr.strip()[-100:]}")
        assert done.returncode == 0, done.stderr
        seen: Counter[str] = Counter()
        found: list[Call] = []
        begun = False
        for line in out.read_text(errors="replace").splitlines():
            match = _LINE.match(line)
            if match is None or match[1] in _NO_MATTER:
                continue
            seen[match[1]] += 1
            begun = begun or (first in line and match[1] != "execve")
            if begun:
                found.append((match[1], seen[match[1]]))
        out.unlink()
        return found

    def kill_at(self, call: Call, *words: str) -> bool:
        """Run a command that is killed as it enters this call; whether it came to that."""
        return self.strike_at(call, signal.SIGKILL, *words) == -signal.SIGKILL

    def strike_at(self, call: Call, number: signal.Signals, *words: str) -> int:
        """Run a command that gets a signal as it enters this call; its return code as Popen gives it."""
        name, which = call
        inject = f"inject={name}:signal={int(number)}:when={which}"
        return self._run(("-e", f"trace={name}", "-e", inject, "-o", "/dev/null"), words).returncode

    def _run(self, options: tuple[str, ...], words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        # In a directory of the test's: what the command leaves running is known by it (`Ground`).
        return Wrapped(self.rt, "strace", "-qq", *options)(*words, cwd=str(self.rt.root.parent))


def spread(calls: list[Call], count: int) -> list[Call]:
    """At most `count` of them at even distances, the last one included."""
    if len(calls) <= count:
        return calls
    return [calls[(number + 1) * len(calls) // count - 1] for number in range(count)]
