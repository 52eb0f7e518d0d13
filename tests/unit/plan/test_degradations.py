"""Each way a plan may differ from its config: what is done instead, why, and that strict refuses it."""

from __future__ import annotations

import pytest
from lab.plans import (
    UID,
    add_namespace,
    compiled,
    degraded,
    drop_namespace,
    every,
    map_range,
    names,
    one,
    root_config,
    root_facts,
    user_config,
    user_facts,
)

from rootless_rt.errors import RtError, SpecError
from rootless_rt.host.doctor.reasons import BY_ID
from rootless_rt.host.facts import CgroupFacts
from rootless_rt.plan.mounts import split_data
from rootless_rt.plan.ops import ANY_DEVICE, IN_PROC, NO_SLOT, PROC_ITSELF
from rootless_rt.spec.mountopts import ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY

SAFE = ATTR_RDONLY | ATTR_NODEV | ATTR_NOEXEC | ATTR_NOSUID


def no_user_namespace():
    return drop_namespace(root_config(mounts=[]), "network"), user_facts()


def high_limit():
    config = user_config()
    config["process"]["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 5000, "hard": 1 << 63}]
    return config, user_facts()


def low_oom_score():
    config = user_config()
    config["process"]["oomScoreAdj"] = -1
    return config, user_facts()


def groups_with_one_id():
    config = user_config()
    config["process"]["user"]["additionalGids"] = [4, 5]
    return config, user_facts()


def unmapped_group():
    config = map_range(user_config())
    config["process"]["user"]["additionalGids"] = [4, 99999]
    return config, user_facts()


def missing_device():
    facts = user_facts()
    del facts.paths["/dev/tty"]
    return user_config(), facts


def other_device():
    facts = user_facts()
    facts.paths["/dev/null"] = 5
    return user_config(), facts


def asked_device():
    config = user_config()
    config["linux"]["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
    return config, user_facts()


def sysfs_of_the_host():
    config = user_config()
    config["mounts"] = [{"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid"]}]
    return config, user_facts()


def proc_of_the_host():
    return drop_namespace(user_config(), "pid"), user_facts()


def mqueue_of_the_host():
    return drop_namespace(user_config(), "ipc"), user_facts()


def unmapped_owner():
    config = user_config()
    config["mounts"].append(
        {"destination": "/run", "type": "tmpfs", "options": ["mode=755", "uid=7", "gid=0"]}
    )
    return config, user_facts()


def no_cgroup():
    facts = user_facts()
    facts.cgroup = CgroupFacts("v2", "nothing is delegated to you")
    return user_config(), facts


CASES = {
    "linux.namespaces": (no_user_namespace, "only inside one"),
    "process.rlimits[0]": (high_limit, "the hard limit here is 4096"),
    "process.user.additionalGids (denied)": (groups_with_one_id, "setgroups"),
    "process.user.additionalGids (unmapped)": (unmapped_group, "gidMappings"),
    "the default device /dev/tty": (missing_device, "does not exist"),
    "the default device /dev/null": (other_device, "is another device"),
    "linux.devices[0]": (asked_device, "does not exist"),
    "mounts[0] (sysfs)": (sysfs_of_the_host, "owner of the network namespace"),
    "mounts[0] (proc)": (proc_of_the_host, "owner of the pid namespace"),
    "mounts[4] (mqueue)": (mqueue_of_the_host, "owner of the ipc namespace"),
    "mounts[7].options": (unmapped_owner, "uid 7 is not mapped"),
    "mounts[6]": (no_cgroup, "nothing is delegated to you"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fallback_is_named_by_its_field_and_cause(case):
    make, why = CASES[case]
    field = case.partition(" (")[0]
    config, facts = make()
    made = compiled(config, facts)
    found = degraded(made)
    assert list(found) == [field] and why in found[field]
    item = made.degradations[0]
    assert item.asked and item.got and item.line().startswith(f"{field}: {item.asked} -> {item.got}: ")
    assert list(item.as_dict()) == ["field", "asked", "got", "why", "fix", "id"] and item.id in BY_ID
    assert item.as_dict() == {name: getattr(item, name) for name in item.as_dict()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.covers("--degrade")
def test_strict_refuses_each_fallback_by_its_field(case):
    make, why = CASES[case]
    config, facts = make()
    with pytest.raises(RtError) as caught:
        compiled(config, facts, strict=True)
    assert case.partition(" (")[0] in caught.value.message and why in caught.value.message


def test_what_is_not_degraded_is_planned_alike_under_both_policies():
    for config, facts in ((user_config(), user_facts()), (root_config(), root_facts())):
        assert compiled(config, facts, strict=True).ops == compiled(config, facts, strict=False).ops


def test_an_ordinary_user_gets_a_user_namespace_where_the_config_has_none():
    made = compiled(*no_user_namespace())
    assert made.uid_map == made.gid_map == [(0, UID, 1)] and not made.set_groups
    assert one(made, "clone")["flags"] & 0x10000000 and "become" in names(made)
    assert "device" not in names(made), "devices are bound, as for every user namespace"


def test_root_gets_no_user_namespace_unasked():
    made = compiled(root_config(), root_facts())
    assert made.uid_map is None and not one(made, "clone")["flags"] & 0x10000000
    assert "become" not in names(made) and made.degradations == []


@pytest.mark.parametrize(("field", "number"), [("gid", 65537 + 1), ("uid", 65537 + 1)])
def test_a_user_that_is_not_mapped_is_an_error_under_any_policy(field, number):
    config = map_range(user_config())
    config["process"]["user"][field] = number
    with pytest.raises(SpecError, match=f"cannot set {field} to unmapped user: {number}") as caught:
        compiled(config)
    assert caught.value.path == f"process.user.{field}" and f"map {field} {number}" in caught.value.hint


def test_an_id_of_a_mapped_range_is_taken():
    config = map_range(user_config())
    config["process"]["user"] = {"uid": 33, "gid": 65536, "additionalGids": [4, 24]}
    made = compiled(config)
    assert one(made, "ids") == {"uid": 33, "gid": 65536, "groups": [4, 24], "set_groups": 1, "umask": 0o022}
    assert one(made, "chown_stdio") == {"uid": 33, "gid": 65536} and made.set_groups
    assert one(made, "become") == {"uid": 0, "gid": 0, "drop_groups": 1}


def test_the_own_group_among_the_additional_ones_is_no_loss():
    config = user_config()
    config["process"]["user"]["additionalGids"] = [0]
    made = compiled(config, strict=True)
    assert one(made, "ids")["groups"] == [] and one(made, "ids")["set_groups"] == 0


def test_where_root_is_not_mapped_nobody_becomes_root():
    config = user_config()
    line = [{"containerID": 1000, "hostID": UID, "size": 1}]
    config["linux"].update(uidMappings=line, gidMappings=line)
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    assert "become" not in names(compiled(config))


@pytest.mark.covers("process.rlimits")
def test_limits_are_clamped_and_the_soft_one_follows():
    config, facts = high_limit()
    made = compiled(config, facts)
    assert one(made, "rlimit") == {"resource": 4, "soft": 4096, "hard": 4096}
    assert names(made).index("rlimit") > names(made).index("pivot")
    assert made.degradations[0].asked == f"RLIMIT_CORE {1 << 63}"
    config["process"]["rlimits"][0]["hard"] = (1 << 64) - 1
    assert compiled(config, facts).degradations[0].asked == "RLIMIT_CORE unlimited"


@pytest.mark.parametrize("strict", [False, True])
def test_whether_an_oom_score_can_be_lowered_only_trying_tells(strict):
    made = compiled(*low_oom_score(), strict=strict)
    index = names(made).index("oom_score_adj")
    item = made.tolerated[index]
    assert (item.field, item.asked, item.got) == ("process.oomScoreAdj", "-1", "0")
    assert "CAP_SYS_RESOURCE" in item.why and not item.always and made.degradations == []


def test_a_higher_oom_score_can_be_had_by_all_and_an_equal_one_is_not_set():
    config, facts = low_oom_score()
    config["process"]["oomScoreAdj"] = 300
    made = compiled(config, facts)
    assert one(made, "oom_score_adj")["value"] == "300"
    assert names(made).index("oom_score_adj") not in made.tolerated
    facts.oom_score_adj = 300
    assert "oom_score_adj" not in names(compiled(config, facts))


def test_a_capability_of_resources_counts_only_in_the_initial_user_namespace():
    config = root_config()
    config["process"]["oomScoreAdj"] = -500
    facts = root_facts()
    fields = [item.field for item in compiled(config, facts).tolerated.values()]
    assert "process.oomScoreAdj" not in fields
    facts.uid_map = [(0, 1000, 1), (1, 100000, 65536)]
    fields = [item.field for item in compiled(config, facts).tolerated.values()]
    assert "process.oomScoreAdj" in fields


# Devices.


@pytest.mark.covers("linux.devices")
def test_root_makes_device_nodes_and_a_user_binds_the_hosts():
    made = compiled(root_config(), root_facts())
    null = one(made, "device", path="/dev/null")
    assert (null["mode"], null["rdev"]) == (0o020666, 0x103)
    assert not every(made, "mount_bind", dest="/dev/null")
    made = compiled(user_config())
    assert "device" not in names(made)
    assert one(made, "mount_bind", dest="/dev/null")["device"] == 0x103
    assert one(made, "source", path="/dev/zero")["recursive"] == 0


def test_a_device_of_the_config_replaces_the_default_one_and_a_fifo_is_made_by_anybody():
    config = user_config()
    config["linux"]["devices"] = [
        {"path": "//dev/./null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600},
        {"path": "/dev/pipe", "type": "p", "uid": 0},
    ]
    made = compiled(config)
    assert one(made, "mount_bind", dest="/dev/null")["device"] == 0x103
    assert one(made, "device", path="/dev/pipe")["mode"] == 0o010666
    made = compiled(
        root_config(
            linux=config["linux"]
            | {"namespaces": root_config()["linux"]["namespaces"], "uidMappings": [], "gidMappings": []}
        ),
        root_facts(),
    )
    assert one(made, "device", path="/dev/null")["mode"] == 0o020600


def test_the_type_bits_of_a_file_mode_do_not_change_the_kind_of_node():
    config = root_config()
    config["linux"]["devices"] = [
        {"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o060640}
    ]
    assert one(compiled(config, root_facts()), "device", path="/dev/x")["mode"] == 0o020640


def test_dev_ptmx_is_a_link_into_devpts_and_never_a_device():
    config = root_config()
    config["linux"]["devices"] = [{"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2}]
    made = compiled(config, root_facts())
    assert not every(made, "device", path="/dev/ptmx")
    assert one(made, "symlink", path="/dev/ptmx")["target"] == "pts/ptmx"


def test_nothing_is_made_in_a_dev_that_is_the_users_own():
    config = user_config()
    config["mounts"][1] = {"destination": "/dev/", "type": "none", "source": "/dev", "options": ["rbind"]}
    made = compiled(config)
    assert not every(made, "symlink") and not every(made, "device")
    assert not [item for item in every(made, "mount_bind") if item["dest"].startswith("/dev/")]


def test_a_link_to_kcore_is_made_where_the_host_has_it():
    facts = user_facts()
    assert every(compiled(user_config(), facts), "symlink", path="/dev/core")
    del facts.paths["/proc/kcore"]
    assert not every(compiled(user_config(), facts), "symlink", path="/dev/core")


# Filesystems that only the owner of a namespace may mount.


def test_the_hosts_sys_is_bound_read_only_with_all_below_it():
    made = compiled(*sysfs_of_the_host())
    bound = one(made, "mount_bind", dest="/sys")
    assert bound["tree_set"] == SAFE
    source = one(made, "source", slot=bound["slot"])
    assert (source["path"], source["recursive"], source["nofollow"]) == ("/sys", 1, 0)


def test_the_hosts_proc_is_bound_and_checked_to_be_proc():
    made = compiled(*proc_of_the_host())
    bound = one(made, "mount_bind", dest="/proc")
    assert bound["in_proc"] == PROC_ITSELF and bound["set"] & (SAFE & ~ATTR_RDONLY) == SAFE & ~ATTR_RDONLY
    assert not bound["set"] & ATTR_RDONLY and not every(made, "mount_fs", fstype="proc")


def test_mqueue_without_a_namespace_or_a_hosts_mount_is_an_empty_directory():
    """Message queues are reached by system calls: the mount only shows them."""
    config, facts = mqueue_of_the_host()
    del facts.paths["/dev/mqueue"]
    made = compiled(config, facts)
    empty = one(made, "mount_fs", dest="/dev/mqueue")
    assert empty["fstype"] == "tmpfs" and empty["attrs"] & ATTR_RDONLY and "nr_inodes=2" in empty["data"]
    assert "ipc namespace" in degraded(made)["mounts[4]"]
    with pytest.raises(RtError, match=r"mounts\[4\]"):
        compiled(config, facts, strict=True)


def test_root_without_a_user_namespace_mounts_them_all_anew():
    config = drop_namespace(drop_namespace(drop_namespace(root_config(), "ipc"), "network"), "pid")
    made = compiled(config, root_facts())
    assert {"proc", "sysfs", "mqueue"} <= {item["fstype"] for item in every(made, "mount_fs")}


def test_sysfs_of_a_joined_network_namespace_has_the_hosts_as_a_spare():
    config = add_namespace(sysfs_of_the_host()[0], "network", "/proc/7/ns/net")
    made = compiled(config)
    spare = one(made, "mount_fs", dest="/sys")["fallback"]
    assert one(made, "source", slot=spare)["path"] == "/sys"
    index = next(i for i, op in enumerate(made.ops) if op.name == "mount_fs" and op.args[1] == "/sys")
    assert made.tolerated[index].field == "mounts[0]" and made.degradations == []
    assert one(compiled(config, strict=True), "mount_fs", dest="/sys")["fallback"] == NO_SLOT


def test_only_listed_files_of_proc_can_be_mounted_over():
    config = user_config()
    config["mounts"].append(
        {"destination": "/proc/./cpuinfo", "type": "bind", "source": "/tmp/x", "options": ["bind"]}
    )
    assert one(compiled(config), "mount_bind", dest="/proc/cpuinfo")["in_proc"] == IN_PROC
    for dest in ("/proc/sys/kernel", "/proc/self/attr", "/x/../proc/1", "//proc//sysrq-trigger"):
        config["mounts"][-1]["destination"] = dest
        with pytest.raises(SpecError, match="inside /proc"):
            compiled(config)
    for kind in ("tmpfs", "sysfs"):
        config["mounts"][-1] = {"destination": "/proc/", "type": kind, "source": kind}
        with pytest.raises(SpecError, match="only a proc filesystem"):
            compiled(config, root_facts())


def test_the_root_itself_is_no_place_for_a_mount():
    for dest in ("/", "/..", "//.", "/a/.."):
        config = user_config(mounts=[{"destination": dest, "type": "tmpfs"}])
        with pytest.raises(SpecError, match=r"mounts\[0\]\.destination"):
            compiled(config)


def test_flags_that_may_be_locked_are_asked_for_softly_and_restrictions_are_not():
    config = user_config(
        mounts=[
            {
                "destination": "/a",
                "type": "bind",
                "source": "/srv",
                "options": ["rbind", "ro", "exec", "noatime"],
            },
            {"destination": "/b", "type": "bind", "source": "rel", "options": ["bind"]},
        ]
    )
    made = compiled(config)
    first = one(made, "mount_bind", dest="/a")
    assert first["set"] & ATTR_RDONLY and not first["soft_set"] & ATTR_RDONLY
    assert first["soft_clear"] & ATTR_NOEXEC and first["device"] == ANY_DEVICE
    assert one(made, "source", path="/srv")["recursive"] == 1
    assert one(made, "source", path="/bundle/rel")["recursive"] == 0
    noted = [item.field for item in made.tolerated.values() if item.field.startswith("mounts")]
    assert noted == ["mounts[0].options"]


def test_a_uid_of_many_digits_is_no_surprise():
    config = user_config()
    word = "uid=" + "9" * 250
    config["mounts"].append({"destination": "/run", "type": "tmpfs", "options": [word]})
    assert word in one(compiled(config), "mount_fs", dest="/run")["data"], "for the kernel to refuse"


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("mode=755", ["mode=755"]),
        ("mode=755,size=1k", ["mode=755", "size=1k"]),
        ("a,,b,", ["a", "b"]),
        ('context="a,b",size=1', ['context="a,b"', "size=1"]),
        (r"lowerdir=/a\,b,upperdir=/c", [r"lowerdir=/a\,b", "upperdir=/c"]),
        (r"x=\\,y", [r"x=\\", "y"]),
    ],
)
def test_data_is_split_at_commas_that_separate(word, parts):
    assert split_data(word) == parts


# Cgroups.


def cgroup_plan(facts, *, own_namespace=False):
    config = user_config()
    config["mounts"] = [config["mounts"][6]]
    if own_namespace:
        add_namespace(config, "cgroup")
    return compiled(config, facts)


def test_cgroup_2_in_an_own_namespace_is_mounted_anew():
    made = cgroup_plan(user_facts(), own_namespace=True)
    assert one(made, "mount_fs")["fstype"] == "cgroup2"


def test_cgroup_2_in_the_hosts_namespace_shows_the_own_cgroup_read_only():
    facts = user_facts()
    made = cgroup_plan(facts)
    bound = one(made, "mount_bind", dest="/sys/fs/cgroup")
    assert bound["set"] & SAFE == SAFE
    assert one(made, "source", slot=bound["slot"])["path"] == facts.cgroup.container_dirs[""]


def test_cgroup_1_hierarchies_are_bound_read_only_and_their_other_names_are_links():
    for mode in ("v1", "hybrid"):
        facts = user_facts()
        facts.cgroup = CgroupFacts(mode)
        facts.cgroup.container_dirs = {
            "cpu": "/sys/fs/cgroup/cpu,cpuacct/box",
            "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/box",
            "name=systemd": "/sys/fs/cgroup/systemd/box",
        }
        facts.cgroup.folders = {"cpu": "cpu,cpuacct", "cpuacct": "cpu,cpuacct", "name=systemd": "systemd"}
        made = cgroup_plan(facts)
        assert one(made, "mount_fs", dest="/sys/fs/cgroup")["fstype"] == "tmpfs"
        shown = [item for item in every(made, "mount_bind") if item["dest"].startswith("/sys")]
        assert [item["dest"] for item in shown] == ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/systemd"]
        assert all(item["set"] & SAFE == SAFE for item in shown)
        links = {item["path"]: item["target"] for item in every(made, "symlink")}
        assert links["/sys/fs/cgroup/cpu"] == links["/sys/fs/cgroup/cpuacct"] == "cpu,cpuacct"
        assert one(made, "remount", dest="/sys/fs/cgroup")["set"] == ATTR_RDONLY


def test_without_a_cgroup_to_show_there_is_an_empty_read_only_directory():
    for mode in ("v1", "v2", "hybrid", "none"):
        facts = user_facts()
        facts.cgroup = CgroupFacts(mode, "there is none")
        made = cgroup_plan(facts)
        empty = one(made, "mount_fs", dest="/sys/fs/cgroup")
        assert empty["fstype"] == "tmpfs" and empty["attrs"] & SAFE == SAFE and "size=0k" in empty["data"]
        assert degraded(made) == {"mounts[0]": "there is none"}


# The keyring is the one degradation that only rt-init can find out.


def test_the_keyring_may_fail_and_says_so_then():
    made = compiled(user_config())
    assert made.tolerated[names(made).index("keyring")].field == "session keyring"
    assert "keyring" not in names(compiled(user_config(), new_keyring=False))
