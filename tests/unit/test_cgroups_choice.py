"""Where a container's cgroup goes, and when there is none: on trees of plain directories."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rootless_rt import cgroups
from rootless_rt.cgroups import choice
from rootless_rt.cgroups.host import CgroupView
from rootless_rt.errors import RtError


def tree(top: Path, *names: str) -> str:
    for name in ("", *names):
        (top / name).mkdir(parents=True, exist_ok=True)
        (top / name / "cgroup.procs").touch()
    return str(top)


def v2(top: Path, own: str) -> CgroupView:
    parts = own.strip("/").split("/")
    tree(top, *("/".join(parts[: n + 1]) for n in range(len(parts))))
    return CgroupView({}, str(top), {"": own}, {str(top): "/"})


def pick(view: CgroupView, **changed: Any) -> cgroups.Manager:
    asked: dict[str, Any] = {
        "manager": "auto",
        "cgroups_path": None,
        "container_id": "box",
        "euid": 1000,
        "strict": False,
        "rootless": True,
    }
    return cgroups.choose(view, **{**asked, **changed})


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Paths that nobody may write to (root may everywhere, so the answer of access(2) is replaced)."""
    paths: set[str] = set()
    monkeypatch.setattr(choice, "_writable", lambda path: path not in paths)
    return paths


def test_without_a_path_v2_uses_the_parent_of_our_own_cgroup_and_the_id(tmp_path: Path) -> None:
    found = pick(v2(tmp_path, "/user.slice/my.scope"))
    assert (found.kind, found.paths) == ("v2", [f"{tmp_path}/user.slice/box"])


def test_in_the_root_of_a_cgroup_namespace_v2_stays_below_the_mount(tmp_path: Path) -> None:
    assert pick(v2(tmp_path, "/")).paths == [f"{tmp_path}/box"]


@pytest.mark.covers("linux.cgroupsPath")
def test_an_absolute_path_counts_from_the_mount_and_a_relative_one_from_our_parent(tmp_path: Path) -> None:
    view = v2(tmp_path, "/user.slice/my.scope")
    assert pick(view, cgroups_path="/pod//./x/").paths == [f"{tmp_path}/pod/x"]
    assert pick(view, cgroups_path="pod/x").paths == [f"{tmp_path}/user.slice/pod/x"]


@pytest.mark.parametrize("own", ["/user@1000.service/app.slice/my.service", "/user@1000.service/x.scope"])
def test_below_a_users_own_manager_it_stays_in_the_unit(tmp_path: Path, own: str) -> None:
    assert pick(v2(tmp_path, own)).paths == [f"{tmp_path}{own}/box"]
    assert pick(v2(tmp_path, own + "/init")).paths == [f"{tmp_path}{own}/box"], "evacuated before"


def test_a_cgroup_that_systemd_marked_as_delegated_holds_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = f"{tmp_path}/system.slice/my.service"
    real = choice.posix.getxattr

    def getxattr(path: str, name: str) -> bytes:
        return b"1" if (path, name) == (own, "user.delegate") else real(path, name)

    monkeypatch.setattr(choice.posix, "getxattr", getxattr)
    assert pick(v2(tmp_path, "/system.slice/my.service")).paths == [f"{own}/box"]
    assert pick(v2(tmp_path, "/system.slice/my.service"), cgroups_path="x").paths == [
        f"{tmp_path}/system.slice/x"
    ]


def test_a_delegated_service_falls_back_to_its_own_cgroup(tmp_path: Path, closed: set[str]) -> None:
    closed.update({f"{tmp_path}/system.slice", f"{tmp_path}/system.slice/cgroup.procs"})
    assert pick(v2(tmp_path, "/system.slice/my.service")).paths == [f"{tmp_path}/system.slice/my.service/box"]


def test_no_permission_and_no_path_is_no_cgroup_with_a_reason_even_when_strict(
    tmp_path: Path, closed: set[str]
) -> None:
    closed.update({str(tmp_path), f"{tmp_path}/x.scope"})
    found = pick(v2(tmp_path, "/x.scope"), strict=True)
    assert (found.kind, found.paths) == ("none", [])
    assert found.reason == f"no write permission in {tmp_path}"


