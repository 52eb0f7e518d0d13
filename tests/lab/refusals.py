"""Commands that fail as they should."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from lab.bundles import Bundle
from lab.runtime import Runtime
from lab.users import User
from lab.waiting import until
from rootless_rt.host.doctor.reasons import BY_ID

_SAYS_MORE = re.compile(r" ?\(?\brt explain (RT-[A-Z-]+)\)?$", re.MULTILINE)


def problem(done: Any) -> tuple[str, str]:
    """The line without `rt: `, and the hint's text or "", of a command that failed as it should.

    What the hint says of `rt explain` is checked, and left out: see `named`.
    """
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines and lines[0].startswith("rt: ") and not lines[0].endswith("."), done.stderr
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: ")), done.stderr
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr
    named(done.stderr)
    return lines[0][4:], _SAYS_MORE.sub("", lines[1][6:]) if len(lines) == 2 else ""


def named(stderr: str) -> list[str]:
    """The ids that the hints name, in their order. Each is one that `rt explain` knows."""
    ids = _SAYS_MORE.findall(stderr)
    assert all(id in BY_ID for id in ids) and stderr.count("RT-") == len(ids), stderr
    return ids


def processes(user: User) -> set[str]:
    """The processes of the user; empty when it is whoever runs the tests."""
    if user.uid == os.getuid():
        return set()
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid == user.uid and "Z" not in (path / "stat").read_text().rsplit(")")[1][:3]:
                found.add(path.name)
        except OSError:
            continue
    return found


def refused(rt: Runtime, box: Bundle | Path, *words: str, **options: Any) -> tuple[str, str]:
    """What `run` (or other words) says of a bundle it cannot run; nothing may be left of the try."""
    path = box.path if isinstance(box, Bundle) else box
    before = processes(rt.user)
    told = problem(rt(*(words or ("run",)), "--bundle", str(path), "c", **options))
    assert list(rt.root.iterdir()) == []
    until(lambda: processes(rt.user) <= before, lambda: f"no process is left: {processes(rt.user) - before}")
    return told
