"""CVE-2026-41579: /dev of the image is a symlink, and devices and links are made where it leads to."""

from __future__ import annotations

import pytest
from conftest import Either
from lab.attack import Canary, every_target, harmless, trap, without_mount


@every_target
@pytest.mark.parametrize("mounted", [True, False], ids=["mounted", "image"])
def test_no_device_and_no_link_is_made_where_dev_leads_to(
    either: Either, canary: Canary, mounted: bool, target: str
) -> None:
    rt, bundle = either
    made = bundle(f"cat {canary.path}/file 2>/dev/null; exit 0")
    trap(made, "dev", target, canary)
    if not mounted:
        without_mount(made, "/dev")
    made.config["linux"]["devices"] = [
        {"path": "/dev/zero2", "type": "c", "major": 1, "minor": 5, "fileMode": 438},
        {"path": "/dev/deep/down/full", "type": "c", "major": 1, "minor": 7, "fileMode": 438},
    ]
    if rt.user.uid:
        # Without the right to make devices only what the host has is there to be had.
        made.config["linux"]["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
    made.write()
    harmless(rt, made, canary)
