"""The short way of the frequent verbs beside the long one, through Python, in the same situation.

`alone` is a launcher without a package to start: what it does it has done by itself, and where it would
start Python it says that there is none. `--log-level`, which the short way does not know, has the real `rt`
take the long way.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.runtime import TREE, Runtime

LONG = ("--log-level", "warning")
Situation = Callable[[Runtime, str], None]
_REWRITE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from rootless_rt.container.store import Store
handle = Store(sys.argv[2], True).open("c")
handle.write_state({**handle.read_state(), **json.loads(sys.argv[3])})
"""


class Alone(Runtime):
    """The launcher by itself, on the state root of another."""

    def __init__(self, program: Path, of: Runtime) -> None:
        super().__init__(of.user, of.root)
        self.program = program

    def argv(self, *words: str) -> list[str]:
        return [str(self.program), "--root", str(self.root), *words]

    def can(self, *words: str, **options: Any) -> bool:
        """Whether it does this by itself; it must succeed then, and else have said nothing of its own."""
        done = self(*words, **options)
        if "rootless_rt" in done.stderr:
            assert done.returncode == 1 and done.stdout == "", done
            assert done.stderr.startswith("rt: cannot read "), done
            return False
        assert (done.returncode, done.stderr) == (0, ""), done
        return True


def build_alone(place: Path) -> Path:
    """Compile such a launcher into a directory. Raises CalledProcessError."""
    (place / "empty").mkdir()
    script = TREE / "rootless_rt/init/build.sh"
    words = ["sh", script, "launcher", place / "rt", place / "empty"]
    subprocess.run(words, check=True, env={**os.environ, "PYTHON": sys.executable})
    return place / "rt"


def rewrite(rt: Runtime, **changes: Any) -> None:
    """Have the runtime's own code write other values into the state of `c`, as its user."""
    ids: dict[str, Any] = {}
    if os.getuid() != rt.user.uid:
        ids = {"user": rt.user.uid, "group": rt.user.gid, "extra_groups": []}
    words = [sys.executable, "-I", "-B", "-c", _REWRITE, TREE, rt.root, json.dumps(changes)]
    subprocess.run(words, check=True, cwd="/", **ids)


def created(rt: Runtime, bundle: str) -> None:
    rt.ok("create", "--bundle", bundle, "c")


def running(rt: Runtime, bundle: str) -> None:
    created(rt, bundle)
    rt.ok("start", "c")


def stopped(rt: Runtime, bundle: str) -> None:
    running(rt, bundle)
    rt.ok("kill", "c", "KILL")
    rt.wait_for("c", "stopped")


def other_boot(rt: Runtime, bundle: str) -> None:
    running(rt, bundle)
    rewrite(rt, bootId="00000000-0000-0000-0000-000000000000")


def reused_pid(rt: Runtime, bundle: str) -> None:
    running(rt, bundle)
    rewrite(rt, startTime="1")


def somebody_s_pid(rt: Runtime, bundle: str) -> None:
    running(rt, bundle)
    rewrite(rt, pid=os.getpid())


def missing(rt: Runtime, bundle: str) -> None:
    pass


def no_root(rt: Runtime, bundle: str) -> None:
    rt.root.rmdir()


def touched(rt: Runtime, bundle: str) -> None:
    running(rt, bundle)
    os.utime(rt.root / "c/state.json")


def torn_state(rt: Runtime, bundle: str) -> None:
    running(rt, bundle)
    os.truncate(rt.root / "c/state.json", 100)


def no_state(rt: Runtime, bundle: str) -> None:
    running(rt, bundle)
    (rt.root / "c/state.json").unlink()


def edited_state(rt: Runtime, bundle: str) -> None:
    """By hand, in place: the record still tells of the old one."""
    running(rt, bundle)
    path = rt.root / "c/state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pid": 1 << 30}))


def torn_record(rt: Runtime, bundle: str) -> None:
    running(rt, bundle)
    path = rt.root / "c/shortcut"
    os.truncate(path, path.stat().st_size - 1)


def no_record(rt: Runtime, bundle: str) -> None:
    running(rt, bundle)
    (rt.root / "c/shortcut").unlink()


def linked_record(rt: Runtime, bundle: str) -> None:
    running(rt, bundle)
    path = rt.root / "c/shortcut"
    path.rename(path.with_name("kept"))
    path.symlink_to("kept")


def open_record(rt: Runtime, bundle: str) -> None:
    running(rt, bundle)
    (rt.root / "c/shortcut").chmod(0o622)


def open_root(rt: Runtime, bundle: str) -> None:
    running(rt, bundle)
    rt.root.chmod(0o777)


def a_directory_inside(rt: Runtime, bundle: str) -> None:
    stopped(rt, bundle)
    (rt.root / "c/inside").mkdir()
    rt.user.owns(rt.root / "c/inside")


def a_link_for_a_container(rt: Runtime, bundle: str) -> None:
    running(rt, bundle)
    (rt.root / "c").rename(rt.root / "d")
    (rt.root / "c").symlink_to("d")


def first_pids(rt: Runtime) -> list[int]:
    """Of all containers whose state can be read: to be ended where the runtime itself is to lose them."""
    found = []
    for path in rt.root.glob("*/state.json"):
        try:
            found.append(int(json.loads(path.read_text())["pid"]))
        except (ValueError, KeyError):
            continue
    return found


def told(rt: Runtime, done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    """What a command gave, without what differs from one container to the next."""

    def same(text: str) -> str:
        text = text.replace(str(rt.root), "ROOT")
        text = re.sub(r'"pid": [1-9]\d*', '"pid": PID', text)
        return re.sub(r'"created": "[^"]*"', '"created": WHEN', text)

    return done.returncode, same(done.stdout), same(done.stderr)


def remains(rt: Runtime) -> dict[str, list[str]]:
    """What is in the state root: names of containers, and of the files of each."""
    if not rt.root.is_dir():
        return {}
    return {
        path.name: sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
        for path in rt.root.iterdir()
    }
