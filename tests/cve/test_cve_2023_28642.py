"""CVE-2023-28642: the profile of AppArmor is lost when /proc is a symlink to a place in a volume."""

from __future__ import annotations

import pytest
from conftest import Either
from lab.attack import replace
from lab.inside import bind, refusal


@pytest.mark.parametrize("order", ["volume first", "proc first"])
@pytest.mark.parametrize("label", [False, True], ids=["plain", "labelled"])
def test_a_proc_in_a_volume_is_refused(either: Either, order: str, label: bool) -> None:
    rt, bundle = either
    made = bundle("echo ran")
    volume = made.path / "volume"
    (volume / "proc/self/attr").mkdir(parents=True)
    (volume / "proc/self/attr/exec").write_text("fake\n")
    rt.user.owns(made.path)
    replace(made.rootfs / "proc", "/volume/proc")
    place = 0 if order == "volume first" else len(made.config["mounts"])
    made.config["mounts"].insert(place, bind("/volume", volume))
    if label:
        made.config["process"]["apparmorProfile"] = "unconfined-by-the-image"
    made.write()
    refusal(rt, made)
    assert (volume / "proc/self/attr/exec").read_text() == "fake\n"
