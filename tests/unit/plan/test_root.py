"""The root file system, propagation, hooks, environment and capabilities, as a plan has them."""

from __future__ import annotations

import json

import pytest
from lab.plans import (
    ALL_CAPABILITIES,
    add_namespace,
    compiled,
    drop_namespace,
    every,
    filter_of,
    names,
    one,
    place,
    root_config,
    root_facts,
    user_config,
    user_facts,
)

from rootless_rt.errors import RtError, SpecError
from rootless_rt.plan.devices import rdev
from rootless_rt.plan.mounts import normal
from rootless_rt.plan.ops import CHROOT, MOVE_ROOT, PIVOT_ROOT
from rootless_rt.plan.process import DEFAULT_PATH, environment
from rootless_rt.plan.program import command_error, program_error
from rootless_rt.spec.mountopts import ATTR_RDONLY
from rootless_rt.spec.names import CAPABILITIES, MS_REC, PROPAGATION

PRIVATE, SLAVE, SHARED, UNBINDABLE = (PROPAGATION[w][0] for w in ("private", "slave", "shared", "unbindable"))


def propagated(value, **policy):
    config = root_config()
    if value is not None:
        config["linux"]["rootfsPropagation"] = value
    return compiled(config, root_facts(), **policy)


@pytest.mark.parametrize(
    ("value", "at_first", "at_last", "private_parent"),
    [
        (None, SLAVE, None, 0),
        ("", SLAVE, None, 0),
        ("slave", SLAVE, None, 0),
        ("rslave", SLAVE, None, 0),
        ("private", PRIVATE, None, 0),
        ("rprivate", PRIVATE, None, 0),
        ("shared", SHARED, SHARED, 1),
        ("rshared", SHARED, SHARED | MS_REC, 1),
        ("unbindable", PRIVATE, UNBINDABLE, 0),
        ("runbindable", PRIVATE, UNBINDABLE | MS_REC, 0),
    ],
)
@pytest.mark.covers("linux.rootfsPropagation")
def test_rootfs_propagation_is_set_first_and_what_hinders_the_work_last(
    value, at_first, at_last, private_parent
):
    made = propagated(value)
    assert one(made, "propagation")["flag"] == at_first
    assert [item["flag"] for item in every(made, "root_propagation")] == ([at_last] if at_last else [])
    assert one(made, "root")["private_parent"] == private_parent
    if at_last:
        assert names(made).index("pivot") < names(made).index("root_propagation")


def test_a_private_rootfs_without_pivot_root_is_refused():
    with pytest.raises(RtError, match="not safe without pivot_root"):
        propagated("rprivate", pivot=False)
    assert propagated("rslave", pivot=False)


@pytest.mark.covers("create --no-pivot", "run --no-pivot")
def test_pivot_root_is_used_unless_told_otherwise():
    assert one(propagated(None), "pivot")["how"] == PIVOT_ROOT
    assert "cover" not in names(propagated(None))


def test_without_pivot_root_the_hosts_proc_and_sysfs_are_covered():
    facts = root_facts()
    facts.kernel_mounts = [
        "/host/deep/proc",
        "/bundle/rootfs/proc",
        "/bundle/rootfs-not/sys",
        "/proc",
        "/sys",
    ]
    made = compiled(root_config(), facts, pivot=False)
    assert one(made, "pivot")["how"] == MOVE_ROOT
    covered = [item["path"] for item in every(made, "cover")]
    assert covered == ["/host/deep/proc", "/bundle/rootfs-not/sys", "/proc", "/sys"]
    assert max(i for i, n in enumerate(names(made)) if n == "cover") < names(made).index("pivot")


def test_in_a_joined_mount_namespace_the_root_of_others_is_left_alone():
    config = add_namespace(root_config(), "mount", "/proc/7/ns/mnt")
    made = compiled(config, root_facts())
    assert one(made, "pivot")["how"] == CHROOT


def test_there_is_no_container_without_a_mount_namespace():
    config = drop_namespace(root_config(), "mount")
    config["linux"].update(maskedPaths=[], readonlyPaths=[])
    with pytest.raises(SpecError, match=r"linux\.namespaces"):
        compiled(config, root_facts())


