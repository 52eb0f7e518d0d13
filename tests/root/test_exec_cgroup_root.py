"""`rt exec --cgroup`: a program in a cgroup below its container's, and never anywhere else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.inside import held, read
from lab.runtime import Runtime
from lab.waiting import PATIENCE, until
from lab.wrapped import with_mounts

NAME = f"rt-test-exec-cgroup-{os.getpid()}"


def table(text: str) -> dict[str, str]:
    """/proc/PID/cgroup as controllers -> path; v2 is ""."""
    return {line.split(":")[1]: line.split(":", 2)[2] for line in text.splitlines()}


@pytest.fixture
def c(root_rt: Runtime, root_bundle: MakeBundle) -> int:
    pid = held(root_rt, root_bundle(), NAME)
    if "pids" not in table(read(pid, "cgroup")) or table(read(pid, "cgroup"))["pids"] == "/":
        pytest.skip("the container has no cgroup v1 here")
    return pid


def directory(pid: int, controller: str) -> Path:
    where = "unified" if not controller else controller.removeprefix("name=")
    return Path("/sys/fs/cgroup") / where / table(read(pid, "cgroup"))[controller].lstrip("/")


def places(rt: Runtime, *options: str) -> dict[str, str]:
    """The cgroups of a program that is executed so, as the host sees them."""
    return table(rt.ok("exec", *options, NAME, "cat", "/proc/self/cgroup"))


def inside(found: dict[str, str]) -> set[str]:
    """The controllers whose cgroup is called `sub`: the container's own cgroup namespace shows the rest."""
    return {name for name, path in found.items() if path.endswith("/sub")}


@pytest.mark.covers("exec --cgroup")
def test_one_controller_s_cgroup_can_be_named(root_rt: Runtime, c: int) -> None:
    (directory(c, "pids") / "sub").mkdir()
    assert inside(places(root_rt, "--cgroup", "pids:sub")) == {"pids"}
    assert inside(places(root_rt, "--cgroup", "pids:/sub/")) == {"pids"}
    assert inside(places(root_rt, "--cgroup", "pids:./sub/.")) == {"pids"}
    assert inside(places(root_rt)) == set()


@pytest.mark.covers("exec --cgroup")
def test_several_controllers_can_be_named(root_rt: Runtime, c: int) -> None:
    for controller in ("pids", "memory", "freezer"):
        (directory(c, controller) / "sub").mkdir()
    options = ["--cgroup", "pids,memory:sub", "--cgroup", "freezer:sub"]
    assert inside(places(root_rt, *options)) == {"pids", "memory", "freezer"}


@pytest.mark.covers("exec --cgroup")
def test_a_path_alone_counts_in_every_hierarchy(root_rt: Runtime, c: int) -> None:
    for controller in table(read(c, "cgroup")):
        made = directory(c, controller) / "sub"
        made.mkdir()
        if controller == "cpuset":
            for name in ("cpus", "mems"):
                (made / f"cpuset.{name}").write_text((made.parent / f"cpuset.{name}").read_text())
    assert inside(places(root_rt, "--cgroup", "sub")) == set(table(read(c, "cgroup")))


@pytest.mark.covers("exec --cgroup")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["../x"], "is not a cgroup below the container's"),
        (["pids:../.."], "is not a cgroup below the container's"),
        (["pids:sub/../../../.."], "is not a cgroup below the container's"),
        (["pids:/.."], "is not a cgroup below the container's"),
        (["pids:missing"], "there is no such cgroup below"),
        (["pids:cgroup.procs"], "there is no such cgroup below"),
        (["pids:" + "x" * 300], "there is no such cgroup below"),
        (["pids:x\ny"], "there is no such cgroup below"),
        (["nothing:sub"], "the container has no cgroup of this controller"),
        ([":sub"], "the name of a controller is empty"),
        (["pids,:sub"], "the name of a controller is empty"),
        (["pids,pids:sub"], "pids is given more than once"),
        (["pids:a", "pids:b"], "pids is given more than once"),
        (["sub", "pids:sub"], "names no controller"),
    ],
)
def test_what_leads_elsewhere_is_refused(root_rt: Runtime, c: int, words: list[str], told: str) -> None:
    (directory(c, "pids") / "sub").mkdir()
    done = root_rt("exec", *(part for word in words for part in ("--cgroup", word)), NAME, "true")
    assert done.returncode == 255 and told in done.stderr, done.stderr
    assert done.stderr.startswith("rt: --cgroup") and len(done.stderr.splitlines()) <= 2


