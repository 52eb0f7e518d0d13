"""A bundle whose plan has been kept, beside the launcher that can do no more than perform it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from lab.bundles import Bundle
from lab.runtime import Runtime
from lab.shortcuts import LONG, Alone


class Kept:
    """Calls of `rt run` and the launcher alone, as one user, with a cache of their own."""

    def __init__(self, rt: Runtime, alone: Path, box: Bundle, cache: Path) -> None:
        self.rt = rt
        self.box = box
        self.cache = cache
        self.environment = {**rt.user.environment(), "XDG_CACHE_HOME": str(cache)}
        self.alone = Alone(alone, rt)
        self.id = "c"

    def argv(self) -> list[str]:
        return ["run", "--bundle", str(self.box.path), self.id]

    def keep(self) -> Kept:
        """Run once through Python."""
        done = self.through_python()
        assert "warning" not in done.stderr, done
        return self

    def through_python(self, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.rt(*LONG, *self.argv(), **{"env": self.environment, **options})

    def by_itself(self, **options: Any) -> subprocess.CompletedProcess[str] | None:
        """What the launcher does; None when it leaves the call to Python."""
        done = self.alone(*self.argv(), **{"env": self.environment, **options})
        if "rootless_rt" in done.stderr:
            assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith("rt: cannot read ")
            assert list(self.rt.root.iterdir()) == []
            return None
        return done

    @property
    def files(self) -> list[Path]:
        folder = self.cache / "rt/plans"
        return sorted(folder.iterdir()) if folder.is_dir() else []
