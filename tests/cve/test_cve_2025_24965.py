"""CVE-2025-24965: a file that the runtime itself writes into the image follows a symlink out of it."""

from __future__ import annotations

import pytest
from conftest import Either
from lab.attack import Canary, harmless
from lab.inside import refusal

NAMES = [".krun_config.json", ".dockerenv", "run/.containerenv", "etc/hosts", "etc/hostname", "etc/mtab"]


@pytest.mark.parametrize("target", ["{canary}/file", "{canary}/made", "../../../../../../../..{canary}/made"])
def test_no_link_is_written_through(either: Either, canary: Canary, target: str) -> None:
    rt, bundle = either
    made = bundle("exit 0")
    (made.rootfs / "run").mkdir(exist_ok=True)
    for name in NAMES:
        (made.rootfs / name).symlink_to(target.format(canary=canary.path))
    made.config["hostname"] = "attacked"
    made.config["annotations"] = {"run.oci.handler": "krun"}
    made.write()
    harmless(rt, made, canary)


def test_nothing_is_written_into_an_image_that_has_the_places(either: Either) -> None:
    rt, bundle = either
    made = bundle("exit 0")

    def listed() -> list[tuple[str, int, int, int]]:
        found = sorted(made.rootfs.rglob("*"))
        return [(str(item), (st := item.lstat()).st_ino, st.st_mode, st.st_mtime_ns) for item in found]

    rt.ok("run", "--bundle", str(made.path), "first")
    before = listed()
    rt.ok("run", "--bundle", str(made.path), "second")
    made.config["root"]["path"] = "missing"
    made.write()
    refusal(rt, made)
    assert listed() == before
