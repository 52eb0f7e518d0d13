"""The `rt` command as one user runs it, on one state root."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from lab.users import User
from lab.waiting import PATIENCE

TREE = Path(__file__).resolve().parent.parent.parent
RT = os.environ.get("RT") or str(TREE / "build/rt")
ENDLESS = 3 * PATIENCE  # of one command, which may be one of a hundred at once


def program_problem() -> str | None:
    """Why the command cannot be tested, or None."""
    return None if os.access(RT, os.X_OK) else f"{RT} is not built: make build"


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


class Runtime:
    """Runs `rt --root ROOT ...` as `user` and keeps what it says."""

    def __init__(self, user: User, root: Path) -> None:
        self.user = user
        self.root = root

    def argv(self, *words: str) -> list[str]:
        return [RT, "--root", str(self.root), *words]

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command and return at once; `env` and Popen's other options may be given."""
        options.setdefault("env", self.user.environment())
        options.setdefault("cwd", "/")
        if os.getuid() != self.user.uid:
            options.setdefault("user", self.user.uid)
            options.setdefault("group", self.user.gid)
            options.setdefault("extra_groups", [])
        return subprocess.Popen(self.argv(*words), **options)

    def __call__(
        self, *words: str, timeout: float = ENDLESS, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end with stdin at /dev/null unless given; text in `stdout` and `stderr`."""
        options.setdefault("stdin", subprocess.DEVNULL)
        # Files, not pipes: a created or detached container keeps stdout, and a pipe would wait for its end.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            options.setdefault("stdout", out)
            options.setdefault("stderr", err)
            process = self.popen(*words, **options)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"{words} did not end in {timeout} s: {_text(err)}") from None
            return subprocess.CompletedProcess(self.argv(*words), process.returncode, _text(out), _text(err))

    def ok(self, *words: str, **options: Any) -> str:
        """Run a command that must succeed without a word on stderr; its stdout."""
        done = self(*words, **options)
        assert done.returncode == 0 and done.stderr == "", (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def state(self, container: str) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.ok("state", container))
        return state

    def wait_for(self, container: str, status: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """The state, once it has this status."""
        deadline = time.monotonic() + seconds
        while True:
            state = self.state(container)
            if state["status"] == status:
                return state
            assert time.monotonic() < deadline, f"{container} is {state['status']}, not {status}"
            time.sleep(0.01)

    def clean(self) -> None:
        """Remove every container of the state root, whatever state it is in."""
        if self.root.is_dir():
            for entry in self.root.iterdir():
                self("delete", "--force", entry.name)
