"""`rt doctor` as root: what concerns users only is in order, and bundles are looked at all the same."""

from __future__ import annotations

import json

import pytest
from conftest import MakeBundle
from lab.runtime import Runtime


@pytest.mark.covers("doctor", "doctor --bundle", "doctor --format")
def test_root_is_not_blocked_where_it_can_run_containers(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    box = root_bundle()
    assert root_rt("run", "--bundle", str(box.path), "runs").returncode == 0
    done = root_rt("doctor", "--format", "json", "--bundle", str(box.path))
    told = json.loads(done.stdout)
    assert done.stderr == "" and done.returncode in (0, 1)
    assert told["user"]["root"] and told["status"] != "blocked"


def test_a_strict_policy_blocks_what_would_differ(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    missing = [{"path": "/dev/no-such", "type": "c", "major": 200, "minor": 1, "fileMode": 438}]
    most = {"type": "RLIMIT_NOFILE", "soft": 1 << 62, "hard": 1 << 62}
    box = root_bundle().change(lambda config: config["linux"].update(devices=missing))
    box.change(lambda config: config["process"].update(rlimits=[most]))
    said = {
        policy: json.loads(
            root_rt("--degrade", policy, "doctor", "--format", "json", "--bundle", str(box.path)).stdout
        )
        for policy in ("warn", "strict")
    }
    found = {policy: {item["id"]: item["status"] for item in told["checks"]} for policy, told in said.items()}
    if found["warn"]["RT-BUNDLE-RLIMITS"] == "ok":
        pytest.skip("root may raise its limits here")
    assert found["warn"]["RT-BUNDLE-RLIMITS"] == "degraded"
    assert found["strict"]["RT-BUNDLE-RLIMITS"] == "blocked"
