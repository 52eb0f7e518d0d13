"""`rt plan`: what would be done, in two forms, and nothing done."""

from __future__ import annotations

import json
import os

import pytest
from lab.bundles import rootless_config

from rootless_rt.cli.main import run
from rootless_rt.plan.ops import BY_NAME


@pytest.fixture
def made(tmp_path):
    """A bundle whose rootfs is empty, and which has something to degrade."""
    place = tmp_path / "bundle"
    (place / "rootfs").mkdir(parents=True)
    config = rootless_config(os.geteuid(), os.getegid(), args=["/bin/true"])
    config["linux"]["devices"] = [{"path": "/dev/no-such-device", "type": "c", "major": 200, "minor": 1}]
    (place / "config.json").write_text(json.dumps(config))
    return place


def rt_plan(bundle, capfd, *words, degrade="warn"):
    root = bundle.parent / "state"
    status = run(["--root", str(root), "--degrade", degrade, "plan", "--bundle", str(bundle), *words])
    assert not root.exists(), "a plan has no side effects"
    assert sorted(path.name for path in bundle.rglob("*")) == ["config.json", "rootfs"]
    return status, *capfd.readouterr()


@pytest.mark.covers("plan", "plan --bundle")
def test_the_text_has_maps_ops_and_what_differs(made, capfd):
    status, out, err = rt_plan(made, capfd)
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0] == f"uid map: 0 -> {os.geteuid()}, 1 id"
    numbered = [line for line in lines if line.lstrip()[:1].isdigit()]
    assert [int(line.split()[0]) for line in numbered] == list(range(len(numbered)))
    assert "execute ['/bin/true']" in numbered[-1] and numbered[-1].endswith("[process.args[0]]")
    differs = [line for line in lines if line.startswith("degraded: linux.devices[0]: ")]
    assert len(differs) == 1 and "/dev/no-such-device" in differs[0]


@pytest.mark.covers("plan --format")
def test_the_json_has_the_same_for_programs(made, capfd):
    status, out, _ = rt_plan(made, capfd, "--format", "json")
    told = json.loads(out)
    assert status == 0 and set(told) == {"uidMap", "gidMap", "ops", "outside", "degraded", "warnings"}
    assert told["uidMap"] == [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    for op in told["ops"]:
        fields = {field for field, _ in BY_NAME[op["op"]][2]}
        assert set(op) - {"op", "for"} == fields
    assert [op["op"] for op in told["ops"]][-1] == "exec"
    mine = [item for item in told["degraded"] if item["field"] == "linux.devices[0]"]
    assert set(mine[0]) == {"field", "asked", "got", "why", "fix", "id"}


@pytest.mark.covers("plan")
def test_what_is_set_from_outside_is_shown_too(made, capfd):
    config = json.loads((made / "config.json").read_text())
    config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 3}
    (made / "config.json").write_text(json.dumps(config))
    line = "outside: process.ioPriority: set the I/O priority to class 2, 3"
    assert line in rt_plan(made, capfd)[1].splitlines()
    told = json.loads(rt_plan(made, capfd, "--format", "json")[1])
    does = {"for": "process.ioPriority", "does": "set the I/O priority to class 2, 3"}
    assert told["outside"] == [does]


def test_strict_refuses_what_would_differ(made, capfd):
    status, out, err = rt_plan(made, capfd, degrade="strict")
    assert (status, out) == (1, "")
    assert "linux.devices[0]" in err or "mounts[" in err, "the cgroup mount comes first where there is none"


def test_a_wrong_config_is_an_error_with_its_path(made, capfd):
    (made / "config.json").write_text(
        '{"ociVersion": "1.0.0", "root": {"path": "rootfs"}, "process": {"cwd": 1}}'
    )
    status, out, err = rt_plan(made, capfd)
    assert status == 1 and out == "" and "config.json: process.cwd: expected a string" in err


@pytest.mark.covers("plan --config")
def test_another_config_file_can_be_planned(made, capfd, tmp_path):
    other = tmp_path / "other.json"
    config = json.loads((made / "config.json").read_text())
    config["process"]["args"] = ["/bin/other"]
    other.write_text(json.dumps(config))
    assert "'/bin/other'" in rt_plan(made, capfd, "--config", str(other))[1]


def test_a_terminal_is_planned_without_one_being_there(made, capfd):
    config = json.loads((made / "config.json").read_text())
    config["process"]["terminal"] = True
    (made / "config.json").write_text(json.dumps(config))
    status, out, _ = rt_plan(made, capfd)
    assert status == 0 and "open a terminal" in out
