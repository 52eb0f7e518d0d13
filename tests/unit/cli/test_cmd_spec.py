"""`rt spec` in all its forms: what is written, and what is refused."""

from __future__ import annotations

import json
import os

import pytest

from rootless_rt import cgroups
from rootless_rt.cli.main import run
from rootless_rt.spec.defaults import default_spec, rootless
from rootless_rt.spec.load import load


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cgroup2():
    return cgroups.view().mode == "v2"


def as_written(config):
    """The form of the file, by another writer of JSON than ours: tabs, and a line's end."""
    return json.dumps(config, indent="\t") + "\n"


@pytest.mark.covers("spec")
def test_the_default_config_is_written_with_tabs_in_the_usual_order(at, capfd):
    assert run(["spec"]) == 0 and capfd.readouterr() == ("", "")
    assert (at / "config.json").read_text() == as_written(default_spec(cgroup2=cgroup2()))


@pytest.mark.covers("spec --rootless")
def test_the_rootless_form_maps_the_own_ids_alone(at):
    assert run(["spec", "--rootless"]) == 0
    euid, egid = os.geteuid(), os.getegid()
    expected = rootless(default_spec(cgroup2=cgroup2()), euid, egid, cgroup2=cgroup2())
    assert (at / "config.json").read_text() == as_written(expected)
    assert expected["linux"]["uidMappings"] == [{"containerID": 0, "hostID": euid, "size": 1}]
    kinds = [item["type"] for item in expected["linux"]["namespaces"]]
    assert "user" in kinds and "network" not in kinds


@pytest.mark.parametrize("words", [["spec"], ["spec", "--rootless"]])
def test_what_is_written_can_be_loaded(at, words):
    (at / "rootfs").mkdir()
    assert run(words) == 0
    assert load(str(at)).notes == ()


def test_an_existing_config_is_never_overwritten(at, capfd):
    for make in (lambda p: p.write_text("mine"), lambda p: p.symlink_to("nowhere")):
        make(at / "config.json")
        assert run(["spec"]) == 1
        assert "File config.json exists. Remove it first" in capfd.readouterr().err
        assert not (at / "nowhere").exists()
        (at / "config.json").unlink()


@pytest.mark.covers("spec --file", "spec --bundle")
def test_other_places_can_be_named(at, capfd):
    (at / "b").mkdir()
    assert run(["spec", "--bundle", "b"]) == 0 and (at / "b/config.json").exists()
    assert run(["spec", "--file", "other.json"]) == 0 and (at / "other.json").exists()
    assert run(["spec", "--file", "-"]) == 0
    assert json.loads(capfd.readouterr().out)["hostname"] == "rt"
    assert run(["spec", "--bundle", "none"]) == 1
    assert "cannot write none/config.json: no such file" in capfd.readouterr().err


@pytest.mark.covers("spec --from")
def test_an_existing_config_is_converted_with_what_else_it_says(at):
    own = default_spec(cgroup2=False)
    own["process"]["args"] = ["/bin/mine"]
    own["annotations"] = {"a": "b"}
    (at / "privileged.json").write_text(json.dumps(own))
    assert run(["spec", "--from", "privileged.json", "--rootless"]) == 0
    found = json.loads((at / "config.json").read_text())
    assert found["process"]["args"] == ["/bin/mine"] and found["annotations"] == {"a": "b"}
    assert {"type": "user"} in found["linux"]["namespaces"] and "resources" not in found["linux"]


def test_a_config_to_convert_is_checked(at, capfd):
    (at / "wrong.json").write_text('{"ociVersion": 1}')
    assert run(["spec", "--from", "wrong.json", "--rootless"]) == 1
    assert "ociVersion: expected a string" in capfd.readouterr().err
    assert run(["spec", "--from", "missing.json"]) == 1
    assert "--from missing.json: no such file" in capfd.readouterr().err
    assert not (at / "config.json").exists()


def grant(monkeypatch, ranges, helper="/usr/bin/newuidmap"):
    monkeypatch.setattr("idmap.subid.granted", lambda *_: ranges)
    monkeypatch.setattr("idmap.helpers.find_helper", lambda tool: helper)


def maps_of(path):
    linux = json.loads(path.read_text())["linux"]
    return [tuple(line.values()) for line in linux["uidMappings"]]


