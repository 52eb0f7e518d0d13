"""CVE-2025-54867: /proc and /sys of the image are symlinks, to each other or to one more link."""

from __future__ import annotations

import pytest
from conftest import Either
from lab.attack import TEXT, Canary, replace
from lab.inside import refusal

PAIRS = [("sys", None), (None, "proc"), ("sys", "proc"), ("hop", None), (None, "hop"), ("{}", "{}")]


@pytest.mark.parametrize(("proc", "sys"), PAIRS)
def test_two_links_are_no_better_than_one(
    either: Either, canary: Canary, proc: str | None, sys: str | None
) -> None:
    rt, bundle = either
    made = bundle(f"cat {canary.file}; echo ran")
    (made.rootfs / "hop").symlink_to(canary.path)
    for name, target in (("proc", proc), ("sys", sys)):
        if target is not None:
            replace(made.rootfs / name, target.format(canary.path))
    assert TEXT not in refusal(rt, made)
    canary.check()
