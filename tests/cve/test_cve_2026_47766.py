"""CVE-2026-47766: the default devices and links of /dev go through symlinks of the image."""

from __future__ import annotations

import pytest
from conftest import Either
from lab.attack import Canary, every_target, harmless, trap, without_mount

PLACES = ["dev/null", "dev/console", "dev/pts", "dev/shm", "dev/ptmx", "dev/fd", "dev/stdin"]


@every_target
@pytest.mark.parametrize("where", PLACES)
def test_a_link_in_a_dev_that_is_the_image_s(either: Either, canary: Canary, where: str, target: str) -> None:
    rt, bundle = either
    made = bundle(f"cat /dev/null {canary.path}/file 2>/dev/null; exit 0")
    trap(made, where, target, canary)
    harmless(rt, without_mount(made, "/dev"), canary)
