"""A resctrl without the hardware: a plain directory, and the parts of the kernel that directories lack.

Making a group fills it with files, removing one moves its tasks to the root group, as the kernel does.
"""

from __future__ import annotations

import posix
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.runtime import TREE, Runtime
from rootless_rt.cgroups import resctrl

SCHEMATA = "    MB:0=100;1=100\n    L3:0=fff;1=fff\n"
FEATURES = "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n"


class FakeResctrl:
    """The tree at `root`/sys/fs/resctrl, and `posix` with a kernel behind it for its directories."""

    def __init__(
        self, root: Path, *, classes: int = 4, schemata: str = SCHEMATA, features: str = FEATURES
    ) -> None:
        self.root = root
        self.top = root / "sys/fs/resctrl"
        self.classes = classes
        (root / "proc/self").mkdir(parents=True)
        line = f"50 23 0:40 / {'/sys/fs/resctrl'} rw,relatime - resctrl resctrl rw\n"
        (root / "proc/self/mountinfo").write_text("23 1 8:1 / / rw - ext4 /dev/sda rw\n" + line)
        (self.top / "info").mkdir(parents=True)
        (self.top / "info/last_cmd_status").write_text("ok\n")
        if features:
            (self.top / "info/L3_MON").mkdir()
            (self.top / "info/L3_MON/mon_features").write_text(features)
        (self.top / "mon_groups").mkdir()
        (self.top / "tasks").write_text("1\n2\n")
        if schemata:
            (self.top / "schemata").write_text(schemata)

    @classmethod
    def at(cls, root: str) -> FakeResctrl:
        """One that another process has made."""
        found = cls.__new__(cls)
        found.root = Path(root)
        found.top = found.root / "sys/fs/resctrl"
        found.classes = 4
        return found

    def group(self, name: str, schemata: str = SCHEMATA, tasks: str = "") -> Path:
        """A group that somebody else has made."""
        path = self.top / name
        self._fill(path, schemata)
        (path / "tasks").write_text(tasks)
        return path

    def _fill(self, path: Path, schemata: str) -> None:
        (path / "mon_groups").mkdir(parents=True)
        (path / "tasks").write_text("")
        (path / "schemata").write_text(schemata)

    def groups(self) -> set[str]:
        return {path.name for path in self.top.iterdir() if path.is_dir()} - {"info", "mon_groups"}

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        made = Path(path)
        if made.parent == self.top and len(self.groups()) + 1 >= self.classes:
            (self.top / "info/last_cmd_status").write_text("Out of CLOSIDs\n")
            raise OSError(28, "No space left on device")
        posix.mkdir(path, mode)
        if made.parent == self.top:
            self._fill(made, SCHEMATA)
        else:
            (made / "tasks").write_text("")

    def rmdir(self, path: str) -> None:
        gone = Path(path)
        assert gone.is_relative_to(self.top) and gone != self.top
        if not gone.is_dir():
            raise FileNotFoundError(2, "No such file or directory")
        shutil.rmtree(gone)

    def __getattr__(self, name: str) -> Any:
        return getattr(posix, name)


def installed(patch: pytest.MonkeyPatch, fake: FakeResctrl) -> FakeResctrl:
    """Have the driver work on it."""
    patch.setattr(resctrl, "posix", fake)
    return fake


# `rt` with the stand-in for resctrl at the place that comes first.
_CODE = """
import sys
sys.path[:0] = sys.argv[1].split(":")
from rootless_rt.cgroups import resctrl
from lab.resctrl import FakeResctrl
fake = FakeResctrl.at(sys.argv[2])
resctrl.posix = fake
resctrl.mount_point = lambda root="/": str(fake.top)
from rootless_rt.cli.main import main
main(sys.argv[3:])
"""


class WithResctrl(Runtime):
    """The command of the same user, which finds the stand-in mounted."""

    def __init__(self, rt: Runtime, fake: FakeResctrl) -> None:
        super().__init__(rt.user, rt.root)
        self._place = str(fake.root)

    def argv(self, *words: str) -> list[str]:
        code = [sys.executable, "-c", _CODE, f"{TREE}:{TREE}/tests", self._place]
        return [*code, "--root", str(self.root), *words]
