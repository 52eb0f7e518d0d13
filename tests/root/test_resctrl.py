"""A container in a group of resctrl, from create to delete. The group's files stand for the hardware's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import refusal
from lab.resctrl import FakeResctrl, WithResctrl
from lab.runtime import Runtime

from rootless_rt.cgroups import resctrl

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="resctrl is root's")


@pytest.fixture
def fake(tmp_path: Path) -> FakeResctrl:
    return FakeResctrl(tmp_path)


@pytest.fixture
def here(root_rt: Runtime, fake: FakeResctrl) -> Iterator[Runtime]:
    runtime = WithResctrl(root_rt, fake)
    yield runtime
    runtime.clean()


def asking(bundle: Bundle, **rdt: Any) -> Bundle:
    return bundle.run("exec sleep 1000").change(lambda config: config["linux"].update(intelRdt=rdt))


def saved(rt: Runtime, name: str) -> Any:
    return json.loads((rt.root / name / "state.json").read_text())


def failure(rt: Runtime, *words: str) -> str:
    done = rt(*words)
    assert done.returncode == 1, (words, done.stdout, done.stderr)
    return done.stderr


def pids(*paths: Path) -> list[int]:
    return [int(path.read_text()) for path in paths]


@pytest.mark.covers(
    "linux.intelRdt",
    "linux.intelRdt.schemata",
    "linux.intelRdt.l3CacheSchema",
    "linux.intelRdt.memBwSchema",
    "linux.intelRdt.enableMonitoring",
)
def test_a_container_gets_a_group_of_its_own_which_delete_removes(
    here: Runtime, root_bundle: MakeBundle, fake: FakeResctrl
) -> None:
    made = asking(
        root_bundle(),
        l3CacheSchema="L3:0=f",
        memBwSchema="MB:0=20",
        schemata=["L3:1=3"],
        enableMonitoring=True,
    )
    here.ok("create", "--bundle", str(made.path), "box")
    pid = here.state("box")["pid"]
    assert pids(fake.top / "box/tasks", fake.top / "box/mon_groups/box/tasks") == [pid, pid]
    assert (fake.top / "box/schemata").read_text().startswith("L3:1=3\n"), "schemata are written last"
    assert saved(here, "box")["rdt"] == {"group": "box", "made": True, "monitor": True}
    here.ok("delete", "--force", "box")
    assert fake.groups() == set() and not (here.root / "box").exists()


@pytest.mark.covers("linux.intelRdt.closID", "linux.intelRdt.enableMBM")
def test_a_named_class_is_joined_also_by_exec_and_stays(
    here: Runtime, root_bundle: MakeBundle, fake: FakeResctrl
) -> None:
    gold = fake.group("gold")
    made = asking(root_bundle(), closID="gold", enableMBM=True)
    here.ok("create", "--bundle", str(made.path), "box")
    here.ok("start", "box")
    first = pids(gold / "tasks", gold / "mon_groups/box/tasks")
    assert first == [here.state("box")["pid"]] * 2
    pid_file = made.path / "pid"
    here.ok("exec", "--detach", "--pid-file", str(pid_file), "box", "/bin/sleep", "1000")
    assert pids(gold / "tasks", gold / "mon_groups/box/tasks") == pids(pid_file) * 2 != first
    here.ok("delete", "--force", "box")
    assert fake.groups() == {"gold"} and not list((gold / "mon_groups").iterdir())


def test_a_failed_create_leaves_no_group(here: Runtime, root_bundle: MakeBundle, fake: FakeResctrl) -> None:
    made = asking(root_bundle(), schemata=["L3:0=f"], enableMonitoring=True)
    made.change(lambda config: config.update(hooks={"createRuntime": [{"path": "/bin/false"}]}))
    assert "createRuntime" in failure(here, "create", "--bundle", str(made.path), "box")
    assert fake.groups() == set() and not (here.root / "box").exists()


def test_a_group_that_cannot_be_made_leaves_no_container(
    here: Runtime, root_bundle: MakeBundle, fake: FakeResctrl
) -> None:
    for name in ("a", "b", "c"):
        fake.group(name)
    made = asking(root_bundle(), schemata=["L3:0=f"])
    assert "Out of CLOSIDs" in failure(here, "create", "--bundle", str(made.path), "box")
    assert not (here.root / "box").exists()


def test_a_record_of_a_strangers_directory_removes_nothing(
    here: Runtime, root_bundle: MakeBundle, fake: FakeResctrl
) -> None:
    gold = fake.group("gold", tasks="1\n")
    here.ok("create", "--bundle", str(asking(root_bundle(), schemata=["L3:0=f"]).path), "box")
    state = saved(here, "box")
    for group in ("..", "/", "gold/mon_groups", "mon_groups", "../../../etc"):
        state["rdt"] = {"group": group, "made": True, "monitor": False}
        (here.root / "box/state.json").write_text(json.dumps(state))
        assert "rdt" in failure(here, "delete", "box")
    state["rdt"] = {"group": "gold", "made": True, "monitor": True}
    (here.root / "box/state.json").write_text(json.dumps(state))
    here.ok("delete", "--force", "box")
    assert gold.is_dir(), "processes are in it"


def test_a_plan_names_the_group_and_makes_none(
    here: Runtime, root_bundle: MakeBundle, fake: FakeResctrl
) -> None:
    made = asking(root_bundle(), closID="gold", schemata=["L3:0=f"])
    assert "outside: linux.intelRdt: put the container's processes into the resctrl group gold" in here.ok(
        "plan", "--bundle", str(made.path)
    )
    assert fake.groups() == set()


def test_without_resctrl_the_container_is_refused(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    if resctrl.mount_point() is not None:
        pytest.skip("resctrl is mounted here")
    told = refusal(root_rt, asking(root_bundle(), closID="gold"))
    assert told.startswith("rt: config.json: linux.intelRdt: no resctrl file system is mounted")


def test_features_tell_what_rt_knows_of_it(root_rt: Runtime) -> None:
    found = json.loads(root_rt.ok("features"))["linux"]["intelRdt"]
    assert found == {"enabled": True, "schemata": True, "monitoring": True}
