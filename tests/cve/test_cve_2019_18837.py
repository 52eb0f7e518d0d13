"""CVE-2019-18837: a symlink of the image as a mount's target; the directory is made, and covered, outside."""

from __future__ import annotations

import pytest
from conftest import Either
from lab.attack import Canary, every_target, harmless, trap
from lab.inside import bind, with_mounts


@every_target
@pytest.mark.parametrize("where", ["tmp", "etc", "var", "var/work"])
def test_a_link_in_place_of_a_directory(either: Either, canary: Canary, where: str, target: str) -> None:
    rt, bundle = either
    made = bundle(f"cat {canary.path}/file /tmp/made 2>/dev/null; exit 0")
    trap(made, where, target, canary)
    made.change(lambda config: config["process"].update(cwd="/var/work"))
    with_mounts(
        made,
        bind("/tmp/data", made.path, "ro"),
        bind("/etc/data/deep/down", made.path, "ro"),
        bind("/var/work", made.path, "ro"),
        bind("/etc/file", made.path / "config.json", "ro"),
    )
    harmless(rt, made, canary)
