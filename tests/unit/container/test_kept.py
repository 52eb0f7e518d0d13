"""What is kept of a plan for the launcher, when nothing is, and what it is tied to."""

from __future__ import annotations

import os
import posix
import sys
from collections.abc import Sequence
from pathlib import Path
from socket import AF_UNIX, socket
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.bundles import plain_config, rootless_config
from lab.tree import TREE

from rootless_rt.cgroups.host import CgroupView
from rootless_rt.cgroups.none import NoCgroup
from rootless_rt.cgroups.v1 import V1
from rootless_rt.cgroups.v2 import V2
from rootless_rt.container import evidence, kept, kept_form
from rootless_rt.container.prepare import Options
from rootless_rt.host.facts import CgroupFacts, HostFacts
from rootless_rt.host.seccomp import SeccompFilter
from rootless_rt.plan.build import plan
from rootless_rt.plan.execute import exec_plan
from rootless_rt.plan.model import Degradation, Plan, Policy
from rootless_rt.plan.ops import Op, encode
from rootless_rt.spec.jsonio import dumps
from rootless_rt.spec.load import from_bytes
from rootless_rt.spec.names import NAMESPACES

IDS = st.text("abcXYZ019_+.-", min_size=1, max_size=40)


def made(container_id: str, **config: Any) -> Plan:
    document = rootless_config(1000, 1000, args=["true"]) | config
    facts = HostFacts(1000, 1000)
    facts.rlimits = {7: (1024, 4096)}
    facts.filter = SeccompFilter(b"\x06\0\0\0\0\0\xff\x7f", 0, cached=True, warnings=[])
    return plan(from_bytes(dumps(document).encode(), "/b"), facts, Policy(container_id, start_later=False))


def filled(wire: bytes, ids: bytes, container_id: str, *others: int, words: Sequence[str] = ()) -> bytes:
    """As kept_init.c, plan_for."""
    data = bytearray(wire)

    def number(at: int) -> int:
        return int.from_bytes(data[at : at + 4], sys.byteorder)

    def fill(op: int, field: int, text: bytes, count: int) -> None:
        at = field + 4 + (number(field) if count else 0)
        data[at:at] = text
        for place, more in ((8, len(text)), (op + 4, len(text)), (field, count)):
            data[place : place + 4] = (number(place) + more).to_bytes(4, sys.byteorder)

    if others:
        find_at, exec_at = others
        texts = [word.encode("utf-8", "surrogateescape") for word in words]
        listed = b"".join(len(text).to_bytes(4, sys.byteorder) + text + b"\0" for text in texts)
        fill(exec_at, exec_at + 8, listed, len(words))
        fill(find_at, find_at + 8, texts[0], len(texts[0]))
    places = [int.from_bytes(ids[at : at + 4], sys.byteorder) for at in range(0, len(ids), 4)]
    for op, field in reversed(list(zip(places[::2], places[1::2], strict=True))):
        fill(op, field, container_id.encode(), len(container_id))
    return bytes(data)


def test_the_header_is_generated_from_the_tables() -> None:
    hint = "python3 -m rootless_rt.container.kept_form > rootless_rt/cli/kept_tables.h"
    assert (TREE / "rootless_rt/cli/kept_tables.h").read_text() == kept_form.header(), hint


@settings(max_examples=50, deadline=None)
@given(IDS, IDS)
def test_a_plan_differs_by_the_id_only_where_it_is_filled_in(first: str, second: str) -> None:
    wire, ids = kept_form.without_id(made(first).ops, first)
    assert kept_form.without_id(made(second).ops, second) == (wire, ids) and len(ids) == 8
    assert filled(wire, ids, second) == encode(made(second).ops)


def confined(container_id: str) -> tuple[Plan, list[str]]:
    """A plan that shows the container's cgroups of v1 in it, and those."""
    facts = HostFacts()
    facts.rlimits = {7: (1024, 4096)}
    facts.capabilities = (1 << 41) - 1
    dirs = {name: f"/sys/fs/cgroup/{name}/{container_id}" for name in ("pids", "memory")}
    facts.cgroup = CgroupFacts("v1")
    facts.cgroup.container_dirs = dict(dirs)
    facts.cgroup.folders = {name: name for name in dirs}
    facts.cgroup.task_files = [path + "/tasks" for path in dirs.values()]
    spec = from_bytes(dumps(plain_config(args=["true"])).encode(), "/b")
    return plan(spec, facts, Policy(container_id, start_later=False)), list(dirs.values())


