"""What an ordinary user gets of what only root can have: one row a thing, under both policies.

A degradation is told in four places: once on stderr, in --log, in `rt state`, and (where it can be known
without trying) in `rt plan`.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle, Config
from lab.inside import subordinate
from lab.ranges import map_ranges
from lab.refusals import named, problem, refused
from lab.runtime import Runtime
from lab.simulators import helper_without_bit, no_helper
from lab.users import User
from lab.wrapped import with_mounts

LOOP = ["/bin/sleep", "100"]


def degrades(rt: Runtime, box: Bundle, field: str, *, planned: bool = True) -> dict[str, str]:
    """Check that this one thing degrades, in all places, and is refused by strict; the item of `rt state`."""
    path = str(box.run(LOOP).path)
    log = box.path / "log"
    done = rt("--degrade=warn", "--log", str(log), "run", "-d", "--bundle", path, "box")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(f"rt: warning: {field}: ")]
    assert len(lines) == 1, done.stderr
    text = lines[0].removeprefix("rt: warning: ")
    logged = [line for line in log.read_text().splitlines() if "level=warning" in line and field in line]
    assert len(logged) == 1 and json.dumps(text, ensure_ascii=False) in logged[0]
    state = rt.state("box")
    [item] = [item for item in state["degraded"] if item["field"] == field]
    assert text == f"{field}: {item['asked']} -> {item['got']}: {item['why']}"
    assert field in state["annotations"]["org.rootless-rt.degraded"].split(",")
    assert item["id"] in named(done.stderr)
    rt.ok("delete", "--force", "box")
    plan = json.loads(rt.ok("--degrade=warn", "plan", "--format", "json", "--bundle", path))
    assert ([item] if planned else []) == [each for each in plan["degraded"] if each["field"] == field]
    assert (f"degraded: {text}" in rt.ok("--degrade=warn", "plan", "--bundle", path)) == planned
    refusing = rt("--degrade=strict", "run", "--bundle", path, "box")
    line, _ = problem(refusing)
    assert line.startswith((f"{field}: ", item["why"])) and item["id"] in named(refusing.stderr)
    assert list(rt.root.iterdir()) == []
    return dict(item)


def stays(rt: Runtime, box: Bundle) -> str:
    """Check that it works as asked under both policies, without a word; what the program prints."""
    said = rt.ok("--degrade=strict", "run", "--bundle", str(box.path), "box")
    assert rt.ok("--degrade=warn", "run", "--bundle", str(box.path), "box") == said
    return said


def fails(rt: Runtime, box: Bundle) -> tuple[str, str]:
    """Check that it is an error under both policies; line and hint."""
    path = str(box.path)
    told = [
        problem(rt(f"--degrade={policy}", "run", "--bundle", path, "box")) for policy in ("warn", "strict")
    ]
    assert told[0] == told[1] and list(rt.root.iterdir()) == []
    return told[0]


def drop(config: Config, destination: str) -> None:
    config["mounts"] = [item for item in config["mounts"] if item["destination"] != destination]


# The rows


def test_no_user_namespace_in_the_config(rt: Runtime, bundle: MakeBundle) -> None:
    def change(config: Config) -> None:
        linux = config["linux"]
        linux["namespaces"] = [item for item in linux["namespaces"] if item["type"] != "user"]
        del linux["uidMappings"], linux["gidMappings"]

    item = degrades(rt, bundle().change(change), "linux.namespaces")
    assert "rt spec --rootless" in item["fix"]


def test_a_map_of_one_id_is_written_directly_with_setgroups_denied(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    helpers = [os.path.realpath(path) for tool in ("newuidmap", "newgidmap") if (path := shutil.which(tool))]
    hidden = with_mounts(rt, "; ".join(f"mount --bind /dev/null {path}" for path in helpers) or "true")
    said = stays(hidden, bundle("cat /proc/self/uid_map /proc/self/setgroups"))
    assert said.split() == ["0", str(alice.uid), "1", "deny"]


@pytest.mark.parametrize("stage", [no_helper, helper_without_bit])
def test_a_map_of_a_range_without_the_helper_is_an_error_with_the_fix(rig: Any, stage: Any) -> None:
    without = stage(rig)
    line, hint = refused(without, rig.box)
    assert "newuidmap" in line and ("install" in hint or "chmod u+s" in hint)
    # Asked to make do with less, it runs with the own ids alone.
    item = degrades(without, rig.box, "linux.uidMappings")
    assert item["got"] == "your own ids alone" and "newuidmap" in item["why"] and item["fix"] == hint


def test_a_map_of_many_lines_works_up_to_what_the_kernel_takes(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    def lines(count: int) -> Bundle:
        box = bundle("wc -l < /proc/self/uid_map")
        own = {"uid": alice.uid, "gid": alice.gid}

        def change(config: Config) -> None:
            for kind, first in own.items():
                start = subordinate(alice, kind)
                # Every other id, so that no line continues another.
                more = [
                    {"containerID": 1 + 2 * n, "hostID": start + 2 * n, "size": 1} for n in range(count - 1)
                ]
                config["linux"][f"{kind}Mappings"] = [{"containerID": 0, "hostID": first, "size": 1}, *more]

        return box.change(change)

    assert stays(rt, lines(200)) == "200\n"
    assert "341 mappings, the kernel takes 340" in fails(rt, lines(341))[0]


def test_additional_groups_work_if_mapped(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    groups = {"user": {"uid": 0, "gid": 0, "additionalGids": [27]}}
    box = bundle().change(lambda config: config["process"].update(groups))
    item = degrades(rt, box, "process.user.additionalGids")
    assert "--idmap full" in item["fix"] and "--keep-groups" in item["fix"]
    mapped = map_ranges(bundle("id -G"), alice).change(lambda config: config["process"].update(groups))
    assert stays(rt, mapped) == "0 27\n"


RAISED = {
    "process.rlimits[0]": {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1 << 40}]},
    "process.scheduler.nice": {"scheduler": {"policy": "SCHED_OTHER", "nice": -15}},
    "process.scheduler": {"scheduler": {"policy": "SCHED_FIFO", "priority": 5}},
    "process.ioPriority": {"ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 1}},
}


@pytest.mark.parametrize("field", RAISED)
def test_what_only_root_may_raise_is_clamped(rt: Runtime, bundle: MakeBundle, field: str) -> None:
    box = bundle().change(lambda config: config["process"].update(RAISED[field]))
    assert degrades(rt, box, field)["id"] == "RT-BUNDLE-RLIMITS"


def test_an_oom_score_below_one_s_own_is_left(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle().change(lambda config: config["process"].update(oomScoreAdj=-700))
    degrades(rt, box, "process.oomScoreAdj", planned=False)


@pytest.mark.parametrize(
    "resources", [{"memory": {"limit": 1 << 28}}, {"cpu": {"quota": 10000, "period": 10000}}]
)
def test_a_limit_without_delegation_is_named(rt: Runtime, bundle: MakeBundle, resources: Any) -> None:
    def change(config: Config) -> None:
        config["linux"]["resources"] = resources
        drop(config, "/sys/fs/cgroup")

    controller, limits = next(iter(resources.items()))
    none = with_mounts(rt, "umount -R -l /sys/fs/cgroup")
    item = degrades(none, bundle().change(change), f"linux.resources.{controller}.{next(iter(limits))}")
    assert item["got"] == "no limit" and item["why"]


def test_a_device_that_is_not_there_is_left_out_unless_it_is_required(
    rt: Runtime, bundle: MakeBundle
) -> None:
    device = {"path": "/dev/nosuch", "type": "c", "major": 10, "minor": 77}
    box = bundle().change(lambda config: config["linux"].update(devices=[device]))
    degrades(rt, box, "linux.devices[0]")
    for required in ("/dev/nosuch", "linux.devices", "process.user, linux.devices[0]"):
        box.change(lambda config, it=required: config.update(annotations={"org.rootless-rt.required": it}))
        line, hint = refused(rt, box, "--degrade=warn", "run")
        assert line.startswith("linux.devices[0]: /dev/nosuch (10:77) is not possible: ")
        assert "without that requirement goes on with: no such device" in hint
    box.change(lambda config: config.update(annotations={"org.rootless-rt.required": "/dev/other,process"}))
    assert rt("run", "--bundle", str(box.run(["/bin/true"]).path), "box").returncode == 0


def test_what_only_trying_tells_can_be_required_too(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle().change(lambda config: config["process"].update(oomScoreAdj=-700))
    box.change(lambda config: config.update(annotations={"org.rootless-rt.required": "process.oomScoreAdj"}))
    assert refused(rt, box, "--degrade=warn", "run")[0].startswith(
        "process.oomScoreAdj: -700 is not possible"
    )


def test_sysfs_without_a_network_namespace_is_the_host_s_read_only_and_masked(
    rt: Runtime, bundle: MakeBundle
) -> None:
    def change(config: Config) -> None:
        drop(config, "/sys")
        config["mounts"].append({"destination": "/sys", "type": "sysfs", "source": "sysfs"})

    box = bundle().change(change)
    index = len(box.config["mounts"]) - 1
    assert degrades(rt, box, f"mounts[{index}]")["got"] == "the host's /sys, read-only"
    box.run("ls -A /sys/firmware | wc -l; touch /sys/kernel/x || echo read-only")
    done = rt("run", "--bundle", str(box.path), "box")
    assert done.stdout == "0\nread-only\n", "masked and read-only"


def test_the_cgroup_mount_shows_what_there_is_or_nothing(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle()
    [index] = [n for n, item in enumerate(box.config["mounts"]) if item["destination"] == "/sys/fs/cgroup"]
    none = with_mounts(rt, "umount -R -l /sys/fs/cgroup")
    assert degrades(none, box, f"mounts[{index}]")["got"] == "an empty read-only directory"


@pytest.mark.parametrize(("field", "linux"), [
    ("linux.netDevices", {"netDevices": {"eth9": {}}}),
    ("linux.intelRdt", {"intelRdt": {"closID": "some", "l3CacheSchema": "L3:0=f"}}),
])  # fmt: skip
def test_network_devices_and_resctrl_are_errors_with_the_reason(
    rt: Runtime, bundle: MakeBundle, field: str, linux: Config
) -> None:
    def change(config: Config) -> None:
        config["linux"].update(linux)
        config["linux"]["namespaces"].append({"type": "network"})

    line, _ = fails(rt, bundle().change(change))
    assert field in line


def test_an_id_mapped_mount_is_an_error_unless_its_map_changes_nothing(
    rt: Runtime, bundle: MakeBundle, alice: User, share: Path
) -> None:
    def mapped(inside: int, gid: int) -> Bundle:
        maps = {"uidMappings": [{"containerID": inside, "hostID": alice.uid, "size": 1}],
                "gidMappings": [{"containerID": gid, "hostID": alice.gid, "size": 1}]}  # fmt: skip
        item = {"destination": "/tmp", "type": "bind", "source": str(share), "options": ["bind"], **maps}
        return bundle("cat /tmp/file; stat -c %u:%g /tmp/file").change(
            lambda config: config["mounts"].append(item)
        )

    assert stays(rt, mapped(alice.uid, alice.gid)) == "from the host\n0:0\n"
    assert "only root can map the ids of a mount" in fails(rt, mapped(0, alice.gid))[0]


def test_a_container_without_a_freezer_cannot_be_paused_and_is_told_what_can(
    rt: Runtime, bundle: MakeBundle
) -> None:
    none = with_mounts(rt, "umount -R -l /sys/fs/cgroup")
    none("run", "-d", "--bundle", str(bundle(LOOP).path), "box")
    line, hint = problem(none("pause", "box"))
    assert line.startswith("cannot pause: the container has no cgroup") and hint
    assert none.state("box")["status"] == "running"


@pytest.mark.parametrize(
    "process", [{"apparmorProfile": "nosuch"}, {"selinuxLabel": "system_u:system_r:x_t:s0"}]
)
def test_labels_never_degrade(rt: Runtime, bundle: MakeBundle, process: Config) -> None:
    line, _ = fails(rt, bundle().change(lambda config: config["process"].update(process)))
    assert f"process.{next(iter(process))}" in line


def test_a_failing_run_says_nothing_but_its_error(rt: Runtime, bundle: MakeBundle) -> None:
    done = rt("run", "--bundle", str(bundle(["/nosuch"]).path), "box")
    assert len(done.stderr.splitlines()) == 2 and done.stdout == ""
    assert rt("run", "--bundle", str(bundle("exit 3").path), "box").stderr == ""
