"""The rules of `rt lint`, each with what it finds and what it lets pass."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from lab import configs, engine_profiles
from lab.bundles import Config
from lab.inside import bind, mount

from rootless_rt.errors import SpecError
from rootless_rt.spec.defaults import default_spec, rootless
from rootless_rt.spec.hardened import hardened_spec
from rootless_rt.spec.lint import LEVELS, RULES, Place, lint
from rootless_rt.spec.load import from_bytes

Change = Callable[[Config], Any]
RANGE = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def hardened() -> Config:
    return hardened_spec(copy.deepcopy(RANGE), copy.deepcopy(RANGE), devices=True)


def found(config: Config) -> list[tuple[str, str, str]]:
    data = from_bytes(json.dumps(config).encode(), "/bundle").data
    return [(finding.severity, finding.rule, finding.path) for finding in lint(data)]


def after(change: Change, *, userns: bool) -> list[tuple[str, str, str]]:
    """What a change adds to the findings of the hardened config, with or without its user namespace."""
    config = hardened()
    if not userns:
        config["linux"]["namespaces"].pop()
        for key in ("uidMappings", "gidMappings", "sysctl"):
            del config["linux"][key]
    before = found(config)
    change(config)
    return [item for item in found(config) if item not in before]


def process(**fields: Any) -> Change:
    return lambda config: config["process"].update(fields)


def linux(**fields: Any) -> Change:
    return lambda config: config["linux"].update(fields)


def capability(name: str, kind: str = "bounding") -> Change:
    return lambda config: config["process"]["capabilities"][kind].append(name)


def resources(**fields: Any) -> Change:
    return lambda config: config["linux"]["resources"].update(fields)


def seccomp(**fields: Any) -> Change:
    return lambda config: config["linux"]["seccomp"].update(fields)


def mounts(*more: Config) -> Change:
    return lambda config: config["mounts"].extend(more)


def without(kind: str) -> Change:
    def change(config: Config) -> None:
        listed = config["linux"]["namespaces"]
        config["linux"]["namespaces"] = [item for item in listed if item["type"] != kind]

    return change


def joined(kind: str, path: str) -> Change:
    def change(config: Config) -> None:
        next(item for item in config["linux"]["namespaces"] if item["type"] == kind)["path"] = path

    return change


def hook(path: str, kind: str = "poststop") -> Change:
    return lambda config: config.update(hooks={kind: [{"path": path}]})


def device(kind: str, major: int, minor: int) -> Change:
    return linux(devices=[{"path": "/dev/x", "type": kind, "major": major, "minor": minor}])


def rule(**fields: Any) -> Change:
    return lambda config: config["linux"]["resources"]["devices"].append({"allow": True, **fields})


HERE = "mounts[9].source"
LAYER = "mounts[9].options[0]"
NO_LIMIT = (1 << 64) - 1
# (change, in a user namespace, severity, rule, path)
DANGEROUS: list[tuple[Change, bool, str, str, str]] = [
    (capability("CAP_SYS_ADMIN"), False, "high", "capability", "process.capabilities.bounding[0]"),
    (capability("CAP_SYS_ADMIN"), True, "medium", "capability", "process.capabilities.bounding[0]"),
    (capability("CAP_SYS_MODULE", "ambient"), True, "low", "capability", "process.capabilities.ambient[0]"),
    (capability("CAP_MKNOD", "permitted"), True, "info", "capability", "process.capabilities.permitted[0]"),
    (capability("CAP_NET_ADMIN"), True, "medium", "capability", "process.capabilities.bounding[0]"),
    (
        capability("CAP_CHOWN", "inheritable"),
        True,
        "medium",
        "inheritable-capabilities",
        "process.capabilities.inheritable",
    ),
    (capability("CAP_CHOWN", "ambient"), True, "low", "ambient-capabilities", "process.capabilities.ambient"),
    (process(user={"uid": 0, "gid": 0}), False, "medium", "root-user", "process.user.uid"),
    (process(user={"uid": 5}), False, "low", "root-group", "process.user.gid"),
    (
        process(user={"uid": 5, "gid": 5, "additionalGids": [4, 0]}),
        False,
        "low",
        "root-group",
        "process.user.additionalGids[1]",
    ),
    (
        lambda c: (c["process"].pop("noNewPrivileges"), c.pop("annotations")),
        True,
        "medium",
        "no-new-privileges",
        "process.noNewPrivileges",
    ),
    (process(user={"uid": 5, "gid": 5, "umask": 0}), True, "low", "umask", "process.user.umask"),
    (process(oomScoreAdj=-1), True, "low", "oom-score", "process.oomScoreAdj"),
    (process(oomScoreAdj=-1000), True, "medium", "oom-score", "process.oomScoreAdj"),
    (
        process(rlimits=[{"type": "RLIMIT_CORE", "soft": 0, "hard": NO_LIMIT}]),
        True,
        "low",
        "rlimit",
        "process.rlimits[0]",
    ),
    (
        process(rlimits=[{"type": "RLIMIT_NPROC", "soft": 1, "hard": NO_LIMIT}]),
        True,
        "low",
        "rlimit",
        "process.rlimits[0]",
    ),
    (process(env=["A=b", "db_Password=x"]), True, "info", "secret-in-environment", "process.env[1]"),
    (
        process(apparmorProfile="unconfined"),
        True,
        "medium",
        "apparmor-unconfined",
        "process.apparmorProfile",
    ),
    (
        process(selinuxLabel="system_u:system_r:spc_t:s0"),
        True,
        "medium",
        "selinux-unconfined",
        "process.selinuxLabel",
    ),
    (
        process(scheduler={"policy": "SCHED_FIFO", "priority": 1}),
        True,
        "medium",
        "real-time",
        "process.scheduler.policy",
    ),
    (
        process(ioPriority={"class": "IOPRIO_CLASS_RT", "priority": 0}),
        True,
        "low",
        "real-time",
        "process.ioPriority.class",
    ),
    (
        lambda c: c["annotations"].update({"run.oci.keep_original_groups": "1"}),
        True,
        "low",
        "kept-groups",
        'annotations["run.oci.keep_original_groups"]',
    ),
    (without("pid"), True, "high", "host-namespace", "linux.namespaces"),
    (without("network"), True, "medium", "host-namespace", "linux.namespaces"),
    (without("ipc"), True, "medium", "host-namespace", "linux.namespaces"),
    (joined("pid", "/proc/1/ns/pid"), True, "high", "host-namespace", "linux.namespaces[0].path"),
    (joined("cgroup", "/proc/self/ns/cgroup"), True, "low", "host-namespace", "linux.namespaces[5].path"),
    (
        lambda c: (
            without("mount")(c),
            c["linux"].pop("maskedPaths"),
            c["linux"].pop("readonlyPaths"),
        ),
        True,
        "high",
        "host-namespace",
        "linux.namespaces",
    ),
    (
        lambda c: (without("uts")(c), c.pop("hostname")),
        True,
        "low",
        "host-namespace",
        "linux.namespaces",
    ),
    (
        linux(gidMappings=[{"containerID": 0, "hostID": 0, "size": 2000}]),
        True,
        "medium",
        "host-root-mapped",
        "linux.gidMappings[0].hostID",
    ),
    (lambda c: c["linux"].pop("seccomp"), True, "medium", "no-seccomp", "linux.seccomp"),
    (
        seccomp(defaultAction="SCMP_ACT_LOG", defaultErrnoRet=None),
        True,
        "medium",
        "seccomp-default-allow",
        "linux.seccomp.defaultAction",
    ),
    (
        seccomp(syscalls=[{"names": ["read", "bpf"], "action": "SCMP_ACT_ALLOW"}]),
        True,
        "low",
        "seccomp-call",
        "linux.seccomp.syscalls[0].names",
    ),
    (linux(maskedPaths=[]), True, "medium", "masked-paths", "linux.maskedPaths"),
    (linux(maskedPaths=["/proc/kcore"]), True, "low", "masked-paths", "linux.maskedPaths"),
    (linux(readonlyPaths=[]), False, "high", "readonly-paths", "linux.readonlyPaths"),
    (linux(readonlyPaths=["/proc/sys/"]), True, "low", "readonly-paths", "linux.readonlyPaths"),
    (rule(), True, "high", "device-rules", "linux.resources.devices[1]"),
    (rule(type="c", access="r"), True, "high", "device-rules", "linux.resources.devices[1]"),
    (rule(type="b", major=8, access="w"), True, "high", "device-rules", "linux.resources.devices[1]"),
    (rule(type="c", major=1, minor=1), True, "high", "device-rules", "linux.resources.devices[1]"),
    (resources(devices=[]), False, "medium", "device-rules", "linux.resources.devices"),
    (device("b", 8, 0), True, "high", "device", "linux.devices[0]"),
    (device("c", 1, 11), True, "medium", "device", "linux.devices[0]"),
    (resources(memory={"limit": -1}), True, "low", "no-memory-limit", "linux.resources.memory.limit"),
    (
        resources(memory={"limit": 1 << 20, "disableOOMKiller": True}),
        True,
        "medium",
        "oom-killer-off",
        "linux.resources.memory.disableOOMKiller",
    ),
    (resources(pids={"limit": 0}), True, "low", "no-pids-limit", "linux.resources.pids.limit"),
    (
        linux(sysctl={"net.ipv4.conf.all.route_localnet": "1"}),
        True,
        "medium",
        "sysctl",
        'linux.sysctl["net.ipv4.conf.all.route_localnet"]',
    ),
    (linux(rootfsPropagation="rshared"), True, "medium", "shared-propagation", "linux.rootfsPropagation"),
    (hook("/tmp/x"), True, "high", "hook-place", "hooks.poststop[0].path"),
    (hook("/opt/../dev/shm/x", "prestart"), True, "high", "hook-place", "hooks.prestart[0].path"),
    (
        lambda c: (hook("/rootfs/bin/x")(c), c["root"].update(path="/rootfs")),
        True,
        "high",
        "hook-place",
        "hooks.poststop[0].path",
    ),
    (
        lambda c: (hook("/srv/data/hook")(c), mounts(bind("/d", "/srv/data"))(c)),
        True,
        "high",
        "hook-place",
        "hooks.poststop[0].path",
    ),
    (mounts(bind("/s", "/var/run/docker.sock", "ro")), True, "high", "engine-socket", HERE),
    (mounts(bind("/s", "/run/user/1000/podman/podman.sock")), True, "high", "engine-socket", HERE),
    (mounts(bind("/s", "/run/")), True, "high", "engine-socket", HERE),
    (mounts(bind("/s", "/run/user/1000/bus")), True, "medium", "engine-socket", HERE),
    (mounts(bind("/h", "/")), True, "high", "host-path", HERE),
    (mounts(bind("/h", "//./", "ro")), True, "medium", "host-path", HERE),
    (mounts(bind("/h", "/etc/ssl/..", "rw")), True, "high", "host-path", HERE),
    (mounts(bind("/h", "/etc/hosts", "ro")), True, "low", "host-path", HERE),
    (mounts(bind("/h", "/etc/shadow", "rro")), True, "high", "host-path", HERE),
    (mounts(bind("/h", "/etc", "ro", "rw")), True, "high", "host-path", HERE),
    (mounts(bind("/h", "/sys", "ro")), True, "info", "host-path", HERE),
    (mounts(mount("/h", "bind", "/usr/lib")), True, "high", "host-path", HERE),
    (mounts(bind("/h", "/dev/pts")), True, "high", "host-path", HERE),
    (mounts(bind("/h", "/dev/nvme0n1", "ro")), True, "high", "host-disk", HERE),
    (mounts(mount("/h", "ext4", "/dev/sda1")), False, "high", "host-disk", HERE),
    (mounts(mount("/h", "ext4", "/dev/disk/by-label/x")), False, "high", "host-disk", HERE),
    (mounts(mount("/h", "overlay", "o", "lowerdir=/srv/x:/")), False, "medium", "host-path", LAYER),
    (mounts(mount("/h", "overlay", "o", "upperdir=/etc")), False, "high", "host-path", LAYER),
    (mounts(bind("/h", "/home/me/.ssh/id", "ro")), True, "medium", "home-secrets", HERE),
    (mounts(bind("/h", "/home/me")), True, "high", "home-secrets", HERE),
    (mounts(bind("/h", "/srv/x", "rshared")), True, "medium", "mount-propagation", "mounts[9].options"),
    (mounts(mount("/k", "debugfs", "d")), False, "high", "kernel-filesystem", "mounts[9].type"),
    (mounts(mount("/k", "cgroup", "c")), True, "medium", "kernel-filesystem", "mounts[9]"),
    (mounts(mount("/k", "sysfs", "s")), True, "low", "kernel-filesystem", "mounts[9]"),
    (mounts(mount("/t", "tmpfs", "t")), True, "low", "tmpfs-size", "mounts[9].options"),
    (lambda c: c["root"].update(readonly=False), True, "info", "rootfs", "root.readonly"),
    (lambda c: c["root"].update(path="/usr/"), True, "high", "rootfs", "root.path"),
]  # fmt: skip


@pytest.mark.covers("lint")
@pytest.mark.parametrize(("change", "userns", "severity", "name", "path"), DANGEROUS)
def test_what_is_dangerous_is_named_with_its_path(change, userns, severity, name, path):
    assert (severity, name, path) in after(change, userns=userns)


# Near misses: (change, in a user namespace, rule that must be silent)
HARMLESS: list[tuple[Change, bool, str]] = [
    (capability("CAP_CHOWN"), False, "capability"),
    (capability("CAP_OF_TOMORROW"), False, "capability"),
    (process(user={"uid": 0, "gid": 0}), True, "root-user"),
    (process(user={"uid": 5, "gid": 5}), False, "root-user"),
    (process(user={"uid": 5, "gid": 5, "additionalGids": [4]}), False, "root-group"),
    (process(user={"uid": 5, "umask": 0o022}), True, "umask"),
    (process(oomScoreAdj=0), True, "oom-score"),
    (process(rlimits=[{"type": "RLIMIT_CORE", "soft": 0, "hard": 5}]), True, "rlimit"),
    (process(env=["TOKEN=", "PATH=/secret", "A==PASSWORD"]), True, "secret-in-environment"),
    (process(apparmorProfile="mine"), True, "apparmor-unconfined"),
    (process(selinuxLabel="system_u:system_r:container_t:s0"), True, "selinux-unconfined"),
    (process(scheduler={"policy": "SCHED_BATCH"}), True, "real-time"),
    (joined("network", "/run/netns/mine"), True, "host-namespace"),
    (seccomp(syscalls=[{"names": ["bpf"], "action": "SCMP_ACT_ERRNO"}]), True, "seccomp-call"),
    (
        seccomp(
            syscalls=[
                {
                    "names": ["keyctl"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
                }
            ]
        ),
        True,
        "seccomp-call",
    ),
    (linux(maskedPaths=["/proc", "/sys/firmware/"]), True, "masked-paths"),
    (linux(readonlyPaths=["/proc"]), False, "readonly-paths"),
    (rule(type="b", access="m"), False, "device-rules"),
    (rule(type="c", major=1, minor=3), False, "device-rules"),
    (resources(devices=[]), True, "device-rules"),
    (device("c", 1, 3), True, "device"),
    (device("p", 8, 0), True, "device"),
    (resources(memory={}, unified={"memory.max": "1000"}), True, "no-memory-limit"),
    (resources(pids={}, unified={"pids.max": "10"}), True, "no-pids-limit"),
    (linux(sysctl={"net.ipv4.ip_forward": "0", "kernel.msgmax": "1"}), True, "sysctl"),
    (linux(rootfsPropagation="rslave"), True, "shared-propagation"),
    (hook("/usr/bin/x"), True, "hook-place"),
    (hook("/tmp/x", "startContainer"), True, "hook-place"),
    (hook("/tmpfile"), True, "hook-place"),
    (lambda c: (hook("/srv/h")(c), mounts(bind("/d", "/srv", "ro"))(c)), True, "hook-place"),
    (mounts(bind("/s", "/srv/docker.sock.txt")), True, "engine-socket"),
    (mounts(mount("/s", "tmpfs", "docker.sock")), True, "engine-socket"),
    (mounts(bind("/h", "/home/me/project")), True, "home-secrets"),
    (mounts(bind("/h", "/home/me/project")), True, "host-path"),
    (mounts(bind("/h", "/etcetera")), True, "host-path"),
    (mounts(bind("/h", "/usr/share", "ro")), True, "host-path"),
    (mounts(bind("/h", "/dev/null")), True, "host-disk"),
    (mounts(mount("/h", "tmpfs", "/etc")), True, "host-path"),
    (mounts(bind("/h", "data")), True, "host-path"),
    (mounts(mount("/h", "tmpfs", "/dev/sda")), True, "host-disk"),
    (mounts(mount("/h", "overlay", "/etc", "lowerdir=/srv/a:/srv/b", "workdir=/etc")), False, "host-path"),
    (mounts(bind("/h", "/srv/x", "rslave")), True, "mount-propagation"),
    (mounts(mount("/k", "cgroup", "c", "ro")), True, "kernel-filesystem"),
    (mounts(mount("/t", "tmpfs", "t", "size=1m")), True, "tmpfs-size"),
    (lambda c: c["root"].update(path="/srv/usr"), True, "rootfs"),
]


@pytest.mark.parametrize(("change", "userns", "name"), HARMLESS)
def test_what_only_looks_like_it_is_not_named(change, userns, name):
    assert name not in [rule for _, rule, _ in after(change, userns=userns)]


def test_every_rule_is_tried_both_ways():
    names = {row[0] for row in RULES}
    assert names - {row[3] for row in DANGEROUS} == {"no-user-namespace", "file-permissions"}
    assert len(names) == len(RULES) and all(re.fullmatch("[a-z-]+", name) for name in names)
    assert all(row[1] in LEVELS and row[4] and (row[3] or row[0] == "host-namespace") for row in RULES)


def test_ids_that_are_the_host_s_are_named_once():
    config = hardened()
    config["linux"]["namespaces"].pop()
    for key in ("uidMappings", "gidMappings", "sysctl"):
        del config["linux"][key]
    assert found(config) == [("low", "no-user-namespace", "linux.namespaces")]


def test_the_hardened_config_has_no_finding():
    assert found(hardened()) == []


def test_the_written_configs_have_nothing_that_fails_by_default():
    for config in (default_spec(), rootless(default_spec(), 1000, 1000, cgroup2=True)):
        listed = found(config)
        assert listed and all(severity != "high" for severity, _, _ in listed) and len(listed) < 10


def test_an_engine_s_default_has_few_findings():
    config = default_spec(cgroup2=True)
    names = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE"
    listed = [f"CAP_{name}" for name in f"{names} SYS_CHROOT KILL AUDIT_WRITE".split()]
    config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), listed)
    config["process"]["noNewPrivileges"] = False
    config["root"]["readonly"] = False
    config["linux"]["seccomp"] = engine_profiles.docker()
    assert {name for _, name, _ in found(config)} == {
        *("root-user", "no-new-privileges", "capability", "no-memory-limit", "no-pids-limit", "rootfs")
    }
    assert {severity for severity, _, _ in found(config)} == {"medium", "low", "info"}


def test_a_privileged_container_is_full_of_them():
    config = default_spec()
    config["process"]["capabilities"] = {"bounding": ["CAP_SYS_ADMIN", "CAP_SYS_MODULE"]}
    config["linux"].update(maskedPaths=[], readonlyPaths=[], seccomp=None)
    config["linux"]["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
    config["mounts"].append(bind("/host", "/", "rslave"))
    high = [(name, path) for severity, name, path in found(config) if severity == "high"]
    assert {name for name, _ in high} == {"capability", "readonly-paths", "device-rules", "host-path"}


def test_a_rootfs_that_is_the_host_s_is_named_however_the_config_writes_it():
    """Such as "../../../..": the place is where the bundle's leads to."""
    place = Place("root", "/", link=False, mode=0o40755, trusted=True)
    data = from_bytes(json.dumps(hardened()).encode(), "/bundle").data
    assert [(item.severity, item.path) for item in lint(data, [place])] == [("high", "root.path")]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (Place("root", "/r", link=False, mode=0o40755, trusted=False), []),
        (Place("root", "/r", link=True, mode=0o40755, trusted=True), [("medium", "root.path")]),
        (Place("root", "/r", link=False, mode=0o40777, trusted=True), [("high", "root.path")]),
        (Place("root", "/r", link=False, mode=0o41777, trusted=True), [("low", "root.path")]),
        (Place("config", "/c", link=False, mode=0o100666, trusted=True), [("high", "config.json")]),
        (Place("config", "/c", link=False, mode=0o100664, trusted=True), [("low", "config.json")]),
        (Place("config", "/c", link=False, mode=0o100644, trusted=False), [("medium", "config.json")]),
        (Place("config", "/c", link=True, mode=0o100644, trusted=True), []),
    ],
)
def test_files_that_others_can_change_are_named(place, expected):
    data = from_bytes(json.dumps(hardened()).encode(), "/bundle").data
    listed = [(item.severity, item.path) for item in lint(data, [place]) if item.rule == "file-permissions"]
    assert listed == expected


