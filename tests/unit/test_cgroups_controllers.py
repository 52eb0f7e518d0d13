"""Which v2 controllers a cgroup can have, told from directories that look like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootless_rt.cgroups import controllers
from rootless_rt.cgroups.controllers import missing

ALL = "cpuset cpu io memory pids"


def level(path: Path, controllers: str, on: str, *, writable: bool = True) -> Path:
    path.mkdir(exist_ok=True)
    (path / "cgroup.controllers").write_text(controllers + "\n")
    (path / "cgroup.subtree_control").write_text(on + "\n")
    (path / "cgroup.subtree_control").chmod(0o644 if writable else 0o444)
    return path


@pytest.fixture(autouse=True)
def as_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everything: what counts here are the modes."""
    import posix
    import stat

    def access(path: str, mode: int, **_: object) -> bool:
        return bool(posix.stat(path).st_mode & stat.S_IWUSR)

    monkeypatch.setattr("rootless_rt.cgroups.controllers.posix", _Posix(posix, access))


class _Posix:
    def __init__(self, real: object, access: object) -> None:
        self._real = real
        self.access = access

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


def test_what_the_parent_gives_is_not_missing(tmp_path: Path) -> None:
    level(tmp_path, ALL, ALL, writable=False)
    user = level(tmp_path / "user", "memory pids", "memory pids", writable=False)
    assert missing(str(user / "box"), {"memory", "pids"}, str(tmp_path)) == {}


def test_what_the_parent_can_give_is_not_missing(tmp_path: Path) -> None:
    level(tmp_path, ALL, ALL, writable=False)
    user = level(tmp_path / "user", "memory pids", "")
    level(user / "app", "", "")
    assert missing(str(user / "app/box"), {"memory", "cgroup"}, str(tmp_path)) == {}
    assert missing(str(user / "not/there/box"), {"memory"}, str(tmp_path)) == {}


def test_what_is_not_delegated_is_named_with_the_level_and_the_fix(tmp_path: Path) -> None:
    """The level is the uppermost of the user's own: what is below it gets what it gives."""
    level(tmp_path, ALL, ALL, writable=False)
    level(tmp_path / "user", ALL, "memory pids", writable=False)
    mine = level(tmp_path / "user/user@7.service", "memory pids", "memory pids")
    level(mine / "app", "memory pids", "")
    found = missing(str(mine / "app/box"), {"memory", "cpuset", "io"}, str(tmp_path))
    assert set(found) == {"cpuset", "io"}
    why, fix = found["cpuset"]
    assert why == 'controller "cpuset" is not delegated to /user/user@7.service'
    assert "Delegate=cpu cpuset io memory pids" in fix and "user@.service.d" in fix
    assert fix.endswith("systemctl restart user@7.service")


def test_the_fix_is_one_that_helps(tmp_path: Path) -> None:
    level(tmp_path, ALL + " hugetlb", "pids", writable=False)
    mine = level(tmp_path / "my.service", "pids", "pids")
    found = missing(str(mine / "box"), {"io", "hugetlb"}, str(tmp_path))
    assert "user@" not in found["io"][1] and "in a unit" in found["io"][1]
    assert "delegates only cpu cpuset io memory pids" in found["hugetlb"][1]


def test_what_the_kernel_lacks_has_no_fix(tmp_path: Path) -> None:
    level(tmp_path, ALL, ALL)
    level(tmp_path / "mine", ALL, "", writable=False)
    for place in ("box", "mine/box"):
        why, fix = missing(str(tmp_path / place), {"rdma"}, str(tmp_path))["rdma"]
        assert 'no controller "rdma"' in why and fix == ""


def own_cgroup(path: Path, *, real_root: bool = False) -> Path:
    """A cgroup with one process, as files."""
    level(path, ALL, "")
    (path / "cgroup.procs").write_text("7\n")
    if not real_root:
        (path / "cgroup.type").write_text("domain\n")
    return path


def switch_on(own: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is written, in order, to give cpu and pids to a cgroup below our own."""
    written = []

    def put(path: str, text: str) -> None:
        written.append((path.removeprefix(f"{own}/"), text))
        if path.endswith("init/cgroup.procs"):
            (own / "cgroup.procs").write_text("")

    monkeypatch.setattr(controllers.fs, "put", put)
    controllers.enable(str(own / "box"), {"cpu", "pids"}, str(own), str(own))
    return written


def test_our_own_cgroup_is_emptied_before_it_gives_controllers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for cpu and pids, which the kernel would let it give: the cgroups below could hold no process."""
    assert switch_on(own_cgroup(tmp_path / "own"), monkeypatch) == [
        ("init/cgroup.procs", "7"),
        ("cgroup.subtree_control", "+cpu"),
        ("cgroup.subtree_control", "+pids"),
    ]


def test_the_root_of_all_cgroups_is_not_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = switch_on(own_cgroup(tmp_path / "own", real_root=True), monkeypatch)
    assert [file for file, _ in written] == ["cgroup.subtree_control"] * 2


def test_our_own_cgroup_stays_as_it_is_when_the_controllers_are_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_cgroup(tmp_path / "own")
    (own / "cgroup.subtree_control").write_text("cpu pids\n")
    assert switch_on(own, monkeypatch) == []
