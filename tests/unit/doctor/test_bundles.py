"""What `rt doctor --bundle` makes of a bundle: from evidence, and of real ones on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from lab.bundles import rootless_config

from idmap.errors import IdmapError
from rootless_rt.cli.main import run
from rootless_rt.container.checkup import CHECKS, BundleEvidence
from rootless_rt.errors import RtError
from rootless_rt.host.doctor.access import Step
from rootless_rt.host.doctor.model import BLOCKED, DEGRADED, OK, Finding, Me, diagnose
from rootless_rt.host.doctor.system import Mount
from rootless_rt.plan.model import Degradation

RANGE = [(0, 1000, 1), (1, 100000, 65536)]
HOME = [
    Step("/", 0o40755),
    Step("/home/alice", 0o40700, 1000, 1000),
    Step("/home/alice/r", 0o40755, 1000, 1000),
]
OTHERS = [Step("/", 0o40755), Step("/srv/data", 0o40750, 0, 4), Step("/srv/data/r", 0o40755, 1000, 1000)]
CLOSED = [Step("/", 0o40755), Step("/b", 0o40755), Step("/b/rootfs", 0o40700, 1000, 1000)]


def degraded(field: str, fix: str = "a fix", always: bool = False) -> Degradation:
    return Degradation(field, "asked", "got", "because", fix, id="RT-BUNDLE-PLAN", always=always)


def tmpfs(kind: str, flags: str = "rw") -> Mount:
    return Mount("/mnt", kind, flags)


# What is otherwise, the id, its status, words of the cause, words of the fix.
STATES: dict[str, tuple[dict[str, Any], str, str, str, str]] = {
    "nothing wrong": ({}, "RT-BUNDLE-CONFIG", OK, "", ""),
    "no plan": (
        {"error": RtError("config.json: root: is missing", hint="write it")},
        "RT-BUNDLE-CONFIG", BLOCKED, "config.json: root: is missing", "write it",
    ),
    "a limit": (
        {"degradations": [degraded("linux.resources.memory.limit"), degraded("linux.resources.pids.limit",
        "b")]},
        "RT-BUNDLE-LIMITS", DEGRADED, "linux.resources.memory.limit: asked -> got: because", "a fix; b",
    ),
    "a limit, strictly": (
        {"degradations": [degraded("linux.resources.memory.limit")], "strict": True},
        "RT-BUNDLE-LIMITS", BLOCKED, "memory", "a fix",
    ),
    "what is always right, strictly": (
        {"degradations": [degraded("mounts[0]", always=True)], "strict": True}, "RT-BUNDLE-PLAN", DEGRADED,
        "", "",
    ),
    "device rules are no limit": (
        {"degradations": [degraded("linux.resources.devices")]}, "RT-BUNDLE-LIMITS", OK, "", "",
    ),
    "an rlimit": (
        {"degradations": [degraded("process.rlimits[0]")]}, "RT-BUNDLE-RLIMITS", DEGRADED, "rlimits[0]",
        "a fix",
    ),
    "a score": ({"degradations": [degraded("process.oomScoreAdj")]}, "RT-BUNDLE-RLIMITS", DEGRADED, "oom",
    ""),
    "a device that is missing": (
        {"degradations": [degraded("linux.devices[0]")]}, "RT-BUNDLE-DEVICES", DEGRADED, "linux.devices[0]",
        "",
    ),
    "a device that is closed": (
        {"devices": {"/dev/dri": Step("/dev/dri", 0o20660, 0, 44)}},
        "RT-BUNDLE-DEVICES", DEGRADED, "/dev/dri (0660 root:", "--keep-groups",
    ),
    "a device of the own groups": (
        {"devices": {"/dev/dri": Step("/dev/dri", 0o20660, 0, 2000)}},
        "RT-BUNDLE-DEVICES", OK, "/dev/dri by your groups: use --keep-groups", "",
    ),
    "a device for all": ({"devices": {"/dev/x": Step("/dev/x", 0o20666)}}, "RT-BUNDLE-DEVICES", OK, "/dev/x",
    ""),
    "a map that is not granted": (
        {"causes": [IdmapError("uid map 1 is not granted", reason="range-too-small", hint="map less")]},
        "RT-BUNDLE-IDS", BLOCKED, "is not granted", "map less",
    ),
    "a map that is": ({"uid_map": RANGE, "gid_map": RANGE}, "RT-BUNDLE-IDS", OK, "65537 uids", ""),
    "no user namespace": ({"uid_map": None, "gid_map": None}, "RT-BUNDLE-IDS", OK, "no user namespace", ""),
    "a private home": ({"path": HOME}, "RT-BUNDLE-PATH", OK, "", ""),
    "somebody else's directory": (
        {"path": OTHERS}, "RT-BUNDLE-PATH", BLOCKED, "/srv/data (0750 root:", "setfacl -m u:1000:x /srv/data",
    ),
    "a private home, with root inside another": (
        {"path": HOME, "uid_map": [(0, 100000, 65536)], "gid_map": [(0, 100000, 65536)]},
        "RT-BUNDLE-PATH", OK, "", "",
    ),
    "a rootfs that is closed to its root": (
        {"path": CLOSED, "uid_map": [(0, 100000, 65536)], "gid_map": [(0, 100000, 65536)]},
        "RT-BUNDLE-PATH", BLOCKED, "by the container's root, which is uid 100000",
        "setfacl -m u:100000:x /b/rootfs",
    ),
    "a bind source that is closed": (
        {"path": HOME, "sources": [OTHERS]}, "RT-BUNDLE-PATH", BLOCKED, "/srv/data", "setfacl -m u:1000:x",
    ),
    "a rootfs that is closed to its user": (
        {"path": CLOSED, "uid_map": RANGE, "gid_map": RANGE, "user": (33, 33)},
        "RT-BUNDLE-PATH", BLOCKED, "by uid 33 of the container, which is uid 100032", "chmod o+x /b/rootfs",
    ),
    "nfs with a range": (
        {"mount": tmpfs("nfs4"), "uid_map": RANGE}, "RT-BUNDLE-FILESYSTEM", DEGRADED, "/mnt is nfs4",
        "local disk",
    ),
    "nfs with one id": ({"mount": tmpfs("nfs4")}, "RT-BUNDLE-FILESYSTEM", OK, "nfs4", ""),
    "autofs": (
        {"mount": tmpfs("autofs"), "uid_map": RANGE}, "RT-BUNDLE-FILESYSTEM", DEGRADED, "autofs",
        "local disk",
    ),
    "vfat": ({"mount": tmpfs("vfat")}, "RT-BUNDLE-FILESYSTEM", DEGRADED, "vfat", "ext4"),
    "9p": ({"mount": tmpfs("9p")}, "RT-BUNDLE-FILESYSTEM", DEGRADED, "9p", "ext4"),
    "a disk": ({"mount": tmpfs("ext4")}, "RT-BUNDLE-FILESYSTEM", OK, "ext4", ""),
    "noexec": ({"mount": tmpfs("ext4", "rw,noexec")}, "RT-BUNDLE-MOUNT-FLAGS", BLOCKED, "noexec",
    "remount,exec /mnt"),
    "nosuid": ({"mount": tmpfs("ext4", "rw,nosuid")}, "RT-BUNDLE-MOUNT-FLAGS", OK, "nosuid", ""),
    "another field": ({"degradations": [degraded("mounts[3]")]}, "RT-BUNDLE-PLAN", DEGRADED, "mounts[3]",
    "a fix"),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_what_a_bundle_lacks_is_told_with_cause_and_fix(name: str) -> None:
    facts, id, status, why, fix = STATES[name]
    evidence = BundleEvidence()
    for key, value in facts.items():
        setattr(evidence, key, value)
    me = Me(groups=(1000, 2000))
    found: Finding = next(item for item in diagnose(CHECKS, evidence, me) if item.id == id)
    assert (found.status, why in found.why, fix in found.fix) == (status, True, True), found.as_dict()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    (tmp_path / "rootfs").mkdir()
    config = rootless_config(os.geteuid(), os.getegid(), args=["/bin/true"])
    config["linux"]["devices"] = [{"path": "/dev/no-such-device", "type": "c", "major": 200, "minor": 1}]
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def doctor(capfd: Any, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    status = run(["--degrade", "warn", "doctor", "--format", "json", *words])
    out, err = capfd.readouterr()
    assert err == ""
    return status, {item["id"]: item for item in json.loads(out)["checks"]}


@pytest.mark.covers("doctor --bundle", "doctor --config")
def test_a_bundle_is_looked_at_without_side_effects(made: Path, capfd: Any) -> None:
    before = sorted(str(path) for path in made.rglob("*"))
    status, found = doctor(capfd, "--bundle", str(made))
    assert sorted(str(path) for path in made.rglob("*")) == before
    assert status >= 1 and "/dev/no-such-device" in json.dumps(found["RT-BUNDLE-DEVICES"])
    assert found["RT-BUNDLE-CONFIG"]["status"] == OK
    (made / "other.json").write_text("{")
    status, found = doctor(capfd, "--bundle", str(made), "--config", str(made / "other.json"))
    assert status == 2 and found["RT-BUNDLE-CONFIG"]["status"] == BLOCKED


def test_a_directory_that_is_no_bundle_is_a_finding(tmp_path: Path, capfd: Any) -> None:
    status, found = doctor(capfd, "--bundle", str(tmp_path))
    assert status == 2 and "config.json" in found["RT-BUNDLE-CONFIG"]["why"]


@pytest.mark.covers("doctor --idmap", "doctor --uid-emulation")
def test_a_bundle_is_looked_at_with_other_ids(made: Path, capfd: Any) -> None:
    _, found = doctor(capfd, "--bundle", str(made), "--idmap", "single", "--uid-emulation", "noop")
    assert found["RT-BUNDLE-IDS"]["why"] == "1 uid"