def test_no_permission_with_a_path_is_an_error_only_when_strict(tmp_path: Path, closed: set[str]) -> None:
    closed.add(str(tmp_path))
    view = v2(tmp_path, "/x.scope")
    found = pick(view, cgroups_path="/docker/box")
    assert (found.kind, found.reason) == ("none", f"no write permission in {tmp_path}")
    with pytest.raises(RtError, match=r"cgroupsPath /docker/box: no write permission") as caught:
        pick(view, cgroups_path="/docker/box", strict=True)
    assert "Delegate=yes" in str(caught.value.hint)


def test_a_writable_place_behind_a_closed_ancestor_is_refused(tmp_path: Path, closed: set[str]) -> None:
    closed.add(f"{tmp_path}/cgroup.procs")
    view = v2(tmp_path, "/session.scope")
    tree(tmp_path, "user.service")
    found = pick(view, cgroups_path="/user.service/box")
    assert found.kind == "none"
    assert "belongs to somebody else" in str(found.reason)


@pytest.mark.parametrize(
    "path", ["../x", "/a/../../b", "a/..", "..", "/", ".", "//", "a\nb", "a\0b", "x" * 256]
)
def test_paths_that_lead_elsewhere_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(RtError, match="cgroup path"):
        pick(v2(tmp_path, "/x"), cgroups_path=path)
    with pytest.raises(RtError, match="cgroup path"):
        pick(v2(tmp_path, "/x"), cgroups_path=path, manager="disabled")


@pytest.mark.covers("--cgroup-manager")
def test_disabled_and_missing_cgroups_give_none_and_systemd_needs_them(tmp_path: Path) -> None:
    nothing = CgroupView({}, None, {}, {})
    assert pick(v2(tmp_path, "/x"), manager="disabled").kind == "none"
    assert pick(nothing, cgroups_path="/a").reason == "no cgroup file system is mounted"
    with pytest.raises(RtError, match="systemd manages no cgroups here"):
        pick(nothing, manager="systemd")
    with pytest.raises(RtError, match="unknown cgroup manager: runc"):
        pick(nothing, manager="runc")
    with pytest.raises(RtError, match="no cgroup file system is mounted"):
        pick(nothing, cgroups_path="/a", strict=True)


def v1(top: Path) -> CgroupView:
    mounts = {"cpu": f"{top}/cpu,cpuacct", "cpuacct": f"{top}/cpu,cpuacct", "devices": f"{top}/devices"}
    tree(top / "cpu,cpuacct")
    tree(top / "devices", "jail")
    tree(top / "unified", "me")
    return CgroupView(
        mounts, f"{top}/unified", {"cpu": "/", "cpuacct": "/", "devices": "/jail", "": "/me"}, {}
    )


def test_v1_takes_one_directory_a_hierarchy_below_our_own(tmp_path: Path) -> None:
    found = pick(v1(tmp_path), rootless=False, euid=0)
    assert found.to_state() == {
        "kind": "v1",
        "paths": {
            "cpu,cpuacct": f"{tmp_path}/cpu,cpuacct/box",
            "devices": f"{tmp_path}/devices/jail/box",
            "unified": f"{tmp_path}/unified/box",
        },
        "reason": None,
    }
    assert pick(v1(tmp_path), cgroups_path="/pod/x").paths[1] == f"{tmp_path}/devices/pod/x"


def test_rootless_v1_uses_what_it_may_and_names_the_rest(tmp_path: Path, closed: set[str]) -> None:
    closed.add(f"{tmp_path}/cpu,cpuacct")
    found = pick(v1(tmp_path))
    assert found.paths == [f"{tmp_path}/devices/jail/box", f"{tmp_path}/unified/box"]
    assert found.reason == f"no write permission in {tmp_path}/cpu,cpuacct"
    assert pick(v1(tmp_path), rootless=False).kind == "none"


def test_a_covered_mount_point_is_not_taken_for_a_cgroup(tmp_path: Path) -> None:
    view = CgroupView({"devices": str(tmp_path)}, None, {"devices": "/"}, {})
    assert pick(view).reason == f"{tmp_path} is not a cgroup"


def test_the_hot_path_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, os; before = set(sys.modules); from rootless_rt import cgroups\n"
        "m = cgroups.choose(cgroups.view(), manager='auto', cgroups_path=None, container_id='never-made',"
        " euid=0, strict=False, rootless=True)\n"
        "cgroups.load(m.to_state()); print(*sorted(set(sys.modules) - before))\n"
    )
    repo = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {repo!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded <= {"rootless_rt", "errno", "time", "__future__"}
