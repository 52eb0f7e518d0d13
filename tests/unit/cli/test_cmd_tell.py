"""Commands that only tell: features, list, version, help."""

from __future__ import annotations

import json
import os
import re

import pytest
from lab.plans import root_config

from rootless_rt.cli import cmd_features
from rootless_rt.cli.main import run
from rootless_rt.cli.table import COMMANDS
from rootless_rt.host import abilities
from rootless_rt.spec.load import from_bytes
from rootless_rt.version import SPEC_VERSION, VERSION

HOST = "org.rootless-rt.host."


def said(capfd, *words):
    status = run(list(words))
    out, err = capfd.readouterr()
    assert (status, err) == (0, ""), (status, err)
    return out


@pytest.mark.covers("features")
def test_features_have_the_form_of_the_runtime_spec(capfd):
    found = json.loads(said(capfd, "features"))
    assert (found["ociVersionMin"], found["ociVersionMax"]) == ("1.0.0", SPEC_VERSION)
    assert set(found["hooks"]) == {
        "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
    }  # fmt: skip
    linux = found["linux"]
    assert {"user", "pid", "mount", "network", "ipc", "uts", "cgroup"} <= set(linux["namespaces"])
    assert "CAP_SYS_ADMIN" in linux["capabilities"]
    for part in ("seccomp", "apparmor", "selinux", "intelRdt"):
        assert isinstance(linux[part]["enabled"], bool)
    assert "MPOL_BIND" in linux["memoryPolicy"]["modes"]
    assert "MPOL_F_STATIC_NODES" in linux["memoryPolicy"]["flags"]
    assert all(isinstance(value, bool) for value in linux["cgroup"].values())
    assert all(isinstance(value, str) for value in found["annotations"].values())
    assert found["mountOptions"] == sorted(found["mountOptions"]) and "rbind" in found["mountOptions"]


@pytest.mark.parametrize("there", [True, False])
def test_systemd_is_a_manager_of_cgroups_where_the_package_for_its_bus_is(there, capfd, monkeypatch):
    monkeypatch.setattr(cmd_features, "find_spec", lambda name: object() if there else None)
    cgroup = json.loads(said(capfd, "features"))["linux"]["cgroup"]
    assert (cgroup["systemd"], cgroup["systemdUser"]) == (there, there)


def test_what_features_promise_is_accepted_in_a_config(capfd):
    """Each option and each capability that is named can be asked for."""
    found = json.loads(said(capfd, "features"))
    config = root_config()
    for word in found["mountOptions"]:
        kind = "bind" if "-" in word or "idmap" in word else "tmpfs"  # copy-symlink, src-nofollow …
        config["mounts"] = [{"destination": "/m", "type": kind, "source": "/s", "options": [word]}]
        from_bytes(json.dumps(config).encode(), "/b")
    config["mounts"] = []
    config["process"]["capabilities"] = {"bounding": found["linux"]["capabilities"]}
    assert from_bytes(json.dumps(config).encode(), "/b").notes == ()


@pytest.mark.covers("features")
def test_features_tell_of_the_host_in_annotations_and_ask_the_kernel(capfd):
    found = json.loads(said(capfd, "features"))
    host = {name.removeprefix(HOST): value for name, value in found["annotations"].items() if HOST in name}
    assert host["kernel"] == os.uname().release
    assert host["checkpoint"].partition(": ")[0] in ("true", "false")
    assert "mount" in host["namespaces"].split(",") and host["cgroup"] in ("v1", "v2", "hybrid", "none")
    with open("/proc/sys/kernel/seccomp/actions_avail", encoding="ascii") as file:
        kernel = {name.replace("user_notif", "notify") for name in file.read().split()}
    told = {name.removeprefix("SCMP_ACT_").lower() for name in host["seccomp.actions"].split(",")}
    assert told - {"kill"} == kernel
    seccomp = found["linux"]["seccomp"]
    assert set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"])
    assert "SECCOMP_FILTER_FLAG_LOG" in seccomp["supportedFlags"]
    assert re.fullmatch(r"2\.\d+\.\d+", found["annotations"]["io.github.seccomp.libseccomp.version"])


def test_a_flag_that_no_kernel_has_is_not_told(monkeypatch):
    monkeypatch.setattr(abilities, "SECCOMP_FLAGS", {"SECCOMP_FILTER_FLAG_NONE_SUCH": 1 << 30})
    assert abilities.seccomp_flags() == ()


def test_an_empty_list_has_the_forms_that_scripts_know(capfd, tmp_path):
    root = ["--root", str(tmp_path)]
    assert said(capfd, *root, "list").split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert said(capfd, *root, "list", "--format", "json") == "null\n"
    assert said(capfd, *root, "list", "--quiet") == "" == said(capfd, *root, "list", "-q")
    assert list(tmp_path.iterdir()) == [], "a list makes nothing"


def test_a_state_root_that_was_named_and_is_not_there_is_an_error(capfd, tmp_path):
    assert run(["--root", str(tmp_path / "none"), "list"]) == 1
    assert "/none: no such directory" in capfd.readouterr().err and not (tmp_path / "none").exists()


@pytest.mark.covers("list", "list --format", "list --quiet")
def test_a_container_is_listed_in_every_form(rt, bundle):
    made = bundle(["/bin/sleep", "100"])
    rt.ok("create", "--bundle", str(made.path), "listed")
    table = [line.split() for line in rt.ok("list").splitlines()]
    container_id, pid, status, where, _, owner = table[1]
    assert len(table) == 2 and (container_id, status, where) == ("listed", "created", str(made.path))
    assert owner == rt.user.name and pid == str(rt.state("listed")["pid"])
    (told,) = json.loads(rt.ok("list", "--format", "json"))
    assert told["id"] == "listed" and told["status"] == "created" and told["owner"] == rt.user.name
    assert told["pid"] == int(pid) and told["bundle"] == where and told["rootfs"] == str(made.rootfs)
    assert rt.ok("list", "-q") == "listed\n"
    rt.ok("delete", "--force", "listed")
    assert json.loads(rt.ok("list", "--format", "json")) is None


@pytest.mark.covers("--version")
def test_the_version_names_rt_and_the_runtime_spec(capfd):
    for word in ("--version", "-v"):
        lines = said(capfd, word).splitlines()
        assert lines[0] == f"rt version {VERSION}" and f"spec: {SPEC_VERSION}" in lines


def test_help_of_every_command_names_its_options(capfd):
    assert said(capfd, "--help") == said(capfd, "help")
    for command in COMMANDS:
        text = said(capfd, "help", command.name)
        for option in command.options:
            if not option.hidden:
                assert f"--{option.names[-1]}" in text, (command.name, option.names)
            else:
                assert not re.search(rf"--{option.names[-1]}\b", text)


@pytest.mark.covers("help", "--help")
def test_help_for_run_says_the_same_whichever_way_it_is_asked(capfd):
    assert said(capfd, "help", "run") == said(capfd, "run", "--help") == said(capfd, "run", "-h")


def test_help_for_an_unknown_command_is_an_error(capfd):
    assert run(["help", "nonsense"]) != 0
    assert "nonsense" in capfd.readouterr().err
