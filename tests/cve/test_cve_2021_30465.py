"""CVE-2021-30465: a symlink is exchanged with a mount's target between the check and mount(2)."""

from __future__ import annotations

import pytest
from conftest import Either
from lab.attack import ROUNDS, Canary, exchange, harmless, racing
from lab.inside import bind, with_mounts


@pytest.mark.parametrize("where", ["var/data", "tmp", "proc", "sys", "dev", "etc/file"])
def test_a_link_exchanged_with_a_directory_during_the_run(either: Either, canary: Canary, where: str) -> None:
    rt, bundle = either
    made = bundle(f"cat {canary.path}/file 2>/dev/null; exit 0")
    real, fake = made.rootfs / where, made.rootfs / "fake"
    if where == "etc/file":
        real.touch()
        fake.symlink_to(canary.file)
        with_mounts(made, bind("/etc/file", made.path / "config.json"))
    else:
        real.mkdir(exist_ok=True)
        fake.symlink_to(canary.path)
        if where in ("var/data", "tmp"):
            with_mounts(made, bind(f"/{where}", made.path))
    rt.user.owns(made.rootfs)
    with racing(lambda: exchange(real, fake)):
        for number in range(ROUNDS):
            harmless(rt, made, canary, f"c{number}")
