"""--overlay under a kernel that takes layers only from mounts that have a place (Linux 6.12)."""

from __future__ import annotations

import pytest
from lab.machines.machine import Machine


@pytest.mark.parametrize("user", ["root", "alice"])
@pytest.mark.covers("run --overlay", "run --overlay-dir")
def test_the_rootfs_stays_as_it_is(machine: Machine, user: str) -> None:
    bundle = machine.bundle("echo x > /etc/new && cat /etc/new", user=user)
    home = "/root" if user == "root" else f"/home/{user}"
    for words in (["--overlay"], ["--overlay-dir", f"{home}/bundle-kept"]):
        done = machine.rt("run", *words, "--bundle", bundle.path, "over", user=user)
        assert (done.code, done.stdout) == (0, "x\n"), done
    machine.ok(f"test ! -e {bundle.path}/rootfs/etc/new && test -e {home}/bundle-kept/upper/etc/new")