@settings(max_examples=50, deadline=None)
@given(IDS, IDS)
def test_the_paths_of_cgroups_end_with_the_id(first: str, second: str) -> None:
    wire, ids = kept_form.without_id(confined(first)[0].ops, first, confined(first)[1])
    assert kept_form.without_id(confined(second)[0].ops, second, confined(second)[1]) == (wire, ids)
    assert len(ids) == 8 * 3
    assert filled(wire, ids, second) == encode(confined(second)[0].ops)


def added(container_id: str, words: Sequence[str]) -> Plan:
    document = rootless_config(1000, 1000, args=list(words))
    facts = HostFacts(1000, 1000)
    facts.rlimits = {7: (1024, 4096)}
    joined = {kind: f"/proc/7/ns/{name}" for kind, (_, name) in NAMESPACES.items() if kind != "time"}
    spec = from_bytes(dumps(document).encode("utf-8", "surrogateescape"), "/b")
    return exec_plan(spec, facts, Policy(container_id), joined)


WORDS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))), max_size=4).map(
    lambda words: ["p", *words]
)


@settings(max_examples=100, deadline=None)
@given(IDS, WORDS, IDS, WORDS)
def test_a_plan_of_an_exec_differs_by_id_and_words_only_where_they_are_filled_in(
    first: str, words: list[str], second: str, others: list[str]
) -> None:
    others[0] += "".join(others)
    wire, ids, places = kept_form.without_words(added(first, words).ops, first)
    assert kept_form.without_words(added(second, others).ops, second) == (wire, ids, places)
    assert filled(wire, ids, second, *places, words=others) == encode(added(second, others).ops)


def test_a_plan_without_the_id_has_no_place_for_it() -> None:
    ops = [Op("dumpable", 1), Op("keyring", "another")]
    assert kept_form.without_id(ops, "c") == (encode(ops), b"")


def test_a_state_is_the_same_with_its_holes_filled() -> None:
    state: dict[str, Any] = {
        "version": 1, "id": "c", "phase": "created", "pid": 42, "startTime": "77", "bootId": "b",
        "created": "2026-01-01T00:00:00Z", "annotations": {"id": "c", "\x01": "\x02 é \udcff 1"},
        "maker": {"pid": 41, "startTime": "76", "bootId": "b"},
        "cgroup": {"kind": "v1", "paths": {"pids": "/p/c", "cpu": "/c/c"}},
    }  # fmt: skip
    fill = ("c", "created", "42", "77", "b", "2026-01-01T00:00:00Z", "41", "76")
    text = kept_form.with_holes(state, by_id=True)
    for index, word in enumerate(fill):
        assert text.count(bytes([1 + index])) == (3 if index == 0 else 1)
        text = text.replace(bytes([1 + index]), word.encode())
    assert text == dumps(state).encode("utf-8", "surrogateescape")


def test_no_two_bundles_share_a_file() -> None:
    assert len({kept_form.file_name(b"%d" % number) for number in range(2000)}) == 2000
    assert kept_form.file_name(b"a") == "af63dc4c8601ec8c"  # FNV-1a, 64 bits


# What is plain.


def situation(**config: Any) -> tuple[Any, Any, Options]:
    """A container, what was prepared for it, and its options: all plain."""
    found = made("c", **config)
    found.degradations.clear()  # these facts lack devices and cgroups
    options = Options()
    options.foreground, options.start_later = True, False
    document = rootless_config(1000, 1000, args=["true"]) | config
    prepared = SimpleNamespace(
        plan=found, spec=from_bytes(dumps(document).encode(), "/b"), facts=HostFacts(1000, 1000),
        cgroup=NoCgroup("none"), limits=[], outside=None,
    )  # fmt: skip
    return SimpleNamespace(served=None, console=-1), prepared, options


def test_a_plain_container_is_kept() -> None:
    assert kept.is_plain(*situation())


