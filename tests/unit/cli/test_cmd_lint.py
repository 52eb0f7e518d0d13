"""`rt lint` as a command: what it reads, what it prints, and the status for CI."""

from __future__ import annotations

import json
import os

import pytest

from rootless_rt.cli.main import run
from rootless_rt.spec.defaults import default_spec
from rootless_rt.spec.hardened import hardened_spec


@pytest.fixture
def at(tmp_path, monkeypatch):
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path, change=None, config=None):
    config = default_spec(cgroup2=True) if config is None else config
    if change is not None:
        change(config)
    path.write_text(json.dumps(config))
    path.chmod(0o644)


def weak(config):
    config["process"]["capabilities"]["bounding"].append("CAP_SYS_ADMIN")


@pytest.mark.covers("lint --bundle")
def test_the_config_is_that_of_this_directory_of_a_bundle_or_a_named_one(at, capfd):
    put(at / "config.json")
    (at / "other").mkdir()
    put(at / "other/config.json", weak)
    assert run(["lint"]) == 0 and "\nconfig.json: 2 medium, 2 low\n" not in capfd.readouterr().err
    assert run(["lint", "--bundle", "other"]) == 1
    assert run(["lint", "other/config.json"]) == 1
    assert capfd.readouterr().out.count("CAP_SYS_ADMIN") == 2


@pytest.mark.covers("lint --format")
def test_a_finding_is_three_lines_for_people(at, capfd):
    put(at / "config.json", weak)
    assert run(["lint"]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("high: process.capabilities.bounding[3]: CAP_SYS_ADMIN: mount")
    assert (
        lines[0].endswith(" [capability]")
        and lines[1].startswith("    why: ")
        and lines[2].startswith("    fix:")
    )
    assert lines[-1] == "config.json: 1 high, 2 medium, 2 low"


@pytest.mark.covers("lint --format")
def test_json_has_every_field_and_the_counts(at, capfd):
    put(at / "config.json", weak)
    assert run(["lint", "--format", "json"]) == 1
    told = json.loads(capfd.readouterr().out)
    assert (told["config"], told["failed"]) == ("config.json", True)
    assert told["counts"] == {"high": 1, "medium": 2, "low": 2, "info": 0}
    assert list(told["findings"][0]) == ["id", "severity", "path", "what", "why", "fix"]
    severities = [item["severity"] for item in told["findings"]]
    assert severities == ["high", "medium", "medium", "low", "low"]


@pytest.mark.covers("lint --fail-on")
@pytest.mark.parametrize(
    ("words", "status"),
    [([], 0), (["--fail-on", "high"], 0), (["--fail-on", "medium"], 1), (["--fail-on=low"], 1)],
)
def test_the_status_follows_the_severity_that_was_asked(at, capfd, words, status):
    put(at / "config.json")
    assert run(["lint", *words]) == status
    assert run(["lint", "--fail-on", "never"]) == 0


@pytest.mark.covers("lint --fail-on")
def test_a_config_with_nothing_in_it_passes_the_strictest(at, capfd):
    line = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    put(at / "config.json", config=hardened_spec(line, line, devices=True))
    assert run(["lint", "--fail-on", "info"]) == 0
    assert capfd.readouterr().out == "config.json: nothing dangerous found\n"


def big(path):
    with open(path, "wb") as file:
        file.truncate((64 << 20) + 1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: None, "cannot read config.json: no such file or directory"),
        (lambda p: p.mkdir(), "cannot read config.json: is a directory"),
        (os.mkfifo, "config.json is not a regular file"),
        (lambda p: p.symlink_to("config.json"), "too many levels of symbolic links"),
        (lambda p: p.write_text("{"), "config.json: line 1 column 2"),
        (lambda p: p.write_bytes(b"\xff\xfe"), "not valid UTF-8"),
        (lambda p: p.write_text("[]"), "config.json: "),
        (lambda p: p.write_text("[" * 100000), "nested too deeply"),
        (lambda p: put(p, lambda c: c["process"].update(args=[])), "process.args"),
        (lambda p: put(p, lambda c: c.update(ociVersion="9.0.0")), "ociVersion"),
        (big, "larger than 64 MiB"),
    ],
)
def test_what_cannot_be_read_or_run_ends_with_2(at, capfd, make, said):
    make(at / "config.json")
    assert run(["lint", "--fail-on", "never"]) == 2
    told = capfd.readouterr()
    assert told.out == "" and said in told.err and "Traceback" not in told.err


def test_the_file_that_is_wrong_is_named_as_it_was_given(at, capfd):
    for text in ("{", "[]", "{}"):
        (at / "other.json").write_text(text)
        assert run(["lint", "other.json"]) == 2
        assert capfd.readouterr().err.startswith("rt: other.json: ")


def test_a_config_and_a_bundle_together_are_refused(at, capfd):
    assert run(["lint", "--bundle", ".", "config.json"]) == 2
    assert "give a config or --bundle, not both" in capfd.readouterr().err


def test_names_of_the_config_steer_no_terminal(at, capfd):
    def change(config):
        config["process"]["capabilities"]["inheritable"] = ["\x1b[2J\nhigh: all is well"]
        config["annotations"] = {"a": "\x1b"}

    put(at / "config.json", change)
    assert run(["lint"]) == 0
    told = capfd.readouterr().out
    assert "\x1b" not in told and "\\x1b[2J\\x0ahigh: all is well" in told


def test_files_that_others_can_change_are_looked_at(at, capfd):
    put(at / "config.json")
    (at / "real").mkdir(mode=0o777)
    (at / "real").chmod(0o777)
    (at / "rootfs").symlink_to("real")
    (at / "config.json").chmod(0o666)
    assert run(["lint", "--format", "json"]) == 1
    found = [
        item for item in json.loads(capfd.readouterr().out)["findings"] if item["id"] == "file-permissions"
    ]
    assert [(item["severity"], item["path"]) for item in found] == [
        ("high", "config.json"),
        ("high", "root.path"),
        ("medium", "root.path"),
    ]
