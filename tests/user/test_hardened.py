"""`rt spec --hardened --rootless`: what runs in such a container, and what is refused there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab.hardened import Hardened, check_attacks, check_build
from lab.inside import subordinate
from lab.runtime import Runtime
from lab.users import User


@pytest.fixture(params=["full", "single"])
def idmap(request: pytest.FixtureRequest, rt: Runtime) -> str:
    return str(request.param)


@pytest.mark.covers("spec --hardened", "spec --rootless", "spec --idmap")
def test_a_small_project_is_built_in_it(rt: Runtime, place: Path, toolbox: Path, idmap: str) -> None:
    check_build(Hardened(rt, place / "b", toolbox, "--idmap", idmap))


@pytest.mark.covers("spec --hardened", "linux.sysctl", "process.user.umask")
def test_attacks_are_refused_in_it(rt: Runtime, place: Path, toolbox: Path, idmap: str) -> None:
    check_attacks(Hardened(rt, place / "b", toolbox, "--idmap", idmap))


@pytest.mark.covers("spec --hardened")
def test_busybox_runs_in_it(rt: Runtime, place: Path, idmap: str) -> None:
    script = "id -u; pwd; touch /tmp/a /run/b /var/tmp/c d && ls -A; (touch /etc/x) 2>/dev/null || echo no"
    box = Hardened(rt, place / "b", None, "--idmap", idmap)
    assert box.says("sh", "-c", script).split() == ["1000", "/home", "d", "no"]


def test_with_granted_ids_the_program_is_somebody_else_on_the_host(rt: Runtime, place: Path) -> None:
    """Not the caller, whose files it could have read after an escape."""
    box = Hardened(rt, place / "b")
    first = subordinate(rt.user)
    lines = json.loads((box.path / "config.json").read_text())["linux"]["uidMappings"]
    assert {"containerID": 1, "hostID": first, "size": 65536} in lines
    assert box.says("sh", "-c", "id -u").strip() == "1000"


def test_a_user_without_ranges_gets_the_own_id_and_is_told(bare: User, place: Path) -> None:
    root = place / "bare-state"
    root.mkdir(mode=0o700)
    bare.owns(root)
    rt = Runtime(bare, root)
    try:
        box = Hardened(rt, place / "b")
        assert box.config["linux"]["uidMappings"] == [{"containerID": 1000, "hostID": bare.uid, "size": 1}]
        assert box.says("sh", "-c", "id -u").strip() == "1000"
    finally:
        rt.clean()


@pytest.mark.covers("exec")
def test_a_program_that_is_added_is_held_as_tightly(rt: Runtime, place: Path) -> None:
    box = Hardened(rt, place / "b")
    box.config["process"]["args"] = ["sleep", "1000"]
    (box.path / "config.json").write_text(json.dumps(box.config))
    assert rt("run", "--detach", "--bundle", str(box.path), "c").returncode == 0
    script = "grep -E '^(CapBnd|CapEff|NoNewPrivs|Seccomp):' /proc/self/status"
    script += "; (echo x >/etc/x) 2>/dev/null || echo no"
    said = rt.ok("exec", "c", "sh", "-c", script).split()
    assert said == ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2", "no"]
    assert rt.ok("exec", "c", "sh", "-c", "unshare -U true 2>/dev/null || echo no").strip() == "no"
