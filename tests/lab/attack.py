"""What attacks share: a host to be harmed (the canary), programs of the attacker, images with traps."""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.bundles import Bundle, Config
from lab.runtime import TREE, Runtime

TEXT = "untouched\n"
ROUNDS = int(os.environ.get("RT_RACES", "15"))
# What a link of the image may say, by name.
TARGETS = {
    "absolute": "{canary}",
    "upwards": "../../../../../../../../..{canary}",
    "loop": "loop-b",
    "root": "/",
    "magic": "/proc/self/root{canary}",
    "descriptor": "/proc/self/fd/4",
    "dangling": "{canary}/made",
    "process": "/proc/self/attr",
}
every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())


class Canary:
    """A directory of the host with files an attack could read, write or cover; `check` after it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.file = path / "file"
        self.file.write_text(TEXT)
        (path / "empty").mkdir()
        self.remember()

    def remember(self) -> None:
        """What it is now, is as it shall be."""
        self._listed = self._list()

    def _list(self) -> list[tuple[str, int, int, int]]:
        found = [self.path, *sorted(self.path.rglob("*"))]
        return [(str(item), (st := item.lstat()).st_ino, st.st_mode, st.st_uid) for item in found]

    def check(self) -> None:
        """Nothing was made, removed, changed, given away or mounted over."""
        assert self._list() == self._listed
        assert self.file.read_text() == TEXT
        assert str(self.path) not in Path("/proc/self/mountinfo").read_text()


def compiled(source: str, out: Path) -> Path:
    """A static program of the attacker, in C."""
    build = TREE / "rootless_rt/init/build.sh"
    compiler = subprocess.run(["sh", build, "compiler"], capture_output=True, text=True, check=False)
    if compiler.returncode:
        pytest.skip("needs a C compiler that links statically")
    command = [
        *shlex.split(compiler.stdout),
        "-D_GNU_SOURCE",
        "-static",
        "-O1",
        "-x",
        "c",
        "-",
        "-o",
        str(out),
    ]
    subprocess.run(command, input=source, text=True, check=True)
    os.chmod(out, 0o755)
    return out


def replace(path: Path, target: str | None) -> None:
    """Have a symlink to `target` at this place of an image instead of what is there; None: nothing."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        path.rmdir()
    if target is not None:
        path.symlink_to(target)


def trap(made: Bundle, where: str, target: str, canary: Canary) -> None:
    """Have one of TARGETS in place of a file or a directory of the image."""
    path = made.rootfs / where
    if path.is_dir() and not path.is_symlink():
        for item in list(path.iterdir()):
            item.unlink()
    replace(path, target.format(canary=canary.path))
    for name, other in (("loop-a", "loop-b"), ("loop-b", "loop-a")):
        if not (made.rootfs / name).is_symlink():
            (made.rootfs / name).symlink_to(other)


def without_mount(made: Bundle, destination: str) -> Bundle:
    """Leave what is at this place to the image."""

    def change(config: Config) -> None:
        config["mounts"] = [item for item in config["mounts"] if item["destination"] != destination]

    return made.change(change)


def harmless(rt: Runtime, made: Bundle, canary: Canary, name: str = "c") -> int:
    """Run it, to an end or a refusal, with nothing of the host read or touched; the exit code."""
    done = rt("run", "--bundle", str(made.path), name)
    canary.check()
    assert TEXT not in done.stdout
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done
    return done.returncode


def exchange(first: Path, second: Path) -> None:
    """Swap two names at once (RENAME_EXCHANGE)."""
    ctypes.CDLL(None).renameat2(-100, os.fsencode(first), -100, os.fsencode(second), 2)


@contextmanager
def racing(step: Callable[[], None]) -> Iterator[None]:
    """Do this over and over beside what is done meanwhile."""
    stop = threading.Event()

    def race() -> None:
        while not stop.is_set():
            step()

    racer = threading.Thread(target=race)
    racer.start()
    try:
        yield
    finally:
        stop.set()
        racer.join()