def test_the_root_is_made_read_only_after_everything_was_put_into_it():
    made = compiled(user_config())
    last = max(i for i, n in enumerate(names(made)) if n in ("mount_fs", "mount_bind", "symlink", "mask"))
    assert last < place(made, "root_attrs", set=ATTR_RDONLY) < names(made).index("pivot")
    config = user_config()
    config["root"]["readonly"] = False
    assert "root_attrs" not in names(compiled(config))


@pytest.mark.covers("linux.maskedPaths", "linux.readonlyPaths")
def test_masks_share_one_source_and_come_with_it():
    made = compiled(user_config())
    masks = every(made, "mask")
    assert len({item["null"] for item in masks}) == len({item["tmpfs"] for item in masks}) == 1
    assert one(made, "source", slot=masks[0]["null"])["path"] == "/dev/null"
    config = user_config()
    config["linux"]["maskedPaths"] = []
    assert "mask" not in names(compiled(config))


def test_a_terminal_needs_a_devpts():
    config = user_config()
    config["process"]["terminal"] = True
    config["mounts"] = [item for item in config["mounts"] if item["destination"] != "/dev/pts"]
    with pytest.raises(SpecError, match=r"process\.terminal") as caught:
        compiled(config)
    assert "devpts" in caught.value.hint


@pytest.mark.covers("hostname", "domainname", "linux.sysctl")
def test_names_loopback_and_sysctls_follow_their_namespaces():
    config = root_config()
    config["domainname"] = "example.org"
    config["linux"]["sysctl"] = {"net.ipv4.conf.eth0/1.forwarding": "1"}
    made = compiled(config, root_facts())
    assert one(made, "hostname")["name"] == "rt" and one(made, "domainname")["name"] == "example.org"
    assert "loopback" in names(made)
    assert one(made, "sysctl") == {"path": "net/ipv4/conf/eth0.1/forwarding", "value": "1"}
    assert "loopback" not in names(compiled(user_config())), "the host's own network is left alone"
    config["linux"]["sysctl"] = {}
    assert "loopback" not in names(compiled(add_namespace(config, "network", "/run/netns/x"), root_facts()))


def hooked(kind, **hook):
    config = user_config(annotations={"key": "a, b"})
    config["hooks"] = {kind: [{"path": "/h", **hook}]}
    return one(compiled(config), "hook")


def test_the_halves_of_a_hooks_state_close_around_the_pid():
    op = hooked("createContainer")
    state = json.loads(op["state_head"] + "4711" + op["state_tail"])
    assert state["pid"] == 4711 and state["id"] == "box" and state["bundle"] == "/bundle"
    assert state["status"] == "creating" and state["annotations"] == {"key": "a, b"}
    op = hooked("startContainer")
    assert json.loads(op["state_head"] + "1" + op["state_tail"])["status"] == "created"


def test_hooks_have_their_own_environment_or_the_one_that_is_usual():
    assert hooked("createContainer")["env"] == [] and hooked("createContainer")["cwd"] == "/bundle"
    assert hooked("startContainer")["env"] == user_config()["process"]["env"]
    assert hooked("startContainer", env=[])["env"] == [] and hooked("startContainer")["cwd"] == ""
    assert hooked("createContainer")["args"] == ["/h"]
    assert hooked("createContainer", args=["name", "x"])["args"] == ["name", "x"]


@pytest.mark.covers("hooks.prestart[].timeout")
def test_a_hooks_time_fits_what_poll_takes():
    assert hooked("createContainer")["timeout_ms"] == 0
    assert hooked("createContainer", timeout=5)["timeout_ms"] == 5000
    for seconds in (4294968, (1 << 63) - 1):
        assert hooked("createContainer", timeout=seconds)["timeout_ms"] == (1 << 31) - 1


def test_the_last_value_of_a_variable_wins_at_the_place_of_the_first():
    assert environment(["A=1", "B=2", "A=3", "C="]) == ["A=3", "B=2", "C="]
    assert environment([]) == []


