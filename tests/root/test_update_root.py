"""`rt update` on root's containers and this machine's cgroups: what the kernel has afterwards."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import held
from lab.resctrl import FakeResctrl, WithResctrl
from lab.runtime import Runtime

CGROUPS = Path("/sys/fs/cgroup")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="root's cgroups"),
    pytest.mark.skipif(not (CGROUPS / "memory").is_dir(), reason="needs the controllers on cgroup v1"),
]
MEGABYTE = 1 << 20
UNLIMITED = 9223372036854771712
START: dict[str, Any] = {
    "memory": {"limit": 64 * MEGABYTE, "swap": 96 * MEGABYTE},
    "cpu": {"shares": 512, "quota": 50000, "period": 100000},
    "pids": {"limit": 20},
}
FILES = {
    "memory": "memory.limit_in_bytes",
    "both": "memory.memsw.limit_in_bytes",
    "soft": "memory.soft_limit_in_bytes",
    "shares": "cpu.shares",
    "quota": "cpu.cfs_quota_us",
    "period": "cpu.cfs_period_us",
    "burst": "cpu.cfs_burst_us",
    "idle": "cpu.idle",
    "cpus": "cpuset.cpus",
    "mems": "cpuset.mems",
    "pids": "pids.max",
}


class Box:
    """A container that goes on."""

    def __init__(self, rt: Runtime, bundle: Bundle) -> None:
        self.rt = rt
        self.pid = held(rt, bundle, "box")
        self.places = {}
        for line in Path(f"/proc/{self.pid}/cgroup").read_text().splitlines():
            for name in line.split(":")[1].split(","):
                self.places[name] = CGROUPS / line.split(":")[1] / line.split(":")[2].strip("/")

    def file(self, name: str) -> Path:
        return self.places[name.partition(".")[0]] / name

    def has(self, *names: str) -> dict[str, str]:
        return {name: self.file(FILES[name]).read_text().strip() for name in names}

    def all(self) -> dict[str, str]:
        return self.has(*FILES)

    def refused(self, *words: str, **options: Any) -> str:
        """The error of an update that changes nothing, nor what the state remembers."""
        before, saved = self.all(), self.saved()
        done = self.rt("update", *words, "box", **options)
        assert (done.returncode, done.stdout) == (1, ""), done
        first, *rest = done.stderr.splitlines()
        assert len(rest) <= 1 and all(line.startswith("hint: ") for line in rest), done.stderr
        assert (self.all(), self.saved()) == (before, saved)
        return first.removeprefix("rt: ")

    def saved(self) -> Any:
        return json.loads((self.rt.root / "box/state.json").read_text()).get("resources")


@pytest.fixture
def box(root_rt: Runtime, root_bundle: MakeBundle) -> Iterator[Box]:
    bundle = root_bundle().change(lambda config: config["linux"]["resources"].update(START))
    yield Box(root_rt, bundle)


@pytest.mark.covers(
    "update",
    "update --memory",
    "update --memory-swap",
    "update --memory-reservation",
    "update --cpu-share",
    "update --cpu-period",
    "update --cpu-quota",
    "update --cpu-burst",
    "update --cpuset-cpus",
    "update --cpuset-mems",
    "update --cpu-idle",
    "update --pids-limit",
)
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--memory", "32m"], {"memory": 32 * MEGABYTE, "both": 96 * MEGABYTE}),
        (["--memory=40 MiB"], {"memory": 40 * MEGABYTE}),
        (["--memory", "200m", "--memory-swap", "300m"], {"memory": 200 * MEGABYTE, "both": 300 * MEGABYTE}),
        (["--memory-swap", "30m", "--memory", "30m"], {"memory": 30 * MEGABYTE, "both": 30 * MEGABYTE}),
        (["--memory", "-1"], {"memory": UNLIMITED, "both": UNLIMITED}),
        (["--memory-swap", "-1"], {"memory": 64 * MEGABYTE, "both": UNLIMITED}),
        (["--memory-reservation", "16777216"], {"soft": 16 * MEGABYTE, "memory": 64 * MEGABYTE}),
        (["--cpu-period", "200000"], {"quota": 50000, "period": 200000, "shares": 512}),
        (["--cpu-quota", "20000"], {"quota": 20000, "period": 100000}),
        (["--cpu-quota", "-1"], {"quota": -1, "period": 100000}),
        (["--cpu-burst", "10000", "--cpu-quota", "30000"], {"quota": 30000, "burst": 10000}),
        (["--cpu-share", "77", "--pids-limit", "9"], {"shares": 77, "pids": 9, "quota": 50000}),
        (["--cpu-idle", "1"], {"idle": 1}),
        (["--pids-limit=-1"], {"pids": "max"}),
        (["--cpuset-cpus", "0", "--cpuset-mems", "0"], {"cpus": 0, "mems": 0}),
        (["--memory", "", "--pids-limit", "7"], {"pids": 7, "memory": 64 * MEGABYTE}),
        ([], {"memory": 64 * MEGABYTE}),
    ],
    ids=str,
)
def test_the_kernel_has_what_was_asked_and_the_rest_as_it_was(
    box: Box, words: list[str], wanted: dict[str, Any]
) -> None:
    assert box.rt.ok("update", *words, "box") == ""
    assert box.has(*wanted) == {name: str(value) for name, value in wanted.items()}


def test_one_update_builds_on_the_other(box: Box) -> None:
    steps: list[tuple[list[str], dict[str, Any]]] = [
        (["--cpu-period", "50000", "--cpu-quota", "20000"], {"quota": 20000, "period": 50000}),
        (["--cpu-burst", "20000"], {"burst": 20000}),
        (["--cpu-quota", "10000", "--cpu-burst", "5000"], {"quota": 10000, "burst": 5000, "period": 50000}),
        (["--cpu-quota", "40000", "--cpu-burst", "40000"], {"quota": 40000, "burst": 40000}),
        (["--cpu-idle", "1"], {"idle": 1}),
        (["--cpu-idle", "0"], {"idle": 0, "shares": 512}),
        (["--cpu-idle", "1"], {"idle": 1}),
        (["--cpu-share", "99"], {"idle": 0, "shares": 99}),
        (["--memory", "-1"], {"both": UNLIMITED}),
        (["--memory", "32m"], {"memory": 32 * MEGABYTE, "both": UNLIMITED}),
        (["--memory-swap", "40m"], {"both": 40 * MEGABYTE}),
    ]
    for words, wanted in steps:
        box.rt.ok("update", *words, "box")
        assert box.has(*wanted) == {name: str(value) for name, value in wanted.items()}, words
    assert "resources" not in box.rt.state("box")
    box.rt.ok("pause", "box")
    box.rt.ok("update", "--pids-limit", "11", "box")
    assert box.has("pids") == {"pids": "11"}


@pytest.mark.covers("update --memory", "update --cpu-quota", "update --pids-limit")
@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--memory", "0x20"], "--memory: expected bytes"),
        (["--memory", " 40m"], "--memory: expected bytes"),
        (["--memory", "9223372036854775808"], "--memory: "),
        (["--memory", "-2"], "--memory: expected bytes"),
        (["--memory", "128m"], "memory.swap of the container: 100663296 is below memory.limit 134217728"),
        (["--memory-swap", "16m"], "--memory-swap: 16777216 is below memory.limit 67108864"),
        (["--memory", "1k"], "--memory: cannot write '1024' to "),
        (["--cpu-share", "9", "--pids-limit", "3", "--memory", "1k"], "--memory: cannot write '1024' to "),
        (["--cpu-quota", "0x20"], "--cpu-quota: expected a whole number"),
        (["--cpu-quota", "5"], "--cpu-quota: expected at least 1000 microseconds"),
        (["--cpu-quota", "9223372036854775808"], "--cpu-quota: expected an integer"),
        (["--cpu-period", "5"], "--cpu-period: expected 1000 to 1000000"),
        (["--cpu-period", "-5"], "--cpu-period: expected an integer from 0"),
        (["--cpu-burst", "60000"], "--cpu-burst: 60000 is above the quota 50000"),
        (["--cpu-share", "-1"], "--cpu-share: expected an integer from 0"),
        (["--cpu-share", "1_0"], "--cpu-share: expected a whole number"),
        (["--cpu-idle", "2"], "--cpu-idle: expected an integer from 0 to 1"),
        (["--cpuset-cpus", "0-"], "--cpuset-cpus: expected a list such as 0-3,7"),
        (["--cpuset-cpus", "900"], "--cpuset-cpus: cannot write '900'"),
        (["--pids-limit", "abc"], "--pids-limit: expected a whole number"),
        (["--pids-limit", "99999999999999999999"], "--pids-limit: expected an integer"),
        (["--blkio-weight", "5"], "--blkio-weight: expected 10 to 1000"),
        (["--blkio-weight", "70000"], "--blkio-weight: expected an integer from 0 to 65535"),
        (["--cpu-rt-runtime", "x"], "--cpu-rt-runtime: expected a whole number"),
        (["--l3-cache-schema", "L3"], "--l3-cache-schema: expected one line"),
        (["--mem-bw-schema", "L3:0=f"], "--mem-bw-schema: expected a line that begins with MB:"),
        (["--resources", "/nowhere/file"], "--resources /nowhere/file: no such file"),
        (["-r", "/proc"], "--resources /proc: is a directory"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_its_option_and_changes_nothing(
    box: Box, words: list[str], error: str
) -> None:
    assert box.refused(*words).startswith(error)


@pytest.mark.covers("update --resources", "linux.resources.memory.limit", "linux.resources.pids.limit")
def test_a_document_says_what_to_change(box: Box, place: Path) -> None:
    file = place / "resources.json"
    device = os.stat(place).st_dev
    wanted: dict[str, Any] = {
        "devices": [{"allow": False, "access": "rwm"}],
        "memory": {"limit": 40 * MEGABYTE, "swap": 0},
        "cpu": {"quota": 0, "period": 0, "shares": 300, "cpus": ""},
        "blockIO": {"weight": 0},
        "unknown": [1],
    }
    if Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").exists():
        throttle = {"major": os.major(device), "minor": os.minor(device), "rate": 1000000}
        wanted["blockIO"]["throttleReadBpsDevice"] = [throttle]
    file.write_text(json.dumps(wanted))
    # With a document, the other options are not looked at.
    box.rt.ok("update", f"--resources={file}", "--memory", "16m", "--pids-limit", "3", "box")
    assert box.has("memory", "both", "shares", "quota", "pids") == {
        "memory": str(40 * MEGABYTE),
        "both": str(96 * MEGABYTE),
        "shares": "300",
        "quota": "50000",
        "pids": "20",
    }
    if "throttleReadBpsDevice" in wanted["blockIO"]:
        throttled = box.file("blkio.throttle.read_bps_device").read_text()
        assert throttled == f"{os.major(device)}:{os.minor(device)} 1000000\n"
    assert "devices" not in box.saved()
    with open(file, "rb") as stdin:
        box.rt.ok("update", "-r", "-", "box", stdin=stdin)


@pytest.mark.covers("update --resources")
@pytest.mark.parametrize(
    ("document", "error"),
    [
        ("", "standard input: line 1 column 1: the document ends too early"),
        ("{", "standard input: line 1 column 2: "),
        ("[]", "standard input: expected an object, got an array"),
        ("{} {}", "standard input: line 1 column 4: text after the end of the document"),
        ('{"memory":{"limit":"64m"}}', "standard input: memory.limit: expected an integer"),
        ('{"memory":{"limit":-7}}', "standard input: memory.limit: expected bytes, or -1"),
        ('{"memory":{"limit":1e3}}', "standard input: memory.limit: expected an integer"),
        ('{"memory":{"limit":1024},"pids":{"limit":5}}', "standard input: memory.limit: cannot write '1024'"),
        ('{"cpu":{"cpus":"\\u0000"}}', "standard input: cpu.cpus: "),
        ('{"unified":{"memory.high":"5"}}', 'standard input: unified["memory.high"]: needs cgroup v2'),
        ('{"unified":{"../x":"5"}}', 'standard input: unified["../x"]: '),
        ('{"rdma":{"no0":{"hcaHandles":1}}}', 'standard input: rdma["no0"]'),
        ('{"hugepageLimits":[{"pageSize":"3MB","limit":1}]}', "standard input: hugepageLimits[0]"),
        ('{"pids":{"limit":' + "9" * 5000 + "}}", "standard input: line 1 column 18: "),
    ],
    ids=lambda text: text[:40],
)
def test_a_wrong_document_is_refused_by_its_place_and_changes_nothing(
    box: Box, place: Path, document: str, error: str
) -> None:
    (place / "in").write_text(document)
    with open(place / "in", "rb") as stdin:
        assert box.refused("--resources", "-", stdin=stdin).startswith(error)


@pytest.mark.covers("linux.resources.memory.checkBeforeUpdate")
def test_a_limit_below_what_is_in_use_is_refused_where_the_container_asks_for_that(box: Box) -> None:
    document = {"memory": {"limit": 4096, "swap": 8192, "checkBeforeUpdate": True}}
    (box.rt.root / "in").write_text(json.dumps(document))
    try:
        error = box.refused("-r", str(box.rt.root / "in"))
    finally:
        (box.rt.root / "in").unlink()
    assert "memory.limit: 4096 is below what is in use, " in error


@pytest.mark.covers("update --kernel-memory", "update --kernel-memory-tcp")
def test_what_kernels_do_no_longer_is_said(box: Box) -> None:
    done = box.rt("update", "--kernel-memory", "5m", "--kernel-memory-tcp=6m", "box")
    assert done.returncode == 0
    assert "--kernel-memory: has no effect" in done.stderr
    assert "--kernel-memory-tcp: has no effect" in done.stderr


@pytest.mark.covers("update --blkio-weight", "update --cpu-rt-period", "update --cpu-rt-runtime")
def test_controllers_that_not_every_kernel_has(box: Box) -> None:
    cases = {
        "--blkio-weight": ("500", ["blkio.weight", "blkio.bfq.weight"]),
        "--cpu-rt-period": ("900000", ["cpu.rt_period_us"]),
        "--cpu-rt-runtime": ("0", ["cpu.rt_runtime_us"]),
    }
    for option, (value, files) in cases.items():
        there = [path for path in map(box.file, files) if path.exists()]
        if value != "0" and not there:
            assert f"{option}: this kernel has no {files[0]}" in box.refused(option, value)
            continue
        box.rt.ok("update", option, value, "box")
        assert [path.read_text().split()[0] for path in there[:1]] == [value][: len(there)]


def test_a_container_that_does_not_run_has_nothing_to_change(box: Box) -> None:
    box.rt.ok("kill", "box", "KILL")
    box.rt.wait_for("box", "stopped")
    done = box.rt("update", "--memory", "32m", "box")
    assert done.returncode == 1 and 'container not running: "box" is stopped' in done.stderr
    assert "does not exist" in box.rt("update", "--memory", "32m", "nobody").stderr


def test_a_created_container_starts_with_its_new_limits(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    bundle = root_bundle("cat /sys/fs/cgroup/pids/pids.max >/told")
    root_rt.ok("create", "--bundle", str(bundle.path), "box")
    root_rt.ok("update", "--pids-limit", "12", "box")
    root_rt.ok("start", "box")
    root_rt.wait_for("box", "stopped")
    assert (bundle.rootfs / "told").read_text() == "12\n"


def test_without_a_cgroup_nothing_can_be_limited(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    bundle = root_bundle("exec sleep 1000")
    started = root_rt("--cgroup-manager", "disabled", "run", "--detach", "--bundle", str(bundle.path), "box")
    assert started.returncode == 0
    done = root_rt("update", "--memory", "32m", "box")
    assert done.returncode == 1
    assert "--memory: memory.max=33554432 is not possible: the container has no cgroup" in done.stderr
    assert "hint: " in done.stderr
    root_rt.ok("update", "--pids-limit", "-1", "box")


@pytest.mark.covers("update --l3-cache-schema", "update --mem-bw-schema")
def test_the_shares_of_a_group_of_resctrl_are_changed(
    root_rt: Runtime, root_bundle: MakeBundle, tmp_path: Path
) -> None:
    fake = FakeResctrl(tmp_path)
    rt = WithResctrl(root_rt, fake)
    bundle = root_bundle("exec sleep 1000")
    rt.ok("run", "--detach", "--bundle", str(bundle.path), "plain")
    done = rt("update", "--l3-cache-schema", "L3:0=f;1=f", "plain")
    assert done.returncode == 1 and "has no group of its own in resctrl" in done.stderr
    bundle.change(lambda config: config["linux"].update(intelRdt={"l3CacheSchema": "L3:0=1;1=1"}))
    rt.ok("run", "--detach", "--bundle", str(bundle.path), "box")
    rt.ok("update", "--l3-cache-schema", "L3:0=f;1=f", "--mem-bw-schema", "MB:0=50;1=50", "box")
    assert (fake.top / "box/schemata").read_text().split()[:2] == ["L3:0=f;1=f", "MB:0=50;1=50"]
    done = rt("update", "--pids-limit", "3", "--l3-cache-schema", "L2:0=f", "box")
    assert done.returncode == 1 and "there is no L2 to share out on this machine" in done.stderr
    assert json.loads((rt.root / "box/state.json").read_text())["resources"] == {}
    rt.clean()
