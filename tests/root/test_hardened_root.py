"""`rt spec --hardened` as root: the container's ids are nobody's on the host."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab.hardened import Hardened, check_attacks, check_build
from lab.runtime import Runtime


@pytest.mark.covers("spec --hardened")
def test_a_small_project_is_built_in_it(root_rt: Runtime, place: Path, toolbox: Path) -> None:
    check_build(Hardened(root_rt, place / "b", toolbox))


@pytest.mark.covers("spec --hardened", "linux.resources.pids.limit")
def test_attacks_are_refused_in_it(root_rt: Runtime, place: Path, toolbox: Path) -> None:
    check_attacks(Hardened(root_rt, place / "b", toolbox))


def test_no_id_of_it_is_that_of_an_account(root_rt: Runtime, place: Path) -> None:
    box = Hardened(root_rt, place / "b")
    (line,) = box.config["linux"]["uidMappings"]
    assert (line["containerID"], line["size"]) == (0, 65536) and line["hostID"] >= 65536
    assert box.says("sh", "-c", "cat /proc/self/uid_map").split() == ["0", str(line["hostID"]), "65536"]
    assert box.config["linux"]["gidMappings"] == box.config["linux"]["uidMappings"]
