"""The drivers on plain directories: what they make, take back, read and write."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rootless_rt import cgroups
from rootless_rt.cgroups import fs, host, tree
from rootless_rt.cgroups.none import NoCgroup
from rootless_rt.cgroups.v1 import V1
from rootless_rt.cgroups.v2 import V2
from rootless_rt.errors import RtError


def test_v2_makes_its_way_and_takes_all_of_it_back(tmp_path: Path) -> None:
    box = V2(f"{tmp_path}/a/b/box")
    box.create()
    assert (tmp_path / "a/b/box").is_dir()
    box.undo()
    assert list(tmp_path.iterdir()) == []


def test_undo_leaves_a_parent_that_others_use_by_now(tmp_path: Path) -> None:
    first = V2(f"{tmp_path}/pod/one")
    first.create()
    V2(f"{tmp_path}/pod/two").create()
    (tmp_path / "pod/one/deep/er").mkdir(parents=True)
    first.undo()
    assert [path.name for path in (tmp_path / "pod").iterdir()] == ["two"]


def test_delete_removes_the_leaf_with_all_below_but_no_parent(tmp_path: Path) -> None:
    box = V2(f"{tmp_path}/pod/box")
    box.create()
    (tmp_path / "pod/box/x/y").mkdir(parents=True)
    (tmp_path / "pod/box/z").mkdir()
    box.delete()
    box.delete()
    assert list(tmp_path.rglob("*")) == [tmp_path / "pod"]


def test_delete_removes_parents_that_were_made_and_are_empty(tmp_path: Path) -> None:
    box = V2(f"{tmp_path}/a/b/box")
    box.create()
    for name in ("a", "a/b"):
        (tmp_path / name / "cgroup.procs").touch()  # else it would not pass for a cgroup
    record = box.to_state()
    assert record["parents"] == [f"{tmp_path}/a", f"{tmp_path}/a/b"]
    assert cgroups.load(record).to_state() == record
    removed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("posix.rmdir", lambda path, dir_fd=None: removed.append(path))
        fs.remove_parents(record["parents"])
    assert removed == [f"{tmp_path}/a/b", f"{tmp_path}/a"]


@pytest.mark.parametrize("parents", ["x", [1], {}, None, [None]])
def test_a_record_of_parents_that_is_none_is_an_error(parents: object) -> None:
    with pytest.raises(RtError, match=r"state: cgroup: parents"):
        cgroups.load({"kind": "v2", "path": "/a/b", "parents": parents})


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_only_what_is_above_the_cgroup_passes_for_a_parent(kind: str) -> None:
    where = {"path": "/a/b/box"} if kind == "v2" else {"paths": {"pids": "/a/b/box"}}
    wanted = ["/", "/a", "/a/b", "/a/b/box", "/a/b/box/c", "/etc", "/a/b/bo", ""]
    found = cgroups.load({"kind": kind, **where, "parents": wanted}).to_state()
    assert found["parents"] == ["/a", "/a/b"]


class Full:
    """`fs.put` on a cgroup that can hold no processes any more."""

    def __init__(self, path: str, number: int) -> None:
        self.path, self.number, self.done = path, number, []  # type: ignore[var-annotated]

    def __call__(self, path: str, text: str) -> None:
        if path == self.path + "/cgroup.procs":
            raise OSError(self.number, "full")
        self.done.append((path, text))


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EOPNOTSUPP])
def test_a_process_goes_beside_the_first_where_the_cgroup_takes_none(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    put = Full("/cg/box", number)
    monkeypatch.setattr(fs, "put", put)
    monkeypatch.setattr("rootless_rt.cgroups.host.dir_of", lambda pid: f"/cg/box/init{pid}")
    V2("/cg/box").add_beside(7, 5)
    V1({"unified": "/cg/box", "pids": "/pids/box"}).add_beside(7, 5)
    beside = ("/cg/box/init5/cgroup.procs", "7")
    assert put.done == [beside, beside, ("/pids/box/cgroup.procs", "7")]


@pytest.mark.parametrize("place", [None, "/cg/box", "/cg/other", "/cg/boxer/x"])
def test_it_goes_nowhere_else(monkeypatch: pytest.MonkeyPatch, place: str | None) -> None:
    monkeypatch.setattr(fs, "put", Full("/cg/box", errno.EBUSY))
    monkeypatch.setattr("rootless_rt.cgroups.host.dir_of", lambda pid: place)
    with pytest.raises(RtError, match=r"cannot move process 7 into the cgroup: /cg/box"):
        V2("/cg/box").add_beside(7, 5)


def test_the_directory_of_a_process_is_found_as_our_own() -> None:
    assert host.dir_of(os.getpid()) == host.view().own_dir()
    assert host.dir_of(2**22 + 1) is None


@pytest.mark.parametrize("relative", ["..", "a/..", "a/../..", "link", "a/link", "file", "a\0b", "none"])
def test_a_place_below_that_leads_elsewhere_is_refused(tmp_path: Path, relative: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "file").touch()
    for name in ("link", "a/link"):
        (tmp_path / name).symlink_to("/")
    with pytest.raises(RtError, match=r"--cgroup"):
        V2(str(tmp_path)).below({"": relative})


def test_a_place_below_is_found(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for relative in ("a/b", "/a/b/", "./a//b/."):
        assert V2(str(tmp_path)).below({"": relative}).paths == [f"{tmp_path}/a/b"]


def test_what_cannot_be_removed_is_an_error_in_bounded_time(tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    (tmp_path / "box/file").touch()
    with pytest.raises(RtError, match=r"cannot remove the cgroup: .*/box: processes are still in it"):
        V2(f"{tmp_path}/box").delete(timeout=0.02)


def test_a_tree_deeper_than_any_path_name_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "deep"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d" * 20, dir_fd=fd)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert tree.pids(str(top)) == []
    fs.remove(str(top), 1.0, lambda seconds: None)
    assert not top.exists()


def test_a_v2_cgroup_in_use_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    (tmp_path / "box/cgroup.events").write_text("populated 1\nfrozen 0\n")
    with pytest.raises(RtError, match=r"the cgroup is in use already: .*/box"):
        V2(f"{tmp_path}/box").create()
    assert (tmp_path / "box").is_dir()


def test_a_failed_v1_create_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "pids").touch()
    with pytest.raises(RtError, match="cannot make the cgroup"):
        V1({"cpu": f"{tmp_path}/cpu/a/box", "pids": f"{tmp_path}/pids/a/box"}).create()
    assert list((tmp_path / "cpu").iterdir()) == []


def test_a_name_that_is_a_control_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").touch()
    with pytest.raises(RtError) as caught:
        V2(f"{tmp_path}/cgroup.procs").create()
    assert "control file" in str(caught.value.hint)


def test_a_v1_cpuset_gets_the_nearest_values_above(tmp_path: Path) -> None:
    for path, cpus in ((tmp_path, "0-3\n"), (tmp_path / "pod", "\n"), (tmp_path / "pod/box", "\n")):
        path.mkdir(exist_ok=True)
        (path / "cpuset.cpus").write_text(cpus)
        (path / "cpuset.mems").write_text("0\n")
    V1({"cpuset": f"{tmp_path}/pod/box"}).create()
    assert (tmp_path / "pod/box/cpuset.cpus").read_text().strip() == "0-3"
    assert (tmp_path / "pod/cpuset.cpus").read_text().strip() == "0-3"


def test_processes_are_listed_from_the_whole_tree_and_never_as_zero(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "cgroup.procs").write_text("30\n0\n4\n")
    (tmp_path / "sub/cgroup.procs").write_text("5\n")
    assert V2(str(tmp_path)).procs() == [4, 5, 30]
    assert V1({"cpu": str(tmp_path), "pids": f"{tmp_path}/sub"}).procs() == [4, 5, 30]
    assert V2(f"{tmp_path}/missing").procs() == []


def test_add_writes_the_pid_in_every_hierarchy_and_names_the_one_that_fails(tmp_path: Path) -> None:
    for name in ("cpu", "pids"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    box = V1({"cpu": f"{tmp_path}/cpu", "pids": f"{tmp_path}/pids"})
    box.add(77)
    assert (tmp_path / "pids/cgroup.procs").read_text() == "77"
    (tmp_path / "pids/cgroup.procs").unlink()
    with pytest.raises(RtError, match=r"cannot move process 77 into the cgroup: .*/pids"):
        box.add(77)


def test_the_directory_descriptor_is_closed_on_exec(tmp_path: Path) -> None:
    fd = V2(str(tmp_path)).open_dir()
    assert fd is not None
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert V1({"cpu": str(tmp_path)}).open_dir() is None


def test_every_kind_comes_back_from_its_state() -> None:
    for manager in (V2("/x/box", "r"), V1({"cpu": "/c/box", "unified": "/u/box"}), NoCgroup("because")):
        again = cgroups.load(manager.to_state())
        assert type(again) is type(manager)
        assert (again.paths, again.reason) == (manager.paths, manager.reason)
    for state in ({}, {"kind": "v2"}, {"kind": "v2", "path": "x"}, {"kind": "v1", "paths": {"cpu": 1}}):
        with pytest.raises(RtError, match="state: cgroup"):
            cgroups.load(state)


def test_no_cgroup_says_why_it_cannot_pause() -> None:
    box = NoCgroup("disabled")
    with pytest.raises(RtError, match=r"cannot pause: the container has no cgroup \(disabled\)"):
        box.freeze()
    assert (box.frozen(), box.kill(), box.procs(), box.open_dir()) == (False, False, [], None)
    assert "(disabled)" in str(box.set_devices([]))


def test_v1_without_any_freezer_cannot_pause(tmp_path: Path) -> None:
    box = V1({"cpu": str(tmp_path)})
    assert not box.frozen()
    with pytest.raises(RtError, match="cannot pause: the container has no freezer cgroup"):
        box.freeze()
