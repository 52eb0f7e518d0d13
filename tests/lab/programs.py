"""Small programs that use the API, run by an ordinary user as they would be outside of the tests.

A program is the body of a script: `bundle` and `root` are given, everything public is imported. It ends with
status 0 when each of its asserts holds; what it prints is for the test.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import dedent
from typing import Any

from lab.runtime import TREE
from lab.users import User
from lab.waiting import until

HEAD = """\
import os, sys, signal, threading, time
from rootless_rt import *
import rootless_rt
bundle, root = sys.argv[1:3]
"""


class Programs:
    """Runs programs of one user, with one state root."""

    def __init__(self, user: User, place: Path, root: Path) -> None:
        self.user, self.place, self.root = user, place, root
        self._count = 0

    def argv(self, bundle: Path, source: str, *words: str) -> list[str]:
        self._count += 1
        path = self.place / f"program{self._count}.py"
        path.write_text(HEAD + dedent(source))
        return [sys.executable, "-P", "-B", str(path), str(bundle), str(self.root), *words]

    def popen(self, bundle: Path, source: str, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program; Popen's options may be given."""
        return self.start(self.argv(bundle, source, *words), **options)

    def start(self, argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start any command of the user, for which the package can be imported."""
        env = {**self.user.environment(), "PYTHONPATH": str(TREE), "PYTHONWARNINGS": "error"}
        options.setdefault("cwd", "/")
        if os.getuid() != self.user.uid:
            ids = {"user": self.user.uid, "group": self.user.gid, "extra_groups": []}
            options = {**ids, **options}
        return subprocess.Popen(argv, env=env, **options)

    def run(self, argv: list[str], timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run any command of the user to its end."""
        options.setdefault("stdin", subprocess.DEVNULL)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = self.start(argv, stdout=out, stderr=err, **options)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            out.seek(0)
            err.seek(0)
            said, complained = out.read().decode(), err.read().decode()
        return subprocess.CompletedProcess(argv, process.returncode, said, complained)

    def __call__(self, bundle: Path, source: str, *words: str, timeout: float = 60, **options: Any) -> str:
        """Run a program that must end well without a word on stderr; its stdout."""
        done = self.run(self.argv(bundle, source, *words), timeout, **options)
        assert done.returncode == 0 and not done.stderr, (done.returncode, done.stdout, done.stderr)
        return done.stdout


def running(user: int) -> list[str]:
    """Command lines of a user's processes, rt-init's own included."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid == user and (path / "cmdline").read_bytes():
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip())
        except OSError:
            continue
    return found


def end_and_leave_nothing(program: subprocess.Popen[bytes], user: int, *names: str) -> None:
    """Kill a program whose stdout is a pipe; no process of the user's whose words begin so outlives it."""
    assert program.stdout is not None
    program.kill()
    program.wait()
    program.stdout.close()

    def left() -> list[str]:
        return [line for line in running(user) if line.startswith(names)]

    until(lambda: not left(), lambda: f"all has ended; there are {left()}")
