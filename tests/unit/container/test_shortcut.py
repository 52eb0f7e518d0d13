"""What is compiled ahead for the launcher, and when that is nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab.tree import TREE

from rootless_rt.container import record, shortcut
from rootless_rt.container.shortcut import FLAGS, LIMIT, MAGIC, NUMBERS, TEXTS, compiled, header, process_of
from rootless_rt.container.store import Store
from rootless_rt.version import VERSION

State = dict[str, Any]


def sound(**changes: Any) -> State:
    return {
        "id": "c", "ociVersion": "1.2.0", "phase": "created", "pid": 42, "startTime": "77", "bootId": "b",
        "bundle": "/b", "rootfs": "/b/rootfs", "created": "2026-01-01T00:00:00Z", "annotations": {},
        "ownPid": True, "maker": {"pid": 41, "startTime": "76", "bootId": "b"}, "degraded": [],
        "cgroup": {"kind": "none", "reason": "none"}, **changes,
    }  # fmt: skip


def read(record: bytes | None) -> tuple[dict[str, int], dict[str, bytes]]:
    """The numbers and the texts of a record."""
    assert record is not None and record.startswith(MAGIC)
    at = len(MAGIC)
    numbers = {}
    for name in NUMBERS:
        numbers[name] = int.from_bytes(record[at : at + 8], "little")
        at += 8
    texts = {}
    for name in TEXTS:
        length = int.from_bytes(record[at : at + 4], "little")
        at += 4
        texts[name] = record[at : at + length]
        assert record[at + length] == 0
        at += length + 1
    assert at == len(record) == numbers["size"]
    return numbers, texts


def of(tmp_path: Path, **changes: Any) -> tuple[dict[str, int], dict[str, bytes]]:
    return read(compiled(sound(**changes), os.stat(tmp_path)))


def has(numbers: dict[str, int], name: str) -> bool:
    return bool(numbers["flags"] & FLAGS[name])


@pytest.mark.parametrize("own", [True, False])
def test_whose_state_is_lost_is_told_by_the_record(tmp_path: Path, own: bool) -> None:
    made = compiled(sound(ownPid=own), os.stat(tmp_path))
    assert made is not None
    assert process_of(made) == {"pid": 42, "startTime": "77", "bootId": "b", "ownPid": own}


@given(st.data())
def test_a_damaged_record_tells_nothing_or_something_sound(data: st.DataObject) -> None:
    made = compiled(sound(), os.stat("/"))
    assert made is not None
    at = data.draw(st.integers(0, len(made)))
    told = process_of(
        made[:at] + data.draw(st.binary(max_size=40)) + made[at + data.draw(st.integers(0, 9)) :]
    )
    assert told == {} or record.wrong_field({**sound(), **told}) is None


def test_the_header_is_generated_from_the_tables() -> None:
    hint = "python3 -m rootless_rt.container.shortcut > rootless_rt/cli/shortcut_tables.h"
    assert (TREE / "rootless_rt/cli/shortcut_tables.h").read_text() == header(), hint


def test_a_record_holds_what_the_verbs_need(tmp_path: Path) -> None:
    numbers, texts = of(tmp_path)
    status = os.stat(tmp_path)
    assert (numbers["pid"], numbers["state_inode"], numbers["state_ctime"]) == (
        42, status.st_ino, status.st_ctime_ns,
    )  # fmt: skip
    assert (texts["version"], texts["started"], texts["boot"]) == (VERSION.encode(), b"77", b"b")
    whole = texts["head"] + b"42" + texts["middle"] + b"running" + texts["tail"]
    assert whole.startswith(
        b'{\n  "ociVersion": "1.2.0",\n  "id": "c",\n  "pid": 42,\n  "status": "running",\n'
    )
    assert whole.endswith(b'\n  "owner": ""\n}\n')
    assert has(numbers, "OWN_PID") and has(numbers, "STARTS") and has(numbers, "DELETES")
    assert not has(numbers, "CGROUP") and texts["freezer"] == texts["leaves"] == texts["parents"] == b""


def test_there_is_none_before_the_container_is_created(tmp_path: Path) -> None:
    assert compiled(sound(phase="creating"), os.stat(tmp_path)) is None


def test_there_is_none_for_more_annotations_than_the_launcher_reads(tmp_path: Path) -> None:
    assert compiled(sound(annotations={"a": "x" * LIMIT}), os.stat(tmp_path)) is None


@pytest.mark.parametrize(
    "cgroup",
    [
        {"kind": "v2", "path": "/sys/fs/cgroup/a/b/c", "reason": None,
         "parents": ["/sys/fs/cgroup/a", "/sys/fs/cgroup/a/b"]},
        {"kind": "v1", "paths": {"unified": "/sys/fs/cgroup/a/b/c"}, "reason": None,
         "parents": ["/sys/fs/cgroup/a", "/sys/fs/cgroup/a/b"]},
    ],
    ids=["v2", "v1 and its v2"],
)  # fmt: skip
def test_the_cgroup_s_files_are_named_in_the_order_of_their_removal(tmp_path: Path, cgroup: State) -> None:
    numbers, texts = of(tmp_path, cgroup=cgroup)
    assert has(numbers, "CGROUP") and has(numbers, "DELETES")
    assert texts["freezer"] == b"/sys/fs/cgroup/a/b/c/cgroup.freeze"
    assert texts["leaves"] == b"/sys/fs/cgroup/a/b/c\0"
    assert texts["parents"] == b"/sys/fs/cgroup/a/b\0/sys/fs/cgroup/a\0"


def test_the_freezer_of_v1_is_its_own_hierarchy_s(tmp_path: Path) -> None:
    paths = {"freezer": "/f/c", "unified": "/u/c"}
    _, texts = of(tmp_path, cgroup={"kind": "v1", "paths": paths, "reason": None})
    assert texts["freezer"] == b"/f/c/freezer.self_freezing" and texts["leaves"] == b"/f/c\0/u/c\0"


def test_systemd_is_told_of_a_deletion_by_python(tmp_path: Path) -> None:
    inner = {"kind": "v2", "path": "/s/c", "reason": None}
    cgroup = {"kind": "systemd", "bus": "user", "unit": "rt-c.scope", "slice": "user.slice", "inner": inner}
    numbers, texts = of(tmp_path, cgroup=cgroup)
    assert not has(numbers, "DELETES") and has(numbers, "STARTS")
    assert texts["freezer"] == b"/s/c/cgroup.freeze" and texts["leaves"] == b"/s/c\0"


@pytest.mark.parametrize("key", ["network", "rdt"])
def test_what_is_outside_of_the_container_is_put_away_by_python(tmp_path: Path, key: str) -> None:
    numbers, _ = of(tmp_path, **{key: {}})
    assert not has(numbers, "DELETES") and has(numbers, "STARTS")


def test_of_a_field_that_is_new_python_takes_care(tmp_path: Path) -> None:
    numbers, _ = of(tmp_path, novelty=True)
    assert not has(numbers, "DELETES") and not has(numbers, "STARTS")


def test_an_agent_of_seccomp_is_served_by_python(tmp_path: Path) -> None:
    ops = {"first": 3, "ops": [["wait_start", ""], ["seccomp_listen", ""], ["exec", ""]]}
    assert not has(of(tmp_path, startOps=ops)[0], "STARTS")


def test_every_write_of_the_state_renews_the_record(tmp_path: Path) -> None:
    handle = Store(str(tmp_path / "root"), True).create("c")
    file = tmp_path / "root/c" / shortcut.NAME
    handle.write_state(sound(phase="creating"))
    assert not file.exists()
    for noted in ({}, {"a": "b"}):
        handle.write_state(sound(annotations=noted))
        numbers, texts = read(file.read_bytes())
        status = os.stat(tmp_path / "root/c/state.json")
        assert (numbers["state_inode"], numbers["state_size"]) == (status.st_ino, status.st_size)
        assert (numbers["state_mtime"], numbers["state_ctime"]) == (status.st_mtime_ns, status.st_ctime_ns)
        assert (b'"a": "b"' in texts["tail"]) == bool(noted)
    assert file.stat().st_mode & 0o777 == 0o600
    handle.write_state(sound(annotations={"a": "x" * LIMIT}))
    assert not file.exists(), "none is left that tells of another state"
    handle.close()


def test_a_record_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    handle = Store(str(tmp_path / "root"), True).create("c")
    (tmp_path / "root/c" / shortcut.NAME).mkdir()
    handle.write_state(sound())
    assert handle.read_state()["pid"] == 42
    handle.close()