@pytest.mark.covers("exec --cgroup")
def test_a_container_without_a_cgroup_has_none_below(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    box = root_bundle(["/bin/sleep", "100"])
    assert root_rt("--cgroup-manager=disabled", "run", "-d", "-b", str(box.path), NAME).returncode == 0
    done = root_rt("exec", "--cgroup", "sub", NAME, "true")
    assert done.returncode == 255 and "the container has no cgroup" in done.stderr


@pytest.fixture
def v2(root_rt: Runtime) -> Iterator[Runtime]:
    """The same runtime on a host that has cgroup v2 alone."""
    script = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup"
    probe = subprocess.run(["unshare", "-m", "sh", "-ec", script], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("a cgroup2 file system cannot be mounted here")
    host = with_mounts(root_rt, script)
    yield host
    host("delete", "--force", NAME)


@pytest.mark.covers("exec --cgroup")
def test_on_cgroup_v2_one_path_is_named(v2: Runtime, root_bundle: MakeBundle) -> None:
    pid = held(v2, root_bundle(), NAME)
    after = with_mounts(v2, "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; "
                        f"mkdir -p /sys/fs/cgroup{table(read(pid, 'cgroup'))['']}/sub")  # fmt: skip
    said = after.ok("exec", "--cgroup", "sub", NAME, "cat", "/proc/self/cgroup")
    assert table(said)[""].endswith("/sub")
    assert not table(v2.ok("exec", NAME, "cat", "/proc/self/cgroup"))[""].endswith("/sub")
    for word, told in (("pids:sub", "no controllers to choose from"), ("..", "is not a cgroup below")):
        done = v2("exec", "--cgroup", word, NAME, "true")
        assert done.returncode == 255 and told in done.stderr


def freezer(pid: int, state: str) -> None:
    (directory(pid, "freezer") / "freezer.state").write_text(state)


def inmates(pid: int) -> int:
    """How many processes are in its cgroup of the freezer."""
    return len((directory(pid, "freezer") / "cgroup.procs").read_text().split())


@pytest.mark.covers("exec --ignore-paused")
def test_a_signal_ends_an_exec_that_waits_for_a_paused_container(root_rt: Runtime, c: int) -> None:
    freezer(c, "FROZEN")
    try:
        exec_ = root_rt.popen("exec", "--ignore-paused", NAME, "touch", "/tmp/ran", stderr=subprocess.DEVNULL)
        until(lambda: inmates(c) >= 2, "at least two are in it")
        exec_.terminate()
        assert exec_.wait(PATIENCE) == 128 + 15
    finally:
        freezer(c, "THAWED")
    until(lambda: inmates(c) <= 1, "one is left in it")
    assert root_rt("exec", NAME, "ls", "/tmp/ran").returncode == 1


@pytest.mark.covers("exec --ignore-paused")
def test_an_exec_into_a_paused_container_that_is_killed_says_so(root_rt: Runtime, c: int) -> None:
    freezer(c, "FROZEN")
    exec_ = root_rt.popen("exec", "--ignore-paused", NAME, "true", stderr=subprocess.PIPE)
    until(lambda: inmates(c) >= 2, "at least two are in it")
    root_rt.ok("delete", "--force", NAME)
    assert exec_.wait(PATIENCE) == 255
    assert exec_.stderr is not None
    said = exec_.stderr.read().decode()
    exec_.stderr.close()
    assert said == f'rt: cannot exec in a container that is not running: "{NAME}" is stopped\n'
