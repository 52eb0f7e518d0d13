"""Every kind of wrong value in a config.json, and the exact JSON path that the error names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import configs

from rootless_rt.errors import RtError, SpecError
from rootless_rt.spec import schema
from rootless_rt.spec.load import checked, from_bytes

DELETED = "<deleted>"  # a text: parallel runs name tests by their values


NOTIFYING = {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}


def changed(*path: str | int, to: object) -> dict[str, Any]:
    """The valid config with one value replaced, appended (index of the end) or deleted."""
    config = configs.valid()
    place: Any = config
    for step in path[:-1]:
        place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
    last: Any = path[-1]
    if to is DELETED:
        del place[last]
    elif isinstance(place, list) and last == len(place):
        place.append(to)
    else:
        place[last] = to
    return config


def error_of(config: object) -> SpecError:
    with pytest.raises(SpecError) as caught:
        from_bytes(configs.as_bytes(config), "/bundle")
    assert "\n" not in caught.value.message
    return caught.value


WRONG_TYPES: list[tuple[tuple[str | int, ...], object, str, str]] = [
    (("ociVersion",), 1, "ociVersion", "expected a string, got an integer"),
    (("ociVersion",), DELETED, "ociVersion", "required, but missing"),
    (("ociVersion",), None, "ociVersion", "required, but missing"),
    (("root",), DELETED, "root", "required, but missing"),
    (("root", "path"), DELETED, "root.path", "required, but missing"),
    (("root", "readonly"), 1, "root.readonly", "expected true or false, got an integer"),
    (("process",), DELETED, "process", "required, but missing"),
    (("process",), [], "process", "expected an object, got an array"),
    (
        ("process", "user", "uid"),
        "0",
        "process.user.uid",
        "expected an integer from 0 to 4294967295, got a string",
    ),
    (("process", "user", "uid"), True, "process.user.uid", "got a boolean"),
    (("process", "user", "uid"), -1, "process.user.uid", "got -1"),
    (("process", "user", "uid"), 1 << 32, "process.user.uid", "got 4294967296"),
    (("process", "user", "uid"), 10**4000, "process.user.uid", "got a far larger one"),
    (("process", "user", "gid"), 0.0, "process.user.gid", "got a number with a fraction or exponent"),
    (("process", "user", "additionalGids"), [1, "2"], "process.user.additionalGids[1]", "got a string"),
    (("process", "user", "umask"), 0o1000, "process.user.umask", "from 0 to 511"),
    (("process", "args"), "sh", "process.args", "expected an array, got a string"),
    (("process", "args"), ["sh", 1], "process.args[1]", "expected a string, got an integer"),
    (("process", "args"), ["sh", None], "process.args[1]", "expected a string, got null"),
    (("process", "env", 2), ["A=1"], "process.env[2]", "expected a string, got an array"),
    (("process", "capabilities"), ["CAP_KILL"], "process.capabilities", "expected an object"),
    (("process", "capabilities", "bounding", 1), 5, "process.capabilities.bounding[1]", "expected a string"),
    (("process", "rlimits", 0, "type"), "NOFILE", "process.rlimits[0].type", 'unknown name "NOFILE"'),
    (("process", "rlimits", 0, "soft"), -1, "process.rlimits[0].soft", "to 18446744073709551615"),
    (("process", "oomScoreAdj"), 1001, "process.oomScoreAdj", "from -1000 to 1000"),
    (("process", "consoleSize"), {"height": 1}, "process.consoleSize.width", "required"),
    (("mounts",), {}, "mounts", "expected an array, got an object"),
    (("mounts", 3), "x", "mounts[3]", "expected an object, got a string"),
    (("mounts", 3, "options", 1), 7, "mounts[3].options[1]", "expected a string, got an integer"),
    (("mounts", 3, "destination"), DELETED, "mounts[3].destination", "required"),
    (("hooks", "poststop", 0, "timeout"), "5", "hooks.poststop[0].timeout", "got a string"),
    (("hooks", "prestart"), [{}], "hooks.prestart[0].path", "required"),
    (("annotations", "a.b"), 1, 'annotations["a.b"]', "expected a string"),
    (("linux", "sysctl", "net.core.somaxconn"), 1, 'linux.sysctl["net.core.somaxconn"]', "got an integer"),
    (("linux", "namespaces", 1, "type"), "net", "linux.namespaces[1].type", 'got "net"'),
    (("linux", "namespaces", 1, "type"), 3, "linux.namespaces[1].type", "got an integer"),
    (("linux", "uidMappings", 0, "hostID"), 1.5, "linux.uidMappings[0].hostID", "fraction"),
    (("linux", "uidMappings", 0, "size"), DELETED, "linux.uidMappings[0].size", "required"),
    (("linux", "rootfsPropagation"), "slaves", "linux.rootfsPropagation", "slaves"),
    (
        ("linux", "devices", 0, "type"),
        "a",
        "linux.devices[0].type",
        'expected one of "b", "c", "p", "u", got "a"',
    ),
    (("linux", "resources", "devices", 0, "type"), "u", "linux.resources.devices[0].type", 'got "u"'),
    (("linux", "resources", "memory", "limit"), "1G", "linux.resources.memory.limit", "got a string"),
    (("linux", "seccomp", "architectures", 0), "x86", "linux.seccomp.architectures[0]", "unknown name"),
    (("linux", "seccomp", "flags", 0), "X", "linux.seccomp.flags[0]", 'got "X"'),
    (("linux", "seccomp", "syscalls", 0, "action"), "X", "linux.seccomp.syscalls[0].action", "unknown name"),
    (("linux", "seccomp", "syscalls", 0, "names", 1), {}, "linux.seccomp.syscalls[0].names[1]", "an object"),
    (
        ("linux", "seccomp", "syscalls", 0, "args", 0, "index"),
        6,
        "linux.seccomp.syscalls[0].args[0].index",
        "0 to 5",
    ),
    (
        ("linux", "seccomp", "syscalls", 0, "args", 0, "op"),
        "EQ",
        "linux.seccomp.syscalls[0].args[0].op",
        "got",
    ),
    (("hostname",), "a\0b", "hostname", "cannot hold U+0000"),
    (("process", "args", 0), "\ud800", "process.args[0]", "lone surrogate"),
    (("process", "args", 0), "\udfff", "process.args[0]", "lone surrogate"),
    (("annotations", "a\0b"), "x", 'annotations["a\\u0000b"]', "U+0000"),
]


@pytest.mark.parametrize(
    ("path", "value", "where", "problem"), WRONG_TYPES, ids=lambda value: repr(value)[:40]
)
def test_a_wrong_type_or_name_is_reported_with_its_path(
    path: tuple[str | int, ...], value: object, where: str, problem: str
) -> None:
    error = error_of(changed(*path, to=value))
    assert error.path == where
    assert problem in error.message


RULES: list[tuple[tuple[str | int, ...], object, str, str]] = [
    (("ociVersion",), "2.0.0", "ociVersion", "not supported"),
    (("ociVersion",), "0.9.0", "ociVersion", "not supported"),
    (("ociVersion",), "1", "ociVersion", "not a version"),
    (("ociVersion",), "1. 0.0", "ociVersion", "not a version"),
    (("ociVersion",), "1.0.٢", "ociVersion", "not a version"),
    (("root", "path"), "", "root.path", "empty"),
    (
        ("linux", "timeOffsets"),
        {"monotonic": {"secs": 5}},
        'linux.timeOffsets["monotonic"]',
        "time namespace",
    ),
    (("linux", "timeOffsets"), {"realtime": {"secs": 5}}, 'linux.timeOffsets["realtime"]', "no such clock"),
    (
        ("mounts", 2, "uidMappings"),
        [{"containerID": 0, "hostID": 0, "size": 1}],
        "mounts[2].gidMappings",
        "is needed",
    ),
    (("mounts", 1, "options", 1), "idmap=uids=0-1-1", "mounts[1]", "only a bind mount"),
    (("process", "args"), [], "process.args", "at least one"),
    (("process", "args"), None, "process.args", "at least one"),
    (("process", "args", 0), "", "process.args[0]", "empty"),
    (("process", "cwd"), "tmp", "process.cwd", "absolute"),
    (("process", "cwd"), "", "process.cwd", "absolute"),
    (("process", "env", 0), "PATH", "process.env[0]", "NAME=value"),
    (("process", "env", 1), "=x", "process.env[1]", "NAME=value"),
    (("process", "user", "uid"), 0xFFFFFFFF, "process.user.uid", "-1"),
    (("process", "user", "additionalGids"), [5, 0xFFFFFFFF], "process.user.additionalGids[1]", "-1"),
    (("process", "rlimits", 0, "soft"), 2048, "process.rlimits[0].soft", "above the hard limit 1024"),
    (
        ("process", "rlimits", 1),
        {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1},
        "process.rlimits[1].type",
        "a second RLIMIT_NOFILE",
    ),
    (("hostname",), "x" * 65, "hostname", "64 bytes"),
    (("mounts", 0, "destination"), "", "mounts[0].destination", "empty"),
    (
        ("mounts", 0),
        {"destination": "/x", "type": "bind", "options": ["ro"]},
        "mounts[0].source",
        "needs a source",
    ),
    (
        ("mounts", 0),
        {"destination": "/x", "source": "/y", "options": ["rbind", "ro", "size=1"]},
        "mounts[0].options[2]",
        "takes no data",
    ),
    (("hooks", "poststop", 0, "path"), "true", "hooks.poststop[0].path", "absolute"),
    (("hooks", "poststop", 0, "timeout"), 0, "hooks.poststop[0].timeout", "at least 1"),
    (("linux", "namespaces", 0, "path"), "proc/1/ns/pid", "linux.namespaces[0].path", "absolute"),
    (("linux", "namespaces", 6), {"type": "pid"}, "linux.namespaces[6]", 'second "pid"'),
    (("linux", "namespaces", 3), {"type": "cgroup"}, "hostname", "uts namespace"),
    (("linux", "namespaces", 4), {"type": "cgroup"}, "linux.maskedPaths", "mount namespace"),
    (("linux", "namespaces", 5), {"type": "cgroup"}, "linux.uidMappings", "needs a user namespace"),
    (
        ("linux", "namespaces", 1),
        {"type": "cgroup"},
        'linux.sysctl["net.ipv4.ip_forward"]',
        "network namespace",
    ),
    (("linux", "uidMappings"), [], "linux.uidMappings", "at least one mapping"),
    (("linux", "gidMappings"), DELETED, "linux.gidMappings", "at least one mapping"),
    (("linux", "uidMappings", 0, "size"), 0, "linux.uidMappings[0].size", "at least 1"),
    (("linux", "uidMappings", 0, "size"), 0xFFFFFFFF, "linux.uidMappings[0]", "beyond the last id"),
    (
        ("linux", "uidMappings", 1),
        {"containerID": 0, "hostID": 5, "size": 2},
        "linux.uidMappings[1]",
        "containerID range overlaps that of linux.uidMappings[0]",
    ),
    (
        ("linux", "gidMappings", 1),
        {"containerID": 1, "hostID": 999, "size": 2},
        "linux.gidMappings[0]",
        "hostID range overlaps that of linux.gidMappings[1]",
    ),
    (("linux", "sysctl", "kernel.hostname"), "x", 'linux.sysctl["kernel.hostname"]', "cannot be set"),
    (("linux", "sysctl", "kernel.core_pattern"), "x", 'linux.sysctl["kernel.core_pattern"]', "whole host"),
    (("linux", "sysctl", "net.."), "x", 'linux.sysctl["net.."]', "whole host"),
    (
        ("linux", "sysctl", "net/../kernel/core_pattern"),
        "x",
        'linux.sysctl["net/../kernel/core_pattern"]',
        "host",
    ),
    (
        ("linux", "sysctl", "net.//.kernel.core_pattern"),
        "x",
        'linux.sysctl["net.//.kernel.core_pattern"]',
        "host",
    ),
    (("linux", "sysctl", "fs.mqueue"), "x", 'linux.sysctl["fs.mqueue"]', "whole host"),
    (("linux", "sysctl", "kernel"), "x", 'linux.sysctl["kernel"]', "whole host"),
    (("linux", "maskedPaths", 0), "proc/acpi", "linux.maskedPaths[0]", "absolute"),
    (("linux", "readonlyPaths", 1), "", "linux.readonlyPaths[1]", "absolute"),
    (("linux", "devices", 0, "path"), "dev/fuse", "linux.devices[0].path", "absolute"),
    (("linux", "devices", 0, "major"), DELETED, "linux.devices[0].major", "needs it"),
    (("linux", "devices", 0, "minor"), 1 << 20, "linux.devices[0].minor", "from 0 to 1048575"),
    (("linux", "devices", 0, "major"), -1, "linux.devices[0].major", "from 0 to 4095"),
    (("linux", "resources", "devices", 0, "access"), "rwx", "linux.resources.devices[0].access", "rwm"),
    (("linux", "resources", "devices", 0, "major"), -2, "linux.resources.devices[0].major", "-1 (any)"),
    (("linux", "seccomp", "syscalls", 0, "names"), [], "linux.seccomp.syscalls[0].names", "at least one"),
    (
        ("linux", "seccomp", "defaultAction"),
        "SCMP_ACT_NOTIFY",
        "linux.seccomp.defaultAction",
        "default action",
    ),
    # Its names hold write.
    (
        ("linux", "seccomp", "syscalls", 0, "action"),
        "SCMP_ACT_NOTIFY",
        "linux.seccomp.syscalls[0].action",
        "write",
    ),
    (("linux", "seccomp", "syscalls", 0), NOTIFYING, "linux.seccomp.listenerPath", "needs it"),
    (
        ("linux", "seccomp"),
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [NOTIFYING], "listenerPath": "agent.sock"},
        "linux.seccomp.listenerPath",
        "absolute",
    ),
    (
        ("linux", "seccomp"),
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [NOTIFYING], "listenerPath": ""},
        "linux.seccomp.listenerPath",
        "needs it",
    ),
]


@pytest.mark.parametrize(("path", "value", "where", "problem"), RULES, ids=lambda value: repr(value)[:40])
def test_a_value_that_makes_no_sense_is_reported_with_its_path(
    path: tuple[str | int, ...], value: object, where: str, problem: str
) -> None:
    error = error_of(changed(*path, to=value))
    assert error.path == where
    assert problem in error.message


def test_values_that_ask_for_nothing_are_accepted() -> None:
    config = configs.valid()
    config["process"].update(apparmorProfile="", selinuxLabel="", scheduler=None, ioPriority={})
    config["linux"].update(intelRdt={}, timeOffsets={}, netDevices=None, mountLabel="")
    config["linux"]["resources"].update(
        memory={"limit": 0, "swap": -1, "disableOOMKiller": False},
        cpu={"shares": 0, "cpus": "", "idle": None},
        pids={"limit": -1},
        blockIO={"weight": 0, "weightDevice": []},
        hugepageLimits=[],
        unified={},
    )
    from_bytes(configs.as_bytes(config), "/bundle")


def test_unknown_fields_and_other_systems_are_ignored() -> None:
    config = configs.valid()
    config["windows"] = {"layerFolders": 5}
    config["vm"] = []
    config["process"]["user"]["username"] = 7
    config["linux"]["resources"]["future"] = {"x": [1]}
    from_bytes(configs.as_bytes(config), "/bundle")


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.3.0+dev", "1.12.7-rc.1"])
@pytest.mark.covers("ociVersion")
def test_every_version_1_is_accepted(version: str) -> None:
    from_bytes(configs.as_bytes(changed("ociVersion", to=version)), "/bundle")


def test_null_counts_as_absent_and_is_gone_afterwards() -> None:
    spec = from_bytes(configs.as_bytes(changed("process", "rlimits", to=None)), "/bundle")
    assert "rlimits" not in spec.data["process"]


def test_escaped_pairs_and_non_ascii_strings_are_accepted() -> None:
    config = changed("process", "args", 0, to="\U0001f40d\u00e9")
    data = json.dumps(config).encode()
    assert b"\\ud83d" in data
    assert from_bytes(data, "/bundle").data["process"]["args"] == ["\U0001f40d\u00e9"]


def test_unknown_capabilities_and_relative_destinations_are_noted() -> None:
    config = changed("process", "capabilities", "ambient", to=["CAP_MAGIC"])
    config["mounts"][0]["destination"] = "proc"
    notes = dict(from_bytes(configs.as_bytes(config), "/bundle").notes)
    assert "CAP_MAGIC" in notes["process.capabilities.ambient[0]"]
    assert "relative" in notes["mounts[0].destination"]


def test_metadata_for_no_listener_is_noted() -> None:
    spec = from_bytes(configs.as_bytes(changed("linux", "seccomp", "listenerMetadata", to="x")), "/bundle")
    assert [path for path, _ in spec.notes] == ["linux.seccomp.listenerMetadata"]


def test_a_listener_path_that_nothing_needs_is_accepted() -> None:
    for path in ("/run/agent.sock", "agent.sock", ""):
        from_bytes(configs.as_bytes(changed("linux", "seccomp", "listenerPath", to=path)), "/bundle")


def test_a_joined_user_namespace_needs_no_mappings() -> None:
    config = changed("linux", "namespaces", 5, to={"type": "user", "path": "/proc/1/ns/user"})
    del config["linux"]["uidMappings"], config["linux"]["gidMappings"]
    from_bytes(configs.as_bytes(config), "/bundle")


def test_a_process_file_is_checked_with_its_own_paths() -> None:
    with pytest.raises(SpecError) as caught:
        checked(b'{"cwd": "/", "args": [1]}', "process.json", schema.PROCESS)
    assert caught.value.path == "args[0]"


@pytest.mark.parametrize("document", [b"[]", b"1", b"null", b'"x"', b"{}"])
def test_a_document_that_is_no_config_is_refused(document: bytes) -> None:
    with pytest.raises(SpecError):
        from_bytes(document, "/bundle")


def places(value: Any, found: list[Any] | None = None) -> list[tuple[Any, Any]]:
    found = [] if found is None else found
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        if isinstance(value[key], (dict, list)):
            places(value[key], found)
    return found


scalars: Any = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.just("\ud800")
)
anything: Any = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_a_config_with_random_values_is_accepted_or_an_rt_error(data: st.DataObject) -> None:
    config = configs.valid()
    for _ in range(data.draw(st.integers(1, 3))):
        owner, key = data.draw(st.sampled_from(places(config)))
        owner[key] = data.draw(anything)
    try:
        from_bytes(json.dumps(config).encode(), "/bundle")
    except RtError as error:
        assert error.message.isprintable()
        assert error.hint is None or error.hint.isprintable()


@given(st.data())
def test_a_config_cut_or_damaged_anywhere_is_accepted_or_an_rt_error(data: st.DataObject) -> None:
    raw = bytearray(configs.as_bytes(configs.valid()))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        from_bytes(bytes(raw[: data.draw(st.sampled_from([len(raw), place]))]), "/bundle")
    except RtError as error:
        assert "\n" not in error.message
