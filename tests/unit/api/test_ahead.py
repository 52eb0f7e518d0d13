"""Which ops of a plan are done before its run is known, and that both parts together are the plan."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab.bundles import rootless_config

from rootless_rt.api.ahead import Split, split
from rootless_rt.api.compiled import Compiled, made_first
from rootless_rt.api.config import spec_of
from rootless_rt.container.prepare import Options, prepare
from rootless_rt.plan.ops import BY_NAME, NO_SLOT, Op

Change = Callable[[dict[str, Any]], Any]
LATE = 4000


def compiled_of(place: Path, change: Change | None = None, **given: Any) -> Compiled:
    (place / "rootfs").mkdir(exist_ok=True)
    config = rootless_config(os.geteuid(), os.getegid(), args=["true"])
    if change is not None:
        change(config)
    options = Options()
    options.start_later = False
    options.cgroup_manager = "disabled"
    for name, value in given.items():
        setattr(options, name, value)
    return Compiled(spec_of(config, place / "rootfs"), options, "name")


def parts_of(place: Path, change: Change | None = None) -> tuple[list[Op], Split]:
    ops = compiled_of(place, change).prepared.plan
    found = split(ops, LATE)
    assert found is not None
    return ops.ops, found


def mounting(**mount: Any) -> Change:
    return lambda config: config["mounts"].append(mount)


def made_trees(parts: Split) -> set[str]:
    """Where the rest puts what was made ahead."""
    made = {op.args[0] for _, op in parts.ahead if op.name in ("new_fs", "set_attrs")}
    return {op.args[2] for _, op in parts.rest if op.name == "mount_bind" and op.args[1] in made}


def test_the_trees_of_the_kernels_filesystems_are_made_ahead(tmp_path: Path) -> None:
    _, parts = parts_of(tmp_path)
    assert made_trees(parts) == {"/proc", "/dev", "/sys"}
    left = [op.name for _, op in parts.rest]
    assert not {"mount_fs", "mask", "readonly", "symlink", "bounding"} & set(left)
    assert left[0] == "root" and left[-1] == "exec"


def test_every_op_is_in_one_of_the_parts_and_each_keeps_its_order(tmp_path: Path) -> None:
    share = mounting(destination="/data", type="bind", source="/usr", options=["rbind"])
    ops, parts = parts_of(tmp_path, share)
    both = {index for index, _ in parts.ahead} | {index for index, _ in parts.rest}
    assert both == set(range(1, len(ops)))
    rest = [index for index, _ in parts.rest]
    assert rest == sorted(rest)
    # Three ops are two: a tree is made ahead, and put in its place later.
    assert len(parts.ahead) + len(rest) == len(ops) - 1 + 3


def test_nothing_that_looks_at_the_rootfs_or_the_hosts_files_is_done_ahead(tmp_path: Path) -> None:
    share = mounting(destination="/data", type="bind", source="/usr", options=["rbind"])
    ops, parts = parts_of(tmp_path, share)
    root = next(op.args[1] for op in ops if op.name == "root")
    for _, op in parts.ahead:
        fields = [field for field, _ in BY_NAME[op.name][2]]
        assert "root" not in fields or op.args[fields.index("root")] != root, op
        assert op.name != "source" or op.args[1].split("/")[1] in ("dev", "sys"), op
    assert any(op.name == "source" and op.args[1] == "/usr" for _, op in parts.rest)


def test_each_slot_is_filled_before_it_is_used(tmp_path: Path) -> None:
    _, parts = parts_of(tmp_path)
    filled: set[int] = set()
    for _, op in parts.ahead:
        if op.name in ("source", "new_fs"):
            filled.add(op.args[0])
        elif op.name == "mount_bind":
            assert set(op.args[:2]) <= filled, op
        elif op.name in ("mount_fs", "symlink", "mask", "readonly", "set_attrs"):
            assert op.args[0] in filled, op


def test_attributes_of_a_copied_tree_are_not_for_what_is_mounted_in_it(tmp_path: Path) -> None:
    """Such as a cgroup that may be written, in a /sys that may not."""
    _, parts = parts_of(tmp_path)
    names = [op.name for _, op in parts.ahead]
    sys = next(op for _, op in parts.rest if op.name == "mount_bind" and op.args[2] == "/sys")
    assert not any(sys.args[3:9])
    inside = next(
        at for at, (_, op) in enumerate(parts.ahead) if op.args[0] == sys.args[1] and op.name == "mask"
    )
    assert names.index("set_attrs") < inside


@pytest.mark.parametrize(
    ("change", "trees"),
    [
        (mounting(destination="/dev/x", type="bind", source="/usr", options=["bind"]), {"/proc", "/sys"}),
        (mounting(destination="/dev/x", type="tmpfs", source="x", options=[]), {"/proc", "/sys"}),  # its mode
        (mounting(destination="/sys/x", type="bind", source="/tmp", options=["bind"]), {"/proc", "/dev"}),
        (mounting(destination="/dev", type="tmpfs", source="x", options=["mode=755"]), {"/proc", "/sys"}),
        (lambda config: config["linux"]["maskedPaths"].append("/etc"), {"/proc", "/dev", "/sys"}),
        (lambda config: config["mounts"].reverse(), {"/proc"}),
    ],
    ids=["file-in-dev", "mode-of-place", "file-in-sys", "twice", "mask-of-rootfs", "backwards"],
)
def test_a_tree_that_holds_anything_else_is_left_to_the_run(
    tmp_path: Path, change: Change, trees: set[str]
) -> None:
    _, parts = parts_of(tmp_path, change)
    assert made_trees(parts) == trees


def test_with_an_overlay_or_a_cgroup_nothing_but_the_process_is_made(tmp_path: Path) -> None:
    assert compiled_of(tmp_path, overlay="").ahead == b""
    plan = compiled_of(tmp_path).prepared.plan
    plan.fds = [("tasks", "/sys/fs/cgroup/tasks")]
    assert split(plan, LATE) is None


def with_score(config: dict[str, Any]) -> None:
    config["process"]["oomScoreAdj"] = 900
    config["linux"]["namespaces"].append({"type": "cgroup"})


@pytest.mark.parametrize("privileged", [False, True])
def test_who_may_lower_the_score_sets_it_before_the_process_is_in_its_user_namespace(
    tmp_path: Path, privileged: bool
) -> None:
    (tmp_path / "rootfs").mkdir()
    config = rootless_config(os.geteuid(), os.getegid(), args=["true"])
    with_score(config)
    options = Options()
    options.cgroup_manager = "disabled"
    prepared = prepare(spec_of(config, tmp_path / "rootfs"), "name", options)
    prepared.facts.capabilities = -1 if privileged else 0
    privileged = privileged and prepared.facts.initial_userns
    before, after = [op.name for op in prepared.plan.ops], [op.name for op in made_first(prepared)]
    assert before[:2] == ["oom_score_adj", "clone"] and sorted(before) == sorted(after)
    assert after[:2] == (before[:2] if privileged else ["clone", "oom_score_adj"])


def test_what_is_of_the_process_alone_is_done_ahead_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rootless_rt.api.compiled.CAP_SYS_RESOURCE", 0)
    _, parts = parts_of(tmp_path, with_score)
    names = [op.name for _, op in parts.ahead]
    assert names[:3] == ["oom_score_adj", "unshare", "propagation"]
    assert made_trees(parts) == {"/proc", "/dev", "/sys"}


def test_a_plan_with_too_many_slots_is_left_whole(tmp_path: Path) -> None:
    plan = compiled_of(tmp_path).prepared.plan
    assert split(plan, 10) is None


def test_messages_find_their_op_in_the_order_in_which_it_was_done(tmp_path: Path) -> None:
    compiled = compiled_of(tmp_path)
    task = compiled.with_task(["cat"], None, "/tmp")
    wire, plan = compiled.rest(3, task)
    names = [op.name for op in plan.ops]
    assert names[0] == "clone_mapped" and names.index("more") < names.index("stdio") < names.index("root")
    assert plan.ops[names.index("exec")].args[0] == ["cat"]
    assert plan.ops[names.index("chdir")].args[0] == "/tmp"
    tolerated = {plan.ops[index].name for index in plan.tolerated}
    before = compiled.prepared.plan
    assert tolerated == {before.ops[index].name for index in before.tolerated} != set()
    assert b"name-00000003" in wire and b"name-00000000" not in wire
    assert compiled.ahead and b"name" not in compiled.ahead
    assert NO_SLOT not in [op.args[0] for op in plan.ops if op.name == "new_fs"]
