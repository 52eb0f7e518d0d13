"""Named cases for engines, run on Debian's runc, the yardstick, and on rt: what passes on runc must on rt.

A test of tests/engines marked `@case` is such a case: it is called once with each runtime, at the same time;
without RT_ENGINES=all, with runc only when it failed on rt.
Its first argument is the fixture of an engine: an object with `engine` and `mode` (names for the table) and
`on(runtime)`, the engine set to run containers on "runc" or "rt". What came out goes into RESULTS, from which
docs/generate_engines.py makes the table of docs/engines.md.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab.runtime import RT, TREE
from lab.users import User

RUNC = shutil.which("runc", path="/usr/sbin:/usr/bin:/sbin:/bin")
RUNTIMES = {"runc": RUNC or "/usr/sbin/runc", "rt": RT}
RESULTS = TREE / "build/engines.json"
# In the usual run runc is asked only about what fails on rt: the verdict is the same, in half the time.
ALL = os.environ.get("RT_ENGINES") == "all"


class NotHere(Exception):
    """A case that an engine refuses in this mode or on this machine, whatever the runtime: not counted."""


class Matrix:
    """What came out of each case: (engine, mode) -> case -> runtime -> "" when it passed, or why not."""

    def __init__(self) -> None:
        self.results: dict[tuple[str, str], dict[str, dict[str, str]]] = {}

    def judge(self, engine: str, mode: str, name: str, run: Callable[[str], None]) -> None:
        """Run a case; fails when rt does not pass it and runc does, skips when neither does."""
        try:
            if ALL:
                with ThreadPoolExecutor(len(RUNTIMES)) as pool:
                    ends = {runtime: pool.submit(_attempt, run, runtime) for runtime in RUNTIMES}
                    said = {runtime: end.result() for runtime, end in ends.items()}
            else:
                said = {"rt": _attempt(run, "rt")}
                if said["rt"]:
                    said["runc"] = _attempt(run, "runc")
        except NotHere as reason:
            pytest.skip(str(reason))
        self.results.setdefault((engine, mode), {})[name] = said
        if said.get("runc"):
            other = "rt passes it" if not said["rt"] else "so does rt: " + said["rt"]
            pytest.skip(f"fails on runc: {said['runc']}; {other}"[:600])
        assert not said["rt"], "passes on runc, but on rt: " + said["rt"]

    def rows(self) -> list[tuple[str, str, int, int, int]]:
        """(engine, mode, cases, passed on runc, passed on rt) for each; without ALL few are run on runc."""
        return [
            (*where, len(cases), *(sum(said.get(name) == "" for said in cases.values()) for name in RUNTIMES))
            for where, cases in sorted(self.results.items())
        ]

    def save(self) -> None:
        """Merge the numbers into RESULTS, where all was run; those of other engines and modes stay."""
        if not ALL:
            return
        try:
            kept = json.loads(RESULTS.read_text())
        except (OSError, ValueError):
            kept = {}
        for engine, mode, cases, runc, rt in self.rows():
            kept[f"{engine}, {mode}"] = {"cases": cases, "runc": runc, "rt": rt}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def _attempt(run: Callable[[str], None], runtime: str) -> str:
    try:
        run(runtime)
    except (AssertionError, OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: " + " / ".join(lines[:12])
    return ""


def case(function: Callable[..., None]) -> Callable[..., None]:
    """Make a test of a case: `def test_...(engine, *fixtures)`; see the module."""
    parameters = list(inspect.signature(function).parameters.values())
    mine, others = parameters[0].name, [each.name for each in parameters[1:]]

    @functools.wraps(function)
    def test(**given: Any) -> None:
        engine, matrix = given[mine], given["matrix"]
        rest = {name: given[name] for name in others}
        name = function.__name__.removeprefix("test_")
        matrix.judge(engine.engine, engine.mode, name, lambda runtime: function(engine.on(runtime), **rest))

    extra = inspect.Parameter("matrix", inspect.Parameter.KEYWORD_ONLY)
    test.__signature__ = inspect.Signature([*parameters, extra])  # type: ignore[attr-defined]
    return test


class Done:
    """A command that has ended: code, out and err (text), and what was called."""

    def __init__(self, argv: Sequence[str], code: int, out: str, err: str) -> None:
        self.argv, self.code, self.out, self.err = argv, code, out, err

    def __str__(self) -> str:
        return f"{' '.join(self.argv)}\n-> {self.code}\n{self.out[-1500:]}\n{self.err[-1500:]}"


class Place:
    """A private mount namespace with /dev/fuse and /dev/net/tun for everybody; engines' commands run in it.

    It has a /dev/shm of its own, where podman keeps its locks: under one name, whatever the storage. What an
    engine leaves mounted goes with it. Without root there is none: commands run where tests do.
    """

    _SET_UP = """set -e
    mount -t tmpfs -o mode=755 rt-test-devices "$1"
    for node in fuse net/tun; do
        test -e /dev/$node || continue
        file="$1"/$(basename $node)
        mknod -m 666 "$file" c $(stat -c '0x%t 0x%T' /dev/$node)
        mount --bind "$file" /dev/$node
    done
    mount -t tmpfs -o mode=1777,nosuid,nodev rt-test-shm /dev/shm
    mount --make-rshared /
    echo ready
    exec sleep infinity
    """

    def __init__(self) -> None:
        self.keeper: subprocess.Popen[bytes] | None = None
        if os.getuid() == 0:
            self.devices = tempfile.mkdtemp(prefix="rt-test-devices-")
            argv = [
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                self._SET_UP,
                "sh",
                self.devices,
            ]
            self.keeper = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
            assert self.keeper.stdout is not None
            assert self.keeper.stdout.readline() == b"ready\n", "no private mount namespace"

    def argv(self, user: User, cwd: Path | str, words: Sequence[str]) -> list[str]:
        """The words to start so that they run here as the user in this directory."""
        if self.keeper is None:
            return ["env", "-C", str(cwd), *words]
        enter = ["nsenter", f"--mount=/proc/{self.keeper.pid}/ns/mnt", f"--wdns={cwd}"]
        if user.uid != 0:
            enter += ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--init-groups"]
        return [*enter, *words]

    def close(self) -> None:
        if self.keeper is not None:
            self.keeper.kill()
            self.keeper.wait()
            shutil.rmtree(self.devices, ignore_errors=True)


def finish(process: subprocess.Popen[bytes], files: Sequence[Any], timeout: float) -> Done:
    """Wait for a command whose stdout and stderr are these files (detached containers keep pipes open)."""
    argv = [str(word) for word in process.args]  # type: ignore[union-attr]
    late = ""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        late = f"did not end in {timeout} s: "
    said = []
    for file in files:
        file.seek(0)
        said.append(file.read().decode("utf-8", "replace"))
    done = Done(argv, process.returncode, said[0], said[-1])
    assert not late, late + str(done)
    return done
