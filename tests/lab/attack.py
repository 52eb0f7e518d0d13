"""What attacks share: a host to be harmed (the canary), programs of the attacker, images with traps."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from lab.runtime import TREE

TEXT = "untouched\n"


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
