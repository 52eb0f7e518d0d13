"""Which v2 controllers a cgroup can have, told from directories that look like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    level(tmp_path, ALL, ALL, writable=False)
    level(tmp_path / "user", ALL, "memory pids", writable=False)
    mine = level(tmp_path / "user/mine", "memory pids", "memory pids")
    found = missing(str(mine / "box"), {"memory", "cpuset", "io"}, str(tmp_path))
    assert set(found) == {"cpuset", "io"}
    why, fix = found["cpuset"]
    assert why == 'controller "cpuset" is not delegated to /user/mine'
    assert "Delegate=cpu cpuset io memory pids" in fix and "user@.service.d" in fix


def test_what_the_kernel_lacks_has_no_fix(tmp_path: Path) -> None:
    level(tmp_path, ALL, ALL)
    why, fix = missing(str(tmp_path / "box"), {"rdma"}, str(tmp_path))["rdma"]
    assert 'no controller "rdma"' in why and fix == ""
