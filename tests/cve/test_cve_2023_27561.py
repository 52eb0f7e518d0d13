"""CVE-2023-27561: a symlink that stays in the image stands for /proc or /sys (CVE-2019-19921 come back).

CVE-2023-28642 is the same with AppArmor: a false /proc takes what should have been the profile.
"""

from __future__ import annotations

import pytest
from conftest import Either
from lab.attack import replace
from lab.inside import refusal


@pytest.mark.parametrize("target", ["fake", "/fake", "tmp/../fake", "sys", "missing", "."])
@pytest.mark.parametrize("where", ["proc", "sys"])
def test_no_link_stands_for_it_even_inside_the_image(either: Either, where: str, target: str) -> None:
    rt, bundle = either
    made = bundle("echo ran")
    (made.rootfs / "fake/self/attr").mkdir(parents=True)
    (made.rootfs / "fake/self/attr/exec").write_text("fake\n")
    rt.user.owns(made.rootfs)
    replace(made.rootfs / where, "proc" if (where, target) == ("sys", "sys") else target)
    assert f"/{where}" in refusal(rt, made)
    assert (made.rootfs / "fake/self/attr/exec").read_text() == "fake\n"
