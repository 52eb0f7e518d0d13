"""--overlay as root, with and without a user namespace."""

from __future__ import annotations

import os
import subprocess

import pytest
from conftest import MakeBundle
from lab.inside import map_ids, output, set_namespace
from lab.runtime import Runtime

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root's containers")


@pytest.mark.covers("run --overlay")
@pytest.mark.parametrize("mapped", [False, True])
def test_the_rootfs_stays_as_it_is(mapped: bool, root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = root_bundle()
    if mapped:
        subprocess.run(["chown", "-R", "-h", "100000:100000", str(made.rootfs)], check=True)
        map_ids(set_namespace(made, "user"), (0, 100000, 65536))
    assert output(root_rt, made, "echo x > /etc/new; stat -c %u / /etc/new", "--overlay").split() == [
        "0",
        "0",
    ]
    assert not (made.rootfs / "etc/new").exists()
