"""The groups of resctrl, on a directory that stands for the file system: no machine here has the hardware."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from lab.resctrl import SCHEMATA, FakeResctrl, installed

from rootless_rt.cgroups import resctrl
from rootless_rt.errors import RtError, SpecError

Rdt = dict[str, Any]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeResctrl:
    return installed(monkeypatch, FakeResctrl(tmp_path))


def choose(fake: FakeResctrl, rdt: Rdt, container_id: str = "box") -> resctrl.Group:
    return resctrl.choose(rdt, container_id, str(fake.root))


def refused(fake: FakeResctrl, rdt: Rdt) -> SpecError:
    before = sorted(str(path) for path in fake.top.rglob("*"))
    with pytest.raises(SpecError) as caught:
        choose(fake, rdt)
    assert sorted(str(path) for path in fake.top.rglob("*")) == before
    return caught.value


def again(fake: FakeResctrl, group: resctrl.Group) -> resctrl.Group:
    """The group as `delete` has it, from the record."""
    state = group.to_state()
    assert not resctrl.wrong_state(state)
    loaded = resctrl.load(state, group.container_id, str(fake.root))
    assert loaded is not None and loaded.path == group.path and loaded.to_state() == state
    return loaded


def test_without_a_class_the_group_has_the_containers_name_and_goes_with_it(fake: FakeResctrl) -> None:
    group = choose(fake, {"schemata": ["L3:0=f", "MB:0=20;1=70"]})
    assert fake.groups() == set(), "choosing makes nothing"
    group.create()
    group.add(4711)
    assert (fake.top / "box/schemata").read_text().startswith("L3:0=f\nMB:0=20;1=70\n")
    assert (fake.top / "box/tasks").read_text() == "4711"
    assert not list((fake.top / "box/mon_groups").iterdir())
    again(fake, group).delete(str(fake.root))
    assert fake.groups() == set()
    again(fake, group).delete(str(fake.root))


def test_each_of_the_two_kinds_of_lines_is_written_at_once_and_schemata_last(
    fake: FakeResctrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(resctrl, "put", lambda _, text: written.append(text))
    rdt = {"l3CacheSchema": "L3:0=f\nMB:0=10", "memBwSchema": "MB:0=20", "schemata": ["L3:1=3", "MB:1=30"]}
    choose(fake, rdt).create()
    assert written == ["L3:0=f\nMB:0=20\n", "L3:1=3\nMB:1=30\n"]


def test_a_new_class_is_made_and_removed_when_nobody_else_is_in_it(fake: FakeResctrl) -> None:
    group = choose(fake, {"closID": "gold", "schemata": ["L3:0=f"]})
    group.create()
    (fake.top / "gold/tasks").write_text("4711\n4712\n")
    (fake.root / "proc/4711").mkdir()
    (fake.root / "proc/4711/stat").write_text("4711 (a) Z) Z 1 1")
    again(fake, group).delete(str(fake.root))
    assert fake.groups() == set(), "one has ended, and one is gone"
    group.create()
    (fake.top / "gold/tasks").write_text("4711\n4713\n")
    (fake.root / "proc/4713").mkdir()
    (fake.root / "proc/4713/stat").write_text("4713 (Z Z) S 1 1")
    again(fake, group).delete(str(fake.root))
    assert fake.groups() == {"gold"}, "another container's process is in it"


def test_a_class_that_exists_is_joined_and_stays(fake: FakeResctrl) -> None:
    fake.group("gold")
    group = choose(fake, {"closID": "gold", "schemata": ["L3:0=0FFF", "MB:1=100"]})
    group.create()
    group.add(4711)
    assert (fake.top / "gold/tasks").read_text() == "4711"
    assert (fake.top / "gold/schemata").read_text() == SCHEMATA, "nothing is written to it"
    again(fake, group).delete(str(fake.root))
    group.undo()
    assert fake.groups() == {"gold"}
    assert choose(fake, {"closID": "gold"}).to_state() == {"group": "gold", "made": False, "monitor": False}


@pytest.mark.parametrize("line", ["L3:0=f", "L3:2=fff", "MB:0=100;1=90"])
def test_a_class_with_other_values_is_refused(fake: FakeResctrl, line: str) -> None:
    fake.group("gold")
    for name in ("gold", "/"):
        error = refused(fake, {"closID": name, "schemata": [line]})
        assert error.path == "linux.intelRdt.closID" and "other schemata" in error.message


def test_a_class_that_is_missing_is_refused_without_schemata(fake: FakeResctrl) -> None:
    error = refused(fake, {"closID": "gold", "enableMonitoring": True})
    assert error.path == "linux.intelRdt.closID" and "no group" in error.message


def test_the_root_group_is_joined_and_stays(fake: FakeResctrl) -> None:
    group = choose(fake, {"closID": "/", "enableMonitoring": True})
    group.create()
    group.add(4711)
    assert (fake.top / "tasks").read_text().startswith("4711")
    assert (fake.top / "mon_groups/box/tasks").read_text() == "4711"
    again(fake, group).delete(str(fake.root))
    assert fake.top.is_dir() and not list((fake.top / "mon_groups").iterdir())


@pytest.mark.covers("linux.intelRdt.enableCMT", "linux.intelRdt.enableMBM")
@pytest.mark.parametrize("key", ["enableMonitoring", "enableCMT", "enableMBM"])
def test_a_monitoring_group_has_the_containers_name(fake: FakeResctrl, key: str) -> None:
    fake.group("gold")
    group = choose(fake, {"closID": "gold", key: True})
    group.create()
    group.add(4711)
    assert (fake.top / "gold/mon_groups/box/tasks").read_text() == "4711"
    again(fake, group).delete(str(fake.root))
    assert not list((fake.top / "gold/mon_groups").iterdir()) and fake.groups() == {"gold"}


def test_a_monitoring_group_of_another_is_left_alone(fake: FakeResctrl) -> None:
    (fake.group("gold") / "mon_groups/box").mkdir()
    error = refused(fake, {"closID": "gold", "enableMonitoring": True})
    assert error.path == "linux.intelRdt.enableMonitoring" and "already" in error.message


def test_what_the_machine_cannot_do_is_refused_by_its_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = installed(monkeypatch, FakeResctrl(tmp_path / "a", schemata="L3:0=f\n", features=""))
    error = refused(caches, {"schemata": ["MB:0=20"]})
    assert "no MB" in error.message and error.message.endswith("it has: L3")
    assert refused(caches, {"enableMonitoring": True}).path == "linux.intelRdt.enableMonitoring"
    counters = installed(monkeypatch, FakeResctrl(tmp_path / "b", schemata="", features="llc_occupancy\n"))
    assert refused(counters, {"enableMonitoring": True}).hint == 'set closID to "/"'
    assert choose(counters, {"closID": "/", "enableCMT": True}).monitor
    assert refused(counters, {"closID": "/", "enableMBM": True}).path == "linux.intelRdt.enableMBM"


@pytest.mark.parametrize("text", ["", "23 1 8:1 / / rw - ext4 /dev/sda rw\n", "garbage - resctrl\n"])
def test_without_a_mount_it_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(text)
    with pytest.raises(SpecError, match="no resctrl file system is mounted") as caught:
        resctrl.choose({"closID": "gold"}, "box", str(tmp_path))
    assert caught.value.path == "linux.intelRdt" and "mount -t resctrl" in (caught.value.hint or "")
    assert resctrl.load({"group": "box", "made": True, "monitor": False}, "box", str(tmp_path)) is None


def test_a_mount_with_a_space_is_found_and_that_of_a_single_group_is_not(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(
        "50 23 0:40 /gold /g rw - resctrl resctrl rw\n51 23 0:40 / /r\\040c rw shared:1 - resctrl x rw\n"
    )
    assert resctrl.mount_point(str(tmp_path)) == f"{tmp_path}/r c"


def test_a_container_named_like_a_directory_of_resctrl_must_name_its_class(fake: FakeResctrl) -> None:
    with pytest.raises(SpecError, match="info"):
        choose(fake, {"schemata": ["L3:0=f"]}, "info")


def test_a_processor_without_a_free_class_is_told_in_the_kernels_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = installed(monkeypatch, FakeResctrl(tmp_path, classes=1))
    group = choose(full, {"schemata": ["L3:0=f"]})
    with pytest.raises(RtError, match=r"no space left on device \(Out of CLOSIDs\)") as caught:
        group.create()
    assert "existing group" in (caught.value.hint or "")
    group.undo()


def test_what_was_made_is_taken_back_when_the_rest_fails(
    fake: FakeResctrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, _: str) -> None:
        (fake.top / "info/last_cmd_status").write_text("Bitmask too large\n")
        raise OSError(22, path)

    monkeypatch.setattr(resctrl, "put", refuse)
    group = choose(fake, {"schemata": ["L3:0=ffffff"], "enableMonitoring": True})
    with pytest.raises(RtError, match=r"L3:0=ffffff: invalid argument \(Bitmask too large\)"):
        group.create()
    assert fake.groups() == {"box"}
    group.undo()
    assert fake.groups() == set()
    with pytest.raises(RtError, match="cannot move"):
        choose(fake, {"closID": "/"}).add(1)


def test_the_real_machine_is_asked_without_harm() -> None:
    """Here it is not mounted, or root's alone to change."""
    point = resctrl.mount_point()
    assert point is None or os.path.isdir(point)