def test_the_program_is_looked_for_in_the_configs_path():
    config = user_config()
    config["process"].update(args=["sleep", "1"], env=["PATH=/x", "PATH=/y:/z"])
    made = compiled(config)
    assert one(made, "find") == {"name": "sleep", "path": "/y:/z"}
    assert one(made, "exec") == {"args": ["sleep", "1"], "env": ["PATH=/y:/z"]}
    config["process"]["env"] = []
    assert one(compiled(config), "find")["path"] == DEFAULT_PATH


def test_home_is_looked_up_unless_the_config_has_one():
    config = user_config()
    assert "home" in names(compiled(config))
    config["process"]["env"].append("HOME=/here")
    assert "home" not in names(compiled(config))


@pytest.mark.covers("process.capabilities")
def test_capabilities_are_the_configs_and_no_others():
    config = root_config()
    config["process"]["capabilities"] = {
        "bounding": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_KILL"],
        "ambient": ["CAP_KILL", "CAP_CHOWN"],
    }
    made = compiled(config, root_facts())
    chown, kill = (1 << CAPABILITIES[name] for name in ("CAP_CHOWN", "CAP_KILL"))
    assert one(made, "bounding")["keep"] == chown | kill
    assert one(made, "caps") == {"effective": chown, "permitted": chown | kill, "inheritable": kill}
    assert one(made, "ambient")["caps"] == kill, "the kernel raises only what is inheritable too"
    del config["process"]["capabilities"]
    made = compiled(config, root_facts())
    assert one(made, "caps") == {"effective": 0, "permitted": 0, "inheritable": 0}
    assert one(made, "bounding")["keep"] == one(made, "ambient")["caps"] == 0


def test_a_capability_newer_than_the_kernel_is_left_out_with_a_warning():
    config = root_config()
    config["process"]["capabilities"]["effective"] = ["CAP_CHECKPOINT_RESTORE"]
    facts = root_facts()
    facts.last_capability = 37
    made = compiled(config, facts)
    assert not one(made, "caps")["effective"]
    assert any("CAP_CHECKPOINT_RESTORE" in line for line in made.warnings)
    assert ALL_CAPABILITIES >> CAPABILITIES["CAP_CHECKPOINT_RESTORE"] & 1


def test_a_filter_is_data_of_the_plan_and_printed_by_its_size():
    facts = user_facts()
    facts.filter = filter_of(3)
    made = compiled(user_config(), facts)
    op = made.ops[place(made, "seccomp")]
    assert op.args[1] == bytes(24) and "24 bytes" in op.describe()


@pytest.mark.parametrize("number", [0, 1, 0x103, 0xFFF, (4095, 1048575), (1, 256), (4095, 0)])
def test_device_numbers_are_those_of_the_c_library(number):
    import os

    major, minor = number if isinstance(number, tuple) else (number >> 8, number & 0xFF)
    assert rdev(major, minor) == os.makedev(major, minor)


def test_paths_are_made_plain_by_their_text():
    shown = {"/a//b/./c/": "/a/b/c", "/..": "/", "a/b": "/a/b", "/a/../../b": "/b", "//x": "/x", "": "/"}
    assert {path: normal(path) for path in shown} == shown


def test_a_program_that_cannot_be_started_is_told_in_the_words_that_engines_look_for():
    assert program_error("sh", 2).message == 'exec: "sh": executable file not found in $PATH'
    assert program_error("/x", 2).message == 'exec: "/x": stat /x: no such file or directory'
    assert program_error("/x", 13).message == 'exec: "/x": permission denied'
    assert program_error("/x", 8).message == 'exec: "/x": exec format error'
    assert program_error("/x", 5).message.startswith('exec: "/x": ') and program_error("/x", 13).hint
    for name, number in (("sh", 2), ("/x", 2), ("/x", 13), ("/x", 8), ("/x", 5)):
        error = command_error(name, number)
        assert error.message == program_error(name, number).message
        assert not {"process", "rootfs", "container"} & set((error.hint or "").replace(".", " ").split())


def test_a_joined_mount_namespace_keeps_its_propagation() -> None:
    config = user_config()
    for entry in config["linux"]["namespaces"]:
        if entry["type"] == "mount":
            entry["path"] = "/proc/1/ns/mnt"
    assert "propagation" not in names(compiled(config, user_facts()))