CHANGES: dict[str, Any] = {
    "served": lambda c, p, o: setattr(c, "served", object()),
    "a terminal": lambda c, p, o: setattr(c, "console", 5),
    "a cgroup of v2": lambda c, p, o: setattr(p, "cgroup", V2("/sys/fs/cgroup/c")),
    "a user's cgroup": lambda c, p, o: setattr(p, "cgroup", V1({"pids": "/sys/fs/cgroup/pids/c"})),
    "limits": lambda c, p, o: p.limits.append(object()),
    "work outside": lambda c, p, o: setattr(p, "outside", object()),
    "a degradation": lambda c, p, o: p.plan.degradations.append(Degradation("", "", "", "", id="x")),
    "a warning": lambda c, p, o: p.plan.warnings.append("odd"),
    "a descriptor": lambda c, p, o: p.plan.fds.append(("keep", "3")),
    "lent ids": lambda c, p, o: setattr(p.plan, "lent", True),
    "tuning": lambda c, p, o: p.plan.tuning.append(Op("dumpable", 1)),
    "no pid namespace": lambda c, p, o: setattr(p.plan, "own_pid", False),
    "a listener of seccomp": lambda c, p, o: p.plan.ops.append(Op("seccomp_listen", b"", 8)),
    "changes of the config": lambda c, p, o: p.spec.changes.append({}),
    "hooks": lambda c, p, o: p.spec.data.update(hooks={"poststop": [{"path": "/x"}]}),
    "a label": lambda c, p, o: setattr(p.facts, "lsm", object()),
    "joined namespaces": lambda c, p, o: p.facts.join_order.append(object()),
    "a scheduler": lambda c, p, o: p.spec.data["process"].update(scheduler={"policy": "SCHED_OTHER"}),
    "a place for a cgroup, and none": lambda c, p, o: p.spec.data["linux"].update(cgroupsPath="/x"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_takes_more_is_not_kept(name: str) -> None:
    container, prepared, options = situation()
    CHANGES[name](container, prepared, options)
    assert not kept.is_plain(container, prepared, options)


DENIED = [{"allow": False, "access": "rwm"}]
BESIDE = {"pids": "/sys/fs/cgroup/pids/c", "unified": "/sys/fs/cgroup/unified/c"}


@pytest.mark.parametrize(
    ("dirs", "rules", "plain"),
    [
        (BESIDE, [], True),
        (BESIDE, DENIED, False),
        (BESIDE | {"devices": "/sys/fs/cgroup/devices/c"}, DENIED, True),
    ],
)
def test_device_rules_that_are_a_program_are_not_kept(
    dirs: dict[str, str], rules: list[dict[str, Any]], plain: bool
) -> None:
    """Of cgroup v2, which the launcher does not load."""
    linux = rootless_config(1000, 1000, args=["true"])["linux"] | {"resources": {"devices": rules}}
    container, prepared, options = situation(linux=linux)
    prepared.facts, prepared.cgroup = HostFacts(), V1(dirs)
    assert kept.is_plain(container, prepared, options) == plain


# Every option of a container: changed, it is not plain; or why it makes no difference.
OPTIONS: dict[str, Any] = {
    "console_socket": "/x", "pidfd_socket": "/x", "pid_file": "/x", "foreground": False, "debug": print,
    "keep_fds": 1, "keep_groups": True, "listen_fds": 1, "notify": "/x", "network": object(), "overlay": "",
    "new_keyring": False, "pivot": False, "start_later": True, "stdio": (0, 1, 2),
}  # fmt: skip
HARMLESS = {
    "below": "of exec",
    "cgroup_manager": "kept for the one that was given",
    "strict": "the same while the ids are, as --degrade is not given; what it changes is a degradation",
    "listen_names": "of listen_fds",
    "sealed": "the same program, opened",
}


def test_every_option_is_known() -> None:
    assert OPTIONS.keys() | HARMLESS.keys() == set(Options.__slots__)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_changes_what_is_done_keeps_nothing(name: str) -> None:
    container, prepared, options = situation()
    setattr(options, name, OPTIONS[name])
    assert not kept.is_plain(container, prepared, options)


# The evidence.


def items(data: bytes) -> list[tuple[str, str, bytes]]:
    """Kind, name and what was found, of each item."""
    found = []
    at = 0
    while at < len(data):
        kind, first, second = (int.from_bytes(data[at + n : at + n + 4], sys.byteorder) for n in (0, 4, 8))
        at += 12
        name, content = data[at : at + first], data[at + first + 1 : at + first + 1 + second]
        at += first + second + 2
        assert data[at - 1] == 0
        found.append((evidence.KINDS[kind], name.decode(), content))
    return found


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of modules, of which the tests themselves run without."""
    path = tmp_path / "modules"
    path.touch()
    importer = type("ArchiveImporter", (), {"path": str(path), "find_spec": lambda *_: None})()
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, importer])
    return path


def gathered(facts: HostFacts | None = None, **config: Any) -> set[tuple[str, str]]:
    document = rootless_config(1000, 1000, args=["true"])
    document["process"].update(config.pop("process", {}))
    facts = facts or HostFacts(os.geteuid(), os.getegid())
    data = evidence.gather(document | config, facts)
    assert data is not None
    return {(kind, name) for kind, name, _ in items(data)}


def test_a_program_earlier_on_the_path_is_evidence(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is put there later would be the one to take."""
    folders = [tmp_path / name for name in ("first", "second", "third")]
    for folder in folders:
        folder.mkdir()
    for name in ("newuidmap", "newgidmap"):
        (folders[1] / name).touch(0o755)
    monkeypatch.setattr(posix, "environ", {b"PATH": b":".join(bytes(folder) for folder in folders)})
    monkeypatch.setitem(os.environ, "PATH", ":".join(map(str, folders)))
    data = evidence.gather(rootless_config(1, 1, args=["x"]), HostFacts(), helpers=True)
    assert data is not None
    looked = [(kind, name) for kind, name, _ in items(data) if name.endswith(evidence.HELPERS)]
    places = [(kind, f"{folders[at]}/{name}") for name in evidence.HELPERS for at, kind in enumerate(KINDS)]
    assert looked == places


KINDS = ("missing", "node")


def test_where_systemd_gave_no_cgroup_nothing_is_kept(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may the next time."""
    path = tmp_path / "bus"
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={path}")
    view = CgroupView({}, str(tmp_path), {"": "/"}, {str(tmp_path): "/"})
    monkeypatch.setattr(evidence.cgroups, "view", lambda: view)
    monkeypatch.setattr("rootless_rt.cgroups.bus.own_uid", lambda: 4000000000)
    nested = HostFacts(os.geteuid(), os.getegid())
    nested.uid_map = [(0, 1000, 1)]
    config = rootless_config(1, 1, args=["x"])
    assert evidence.gather(config, nested) is not None
    with socket(AF_UNIX) as bus:
        bus.bind(str(path))
        assert evidence.gather(config, nested) is None
        assert evidence.gather(config, nested, asks_systemd=False) is not None
        assert evidence.gather(config, nested, added=True) is not None


# Where the evidence of each fact is, or why it needs none.
OF_FACTS: dict[str, tuple[str, str] | str] = {
    "euid": ("ids", ""),
    "egid": ("ids", ""),
    "capabilities": ("ids", ""),
    "uid_map": ("file", "/proc/self/uid_map"),
    "gid_map": ("file", "/proc/self/gid_map"),
    "last_capability": ("file", "/proc/sys/kernel/random/boot_id"),
    "rlimits": ("limit", ""),
    "oom_score_adj": ("file", "/proc/self/oom_score_adj"),
    "may_set_groups": ("file", "/proc/self/setgroups"),
    "paths": ("node", "/dev/null"),
    "cgroup": ("lines", "/proc/self/mountinfo"),
    "filter": ("code", "/usr/lib/x86_64-linux-gnu/libseccomp.so.2"),
    "emulation": ("code", "/usr/lib/x86_64-linux-gnu/libseccomp.so.2"),
    "kernel_mounts": "only looked at for --no-pivot, which is not plain",
    "scheduling": "only looked at for process.scheduler, which is not plain",
    "join_order": "of joined namespaces, which are not plain",
    "joined_maps": "of joined namespaces, which are not plain",
    "lsm": "only looked at for labels, which are not plain",
}


def test_there_is_evidence_for_every_fact(archive: Path) -> None:
    assert OF_FACTS.keys() == set(HostFacts.__slots__)
    nested = HostFacts(os.geteuid(), os.getegid())
    nested.uid_map = [(0, 1000, 1)]
    nested.rlimits = {7: (1, 2)}
    document = {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}, "process": {"oomScoreAdj": 5}}
    found = gathered(nested, **document)
    for where in OF_FACTS.values():
        if isinstance(where, tuple) and "libseccomp" in where[1]:
            assert any(kind == "code" and name.endswith("/libseccomp.so.2") for kind, name in found)
        elif isinstance(where, tuple):
            assert where in found


def test_the_code_that_made_the_plan_is_evidence(archive: Path) -> None:
    code = {name for kind, name in gathered() if kind == "code"}
    assert str(archive) in code and any(name.endswith("/rt-init") for name in code)
    assert {kept.__file__, sys.modules["rootless_rt.plan.build"].__file__} <= code


def test_without_an_archive_of_modules_nothing_is_kept() -> None:
    assert evidence.gather(rootless_config(1, 1, args=["x"]), HostFacts()) is None


def test_the_path_is_evidence_where_helpers_are_looked_for(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posix, "environ", {b"PATH": b"/x\xff"})
    config = rootless_config(1, 1, args=["x"])
    data = evidence.gather(config, HostFacts(), helpers=True)
    assert data is not None and ("variable", "PATH", b"=/x\xff") in items(data)
    monkeypatch.setattr(posix, "environ", {})
    data = evidence.gather(config, HostFacts(), helpers=True)
    assert data is not None and ("variable", "PATH", b"") in items(data)