def test_no_value_of_the_environment_is_shown():
    config = hardened()
    config["process"]["env"].append("API_TOKEN=hunter2")
    data = from_bytes(json.dumps(config).encode(), "/bundle").data
    assert "hunter2" not in json.dumps([item.as_dict() for item in lint(data)])


def _hostile(value: Any) -> list[Any]:
    """Values of the same kind, odd ones."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, str):
        return ["", "/", "\x1b[31m\n", "é" * 300, "../..", "a:b", "a::::", "=", "/proc/1/ns/pid", "1" * 40]
    if isinstance(value, int):
        return [0, -1, 1, 1 << 31, (1 << 63) - 1]
    if isinstance(value, list):
        return [[], value + value]
    return [{}, None]


def _each_place(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = (
        list(node.items())
        if isinstance(node, dict)
        else list(enumerate(node))
        if isinstance(node, list)
        else []
    )
    return [(*path, key) for key, _ in inner] + [
        place for key, value in inner for place in _each_place(value, (*path, key))
    ]


@pytest.mark.parametrize("base", [configs.valid, hardened])
def test_no_config_that_rt_accepts_makes_a_rule_stumble(base):
    tried = 0
    for place in _each_place(base()):
        if place[:3] == ("linux", "seccomp", "syscalls") and len(place) > 5:
            continue
        for value in _hostile(_at(base(), place)):
            config = base()
            _at(config, place[:-1])[place[-1]] = value
            try:
                data = from_bytes(json.dumps(config).encode(), "/bundle").data
            except SpecError:
                continue
            tried += 1
            for item in lint(data):
                assert item.severity in LEVELS and item.path and item.what and item.why and item.fix
    assert tried > 300


def _at(node: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        node = node[key]
    return node
