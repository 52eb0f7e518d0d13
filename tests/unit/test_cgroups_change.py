"""Changing limits on files that stand for the kernel's, which refuses what the kernel would refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rootless_rt.cgroups import apply
from rootless_rt.cgroups.apply import write_limits
from rootless_rt.cgroups.change import Change, folder_of, restoring
from rootless_rt.cgroups.limits import Limit
from rootless_rt.cgroups.none import NoCgroup
from rootless_rt.cgroups.v1 import V1
from rootless_rt.cgroups.v2 import V2
from rootless_rt.errors import RtError


class Plain(V2):
    """A v2 cgroup on plain files."""

    def apply(self, limits: list[Limit]) -> None:
        write_limits(limits, lambda controller: self.paths[0])


class Kernel:
    """Keeps what was written, in order; refuses swap below memory, quota below burst, and what is `bad`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[tuple[str, str]] = []
        self.bad: set[tuple[str, str]] = set()

    def number(self, name: str) -> int:
        path = self.folder / name
        text = path.read_text().strip() if path.exists() else "max"
        return 1 << 64 if text == "max" else int(text)

    def put(self, path: str, text: str) -> None:
        name, file = Path(path).name, Path(path)
        if (name, text) in self.bad:
            raise OSError(16, "Device or resource busy")
        old = file.read_text()
        file.write_text(text)
        both, alone = self.number("memory.memsw.limit_in_bytes"), self.number("memory.limit_in_bytes")
        if both < alone or self.number("cpu.cfs_quota_us") < self.number("cpu.cfs_burst_us") < 1 << 64:
            file.write_text(old)
            raise OSError(22, "Invalid argument")
        self.written.append((name, text))


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel(tmp_path)
    monkeypatch.setattr(apply.fs, "put", made.put)
    return made


def changed(kernel: Kernel, values: dict[str, str], *writes: tuple[str, str]) -> Change:
    for name, text in values.items():
        (kernel.folder / name).write_text(text + "\n")
    limits = [Limit(f"linux.resources.{name}", name.partition(".")[0], (name, text)) for name, text in writes]
    return Change(Plain(str(kernel.folder)), limits)


MEMORY, BOTH = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
QUOTA, BURST = "cpu.cfs_quota_us", "cpu.cfs_burst_us"


@pytest.mark.parametrize(
    ("values", "writes", "order"),
    [
        ({MEMORY: "5", BOTH: "9"}, [(MEMORY, "20"), (BOTH, "30")], [BOTH, MEMORY]),
        ({MEMORY: "20", BOTH: "30"}, [(MEMORY, "5"), (BOTH, "9")], [MEMORY, BOTH]),
        ({MEMORY: "20", BOTH: "30"}, [(BOTH, "9"), (MEMORY, "5")], [MEMORY, BOTH]),
        ({QUOTA: "5", BURST: "5"}, [(QUOTA, "9"), (BURST, "9")], [QUOTA, BURST]),
        ({QUOTA: "9", BURST: "9"}, [(QUOTA, "5"), (BURST, "5")], [BURST, QUOTA]),
        (
            {"memory.max": "5", "memory.swap.max": "0"},
            [("memory.max", "4"), ("memory.swap.max", "9")],
            ["memory.swap.max", "memory.max"],
        ),
        (
            {"memory.max": "5", "memory.swap.max": "max"},
            [("memory.max", "4"), ("memory.swap.max", "9")],
            ["memory.max", "memory.swap.max"],
        ),
    ],
)
def test_limits_are_written_in_an_order_that_the_kernel_takes(
    kernel: Kernel, values: dict[str, str], writes: list[tuple[str, str]], order: list[str]
) -> None:
    changed(kernel, values, *writes).make()
    assert [name for name, _ in kernel.written] == order
    assert {(kernel.folder / name).read_text() for name, _ in writes} == {text for _, text in writes}


def test_all_goes_back_when_one_is_refused(kernel: Kernel) -> None:
    values = {MEMORY: "5", BOTH: "9", "pids.max": "max", "cpu.shares": "1024"}
    kernel.bad.add(("cpu.shares", "7"))
    change = changed(kernel, values, (MEMORY, "20"), (BOTH, "30"), ("cpu.shares", "7"), ("pids.max", "3"))
    with pytest.raises(RtError, match=r"linux\.resources\.cpu\.shares: cannot write '7'"):
        change.make()
    assert change.undo() == []
    assert {name: (kernel.folder / name).read_text().strip() for name in values} == values


def test_what_cannot_go_back_is_named(kernel: Kernel) -> None:
    change = changed(kernel, {"pids.max": "5"}, ("pids.max", "3"))
    change.make()
    kernel.bad.add(("pids.max", "5"))
    assert change.undo() == [f"{kernel.folder}/pids.max"]


def test_a_cgroup_that_ends_being_idle_again_has_its_share_back(kernel: Kernel) -> None:
    change = changed(kernel, {"cpu.idle": "0", "cpu.weight": "77"}, ("cpu.idle", "1"))
    change.make()
    (kernel.folder / "cpu.weight").write_text("0")
    change.undo()
    assert kernel.written[1:] == [("cpu.idle", "0"), ("cpu.weight", "77")]


@pytest.mark.parametrize(
    ("file", "text", "content", "old"),
    [
        ("memory.max", "5", "max\n", "max"),
        ("cpu.max", "5 10", "max 100000\n", "max 100000"),
        ("cpuset.cpus", "0", "\n", "\n"),
        ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n", "0"),
        ("memory.oom_control", "1", "", None),
        ("io.max", "8:0 rbps=5", "8:16 rbps=1\n8:0 rbps=7 wbps=max\n", "8:0 rbps=7 wbps=max"),
        ("io.max", "8:0 rbps=5", "8:00 rbps=1\n", "8:0 rbps=max wbps=max riops=max wiops=max"),
        ("io.weight", "default 5", "default 100\n8:0 7\n", "default 100"),
        ("io.weight", "8:0 5", "default 100\n", "8:0 default"),
        ("blkio.throttle.read_bps_device", "8:0 5", "", "8:0 0"),
        ("rdma.max", "mlx hca_handle=1", "", "mlx hca_handle=max hca_object=max"),
        ("net_prio.ifpriomap", "eth0 5", "lo 0\neth0 2\n", "eth0 2"),
        ("misc.max", "res 5", "", "res max"),
    ],
)  # fmt: skip
def test_what_to_write_to_have_an_old_value_back(file: str, text: str, content: str, old: str | None) -> None:
    assert restoring(file, text, content) == old


def test_a_file_that_is_not_there_or_cannot_be_read_is_not_put_back(kernel: Kernel) -> None:
    change = changed(kernel, {}, ("memory.max", "5"))
    with pytest.raises(RtError, match=r"has no memory\.max"):
        change.make()
    assert change.undo() == [] and kernel.written == []


def test_the_folder_is_that_of_the_controller() -> None:
    v1 = V1({"cpu,cpuacct": "/c", "unified": "/u"})
    scope: Any = type("Scope", (), {"inner": v1})()
    cases: list[tuple[Any, str | None, str | None]] = [
        (v1, "/c", "/u"),
        (V1({"cpu": "/c"}), "/c", None),
        (V2("/v"), "/v", "/v"),
        (NoCgroup("none"), None, None),
        (scope, "/c", "/u"),
    ]
    for manager, cpu, huge in cases:
        assert (folder_of(manager)("cpu"), folder_of(manager)("hugetlb")) == (cpu, huge)
