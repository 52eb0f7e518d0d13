"""CVE-2024-45310: directories and files for mounts are made on the host, by a link that comes meanwhile."""

from __future__ import annotations

import shutil

import pytest
from conftest import Either
from lab.attack import ROUNDS, Canary, exchange, harmless, racing
from lab.inside import bind, with_mounts


@pytest.mark.parametrize("kind", ["directory", "file"])
@pytest.mark.parametrize("depth", ["top", "below"])
def test_a_place_for_a_mount_is_made_inside_only(
    either: Either, canary: Canary, kind: str, depth: str
) -> None:
    rt, bundle = either
    made = bundle("exit 0")
    real, fake = made.rootfs / "volume", made.rootfs / "fake"
    if depth == "below":
        (made.rootfs / "volume").mkdir()
        real = made.rootfs / "volume/inner"
    real.mkdir()
    fake.symlink_to(canary.path)
    source = made.path if kind == "directory" else made.path / "config.json"
    with_mounts(made, bind(f"/{real.relative_to(made.rootfs)}/new/deep/place", source))
    rt.user.owns(made.rootfs)

    def step() -> None:
        exchange(real, fake)
        # Gone again, so that each run has to make it.
        shutil.rmtree(fake / "new" if real.is_symlink() else real / "new", ignore_errors=True)

    with racing(step):
        for number in range(ROUNDS):
            harmless(rt, made, canary, f"c{number}")
