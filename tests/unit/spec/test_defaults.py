"""The default config and its conversion for a user without root; the features document."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from lab import configs

from rootless_rt.spec import names
from rootless_rt.spec.defaults import default_spec, rootless
from rootless_rt.spec.features import features
from rootless_rt.spec.jsonio import dumps
from rootless_rt.spec.load import from_bytes
from rootless_rt.spec.mountopts import parse_options

FULL = [{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 100000, "size": 65536}]


def order(value: Any) -> Any:
    """Keys of objects in their order, all the way down; arrays by their first object."""
    if isinstance(value, dict):
        return [(key, order(item)) for key, item in value.items()]
    return order(value[0]) if isinstance(value, list) and value else None


def kinds(config: dict[str, Any]) -> list[str]:
    return [item["type"] for item in config["linux"]["namespaces"]]


@pytest.mark.skipif(not shutil.which("runc"), reason="runc is not installed")
@pytest.mark.parametrize("flag", [(), ("--rootless",)], ids=["plain", "rootless"])
def test_the_config_is_that_of_runc_spec(flag: tuple[str, ...], tmp_path: Path) -> None:
    subprocess.run(["runc", "spec", *flag], cwd=tmp_path, check=True)
    text = (tmp_path / "config.json").read_text()
    theirs = json.loads(text)
    cgroup2 = "cgroup" in kinds(theirs)
    ours = default_spec(cgroup2=cgroup2)
    if flag:
        ours = rootless(ours, os.geteuid(), os.getegid(), cgroup2=cgroup2)
    # what newer releases of runc changed
    theirs["process"]["capabilities"].pop("ambient", None)
    theirs.update(ociVersion="1.3.0", hostname="rt")
    assert ours == theirs
    assert order(ours) == order(theirs)
    assert dumps(ours, "\t") == dumps(theirs, "\t")


@pytest.mark.parametrize("cgroup2", [False, True])
def test_the_default_and_its_conversion_pass_the_checks(cgroup2: bool) -> None:
    config = default_spec(cgroup2=cgroup2)
    assert ("cgroup" in kinds(config)) == cgroup2
    assert from_bytes(configs.as_bytes(config), "/b").notes == ()
    assert from_bytes(configs.as_bytes(rootless(config, 1000, 1000, cgroup2=cgroup2)), "/b").notes == ()


def test_a_conversion_for_one_id_strips_what_only_root_can_do() -> None:
    config = default_spec()
    before = copy.deepcopy(config)
    result = rootless(config, 1000, 1001, cgroup2=False)
    assert config == before
    assert kinds(result) == ["pid", "ipc", "uts", "mount", "user"]
    assert result["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert result["linux"]["gidMappings"] == [{"containerID": 0, "hostID": 1001, "size": 1}]
    assert "resources" not in result["linux"]
    assert "gid=5" not in result["mounts"][2]["options"]
    assert result["mounts"][5] == {
        "destination": "/sys",
        "type": "none",
        "source": "/sys",
        "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
    }


def test_a_conversion_with_ranges_keeps_the_ids_they_map() -> None:
    config = default_spec()
    config["mounts"][1]["options"] += ["uid=65536", "gid=65537", "uid=x", "gid=²"]
    result = rootless(config, 1000, 1000, FULL, FULL, cgroup2=False)
    assert result["linux"]["gidMappings"] == FULL
    assert "gid=5" in result["mounts"][2]["options"]
    assert result["mounts"][1]["options"][-1] == "uid=65536"


def test_any_config_can_be_converted_once_and_again() -> None:
    config = configs.valid()
    config["mounts"] = [{"destination": "/sys/", "type": "bind", "source": "/sys", "options": ["rbind"]}]
    del config["linux"]["sysctl"]
    once = rootless(config, 1000, 1000, cgroup2=True)
    assert once["mounts"] == config["mounts"]
    assert kinds(once)[-2:] == ["cgroup", "user"]
    assert rootless(once, 1000, 1000, cgroup2=True) == once
    bare = {"ociVersion": "1.0.0", "root": {"path": "r"}, "process": {"cwd": "/", "args": ["sh"]}}
    assert kinds(rootless(bare, 1, 1, cgroup2=False)) == ["user"]


def test_features_promise_only_what_the_tables_can_do() -> None:
    document = features(version="0.1.0", libseccomp="2.5.4", cgroup_v2=False, host={"kernel": "6"})
    assert list(document)[:5] == ["ociVersionMin", "ociVersionMax", "hooks", "mountOptions", "linux"]
    for word in document["mountOptions"]:
        parse_options([word], "x", "bind" if "-" in word else "tmpfs")
    assert {"rro", "idmap", "tmpcopyup"} <= set(document["mountOptions"])
    linux = document["linux"]
    assert linux["namespaces"] == ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]
    assert linux["capabilities"][0] == "CAP_CHOWN" and len(linux["capabilities"]) == 41
    assert linux["seccomp"]["actions"] == list(names.SECCOMP_ACTIONS)
    assert linux["seccomp"]["operators"] == list(names.SECCOMP_OPERATORS)
    assert linux["cgroup"]["v1"] is True and linux["cgroup"]["v2"] is False
    assert linux["apparmor"] == linux["selinux"] == {"enabled": True}
    assert "MPOL_WEIGHTED_INTERLEAVE" in linux["memoryPolicy"]["modes"]
    assert document["annotations"]["org.rootless-rt.host.kernel"] == "6"
    assert features(version="0.1.0")["linux"]["seccomp"] == {"enabled": False}