@pytest.mark.parametrize("kind", ["auto", "full"])
@pytest.mark.covers("spec --idmap")
def test_all_granted_ids_are_mapped_where_there_are_some(at, monkeypatch, kind):
    grant(monkeypatch, [(100000, 65536, 1)])
    assert run(["spec", "--rootless", "--idmap", kind]) == 0
    assert maps_of(at / "config.json") == [(0, os.geteuid(), 1), (1, 100000, 65536)]
    options = [m.get("options", []) for m in json.loads((at / "config.json").read_text())["mounts"]]
    assert any("gid=5" in words for words in options), "a mapped group stays"


def test_with_a_range_the_rootfs_is_writable_and_ids_can_be_used(at, monkeypatch):
    grant(monkeypatch, [(100000, 65536, 1)])
    assert run(["spec", "--rootless", "--idmap", "full"]) == 0
    config = json.loads((at / "config.json").read_text())
    assert config["root"]["readonly"] is False and config["process"]["noNewPrivileges"] is True
    for kind in ("bounding", "effective", "permitted"):
        held = set(config["process"]["capabilities"][kind])
        assert {"CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"} < held and "CAP_SYS_ADMIN" not in held


def test_a_config_that_is_converted_keeps_its_capabilities(at, monkeypatch):
    grant(monkeypatch, [(100000, 65536, 1)])
    assert run(["spec", "-f", "mine.json"]) == 0
    assert run(["spec", "--rootless", "--idmap", "full", "--from", "mine.json"]) == 0
    mine, converted = (json.loads((at / name).read_text()) for name in ("mine.json", "config.json"))
    assert converted["process"] == mine["process"] and converted["root"] == mine["root"]


def test_single_maps_the_own_id_whatever_is_granted(at, monkeypatch):
    grant(monkeypatch, [(100000, 65536, 1)])
    assert run(["spec", "--rootless", "--idmap", "single"]) == 0
    assert maps_of(at / "config.json") == [(0, os.geteuid(), 1)]


def test_auto_does_without_a_range_and_says_so_and_full_does_not(at, monkeypatch, capfd):
    grant(monkeypatch, [])
    assert run(["spec", "--rootless", "--idmap", "auto"]) == 0
    err = capfd.readouterr().err
    assert "only your own ids are mapped: /etc/subuid and /etc/subgid grant" in err
    assert "usermod --add-subuids" in err and maps_of(at / "config.json") == [(0, os.geteuid(), 1)]
    (at / "config.json").unlink()
    assert run(["spec", "--rootless", "--idmap", "full"]) == 1
    assert "--idmap full: " in capfd.readouterr().err and not (at / "config.json").exists()


def test_auto_does_without_the_helpers_of_an_ordinary_user(at, monkeypatch, capfd):
    grant(monkeypatch, [(100000, 65536, 1)], helper=None)
    monkeypatch.setattr("posix.geteuid", lambda: 4711)
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    assert run(["spec", "--rootless", "--idmap", "auto"]) == 0
    assert "newuidmap is not installed" in capfd.readouterr().err
    assert maps_of(at / "config.json") == [(0, 4711, 1)]


def test_an_id_map_without_rootless_is_refused(at, capfd):
    assert run(["spec", "--idmap", "full"]) == 1
    assert "--idmap goes with --rootless" in capfd.readouterr().err


@pytest.mark.covers("spec --rootfs-from-host")
def test_a_rootfs_from_the_host_makes_a_whole_bundle(at):
    assert run(["spec", "--rootless", "--rootfs-from-host"]) == 0
    assert os.access(at / "rootfs/bin/sh", os.X_OK) or os.path.islink(at / "rootfs/bin/sh")
    assert load(str(at)).rootfs == str(at / "rootfs")


def test_no_config_is_written_where_the_rootfs_is_taken(at, capfd):
    (at / "rootfs").mkdir()
    (at / "rootfs/file").write_text("")
    assert run(["spec", "--rootfs-from-host"]) == 1
    assert "is not empty" in capfd.readouterr().err and not (at / "config.json").exists()


@pytest.mark.covers("spec --hardened")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "x"], "--hardened and --from exclude each other"),
        (["--idmap", "full"], "--idmap goes with --rootless"),
    ],
)
def test_options_that_do_not_go_with_hardened_are_refused(at, capfd, words, said):
    assert run(["spec", "--hardened", *words]) == 1
    assert said in capfd.readouterr().err and not (at / "config.json").exists()


@pytest.mark.covers("spec --hardened")
@pytest.mark.parametrize("words", [[], ["--rootless", "--idmap", "single"]])
def test_the_hardened_config_can_be_loaded(at, words):
    (at / "rootfs").mkdir()
    assert run(["spec", "--hardened", *words]) == 0
    assert load(str(at)).notes == ()
