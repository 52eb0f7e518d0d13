"""Scheduling, I/O priority and limits as root, with and without a user namespace around the container."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle, Config
from lab.inside import held, map_ids, read, refusal, set_namespace
from lab.runtime import Runtime
from lab.scheduling import io_priority, scheduling
from lab.wrapped import Wrapped

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="these containers are root's")

NAME = f"tune-{os.getpid()}"
DEADLINE = {"policy": "SCHED_DEADLINE", "runtime": 2_000_000, "deadline": 20_000_000, "period": 30_000_000}
DEADLINE_FLAGS = ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"]


def may(capability: int) -> bool:
    line = next(item for item in Path("/proc/self/status").read_text().splitlines() if "CapEff" in item)
    return bool(int(line.split()[1], 16) >> capability & 1)


needs_nice = pytest.mark.skipif(not may(23), reason="needs CAP_SYS_NICE")


def process(**fields: object) -> Callable[[Config], None]:
    return lambda config: config["process"].update(fields)


def in_userns(box: Bundle) -> Bundle:
    """Root of the container is nobody special outside."""
    return map_ids(set_namespace(box, "user"), (0, 700000, 1000))


def own(box: Bundle) -> Bundle:
    return box


# Where the container lies: in the host's user namespace, or in one of its own.
PLACES = pytest.mark.parametrize("lay", [own, in_userns], ids=["host", "own user namespace"])


def asked(pid: int, *names: str) -> tuple[int, ...]:
    found = scheduling(pid)
    return tuple(found[name] for name in names)


@needs_nice
@PLACES
@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ({"policy": "SCHED_OTHER", "nice": -20}, (0, -20, 0)),
        ({"policy": "SCHED_BATCH", "nice": -3}, (3, -3, 0)),
        ({"policy": "SCHED_FIFO", "priority": 99}, (1, 0, 99)),
        ({"policy": "SCHED_RR", "priority": 1}, (2, 0, 1)),
    ],
    ids=repr,
)
@pytest.mark.covers("process.scheduler.policy", "process.scheduler.nice", "process.scheduler.priority")
def test_every_policy_is_set_and_inherited_by_exec(
    root_rt: Runtime,
    root_bundle: MakeBundle,
    lay: Callable[[Bundle], Bundle],
    scheduler: Config,
    expected: tuple[int, ...],
    place: Path,
) -> None:
    box = lay(root_bundle(["/bin/sleep", "1000"])).change(process(scheduler=scheduler))
    box.change(lambda config: config["linux"].pop("resources"))
    # In the caller's cgroup: where real time is shared out to cgroups, a new one has none.
    root_rt.ok("--cgroup-manager=disabled", "run", "--detach", "--bundle", str(box.path), NAME)
    assert asked(root_rt.state(NAME)["pid"], "policy", "nice", "priority") == expected
    root_rt.ok("exec", "--detach", "--pid-file", str(place / "pid"), NAME, "sleep", "1000")
    assert asked(int((place / "pid").read_text()), "policy", "nice", "priority") == expected


@needs_nice
@PLACES
@pytest.mark.covers(
    "process.scheduler.runtime", "process.scheduler.deadline", "process.scheduler.period",
    "process.scheduler.flags", "process.scheduler.flags SCHED_FLAG_RECLAIM",
    "process.scheduler.flags SCHED_FLAG_DL_OVERRUN",
)  # fmt: skip
def test_a_deadline_is_set_although_it_outlives_no_fork(
    root_rt: Runtime, root_bundle: MakeBundle, lay: Callable[[Bundle], Bundle], place: Path
) -> None:
    box = lay(root_bundle()).change(process(scheduler={**DEADLINE, "flags": DEADLINE_FLAGS}))
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "grep ^policy /proc/self/sched > /tmp/hooked"]}
    box.change(lambda config: config.update(hooks={"startContainer": [{**hook, "env": ["PATH=/bin"]}]}))
    pid = held(root_rt, box, NAME)
    names = ("policy", "flags", "runtime", "deadline", "period")
    expected = (6, 7, 2_000_000, 20_000_000, 30_000_000)
    assert asked(pid, *names) == expected
    root_rt.ok("exec", "--detach", "--pid-file", str(place / "pid"), NAME, "sleep", "1000")
    assert asked(int((place / "pid").read_text()), *names) == expected
    assert (box.rootfs / "tmp/hooked").read_text().split()[-1] == "0", "what it starts is ordinary"


@needs_nice
def test_a_deadline_without_reset_runs_and_cannot_fork(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    box = root_bundle(["/bin/sh", "-c", "/bin/true; echo not reached"])
    box.change(process(scheduler=DEADLINE))
    done = root_rt("run", "--bundle", str(box.path), NAME)
    assert done.returncode == 2 and "fork" in done.stderr and done.stdout == ""


def test_more_deadline_than_there_is_is_refused_in_words(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    count = os.cpu_count() or 1
    limited = Path("/proc/sys/kernel/sched_rt_runtime_us").read_text().strip() != "-1"
    if not may(23) or not limited or count > 8:
        pytest.skip("needs CAP_SYS_NICE, a kernel that limits real time, and at most 8 CPUs to fill")
    whole = {"policy": "SCHED_DEADLINE", "runtime": 99_000_000, "deadline": 100_000_000}
    box = root_bundle().change(process(scheduler=whole))
    for number in range(count - 1):
        held(root_rt, box, f"{NAME}-{number}", "exec sleep 1000")
    said = refusal(root_rt, box)
    assert "process.scheduler: " in said and "sched_setattr: device or resource busy" in said
    assert "hint: the CPUs are promised" in said


@needs_nice
def test_a_cgroup_without_a_share_of_real_time_is_named(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    if not Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists():
        pytest.skip("needs a cgroup v1 hierarchy of a kernel that shares real time out (RT_GROUP_SCHED)")
    box = root_bundle().change(process(scheduler={"policy": "SCHED_RR", "priority": 5}))
    said = refusal(root_rt, box)
    assert "process.scheduler: sched_setattr: operation not permitted\nhint: real-time policies need" in said
    done = root_rt("--degrade=warn", "run", "--bundle", str(box.path), NAME)
    assert done.returncode == 0 and done.stderr.startswith("rt: warning: process.scheduler: "), done.stderr


@needs_nice
@PLACES
@pytest.mark.covers("process.ioPriority.class", "process.ioPriority.priority")
def test_the_real_time_class_of_io_is_set(
    root_rt: Runtime, root_bundle: MakeBundle, lay: Callable[[Bundle], Bundle], place: Path
) -> None:
    box = lay(root_bundle()).change(process(ioPriority={"class": "IOPRIO_CLASS_RT", "priority": 2}))
    assert io_priority(held(root_rt, box, NAME)) == (1, 2)
    root_rt.ok("exec", "--detach", "--pid-file", str(place / "pid"), NAME, "sleep", "1000")
    assert io_priority(int((place / "pid").read_text())) == (1, 2)


def without(rt: Runtime, capability: str) -> Wrapped:
    return Wrapped(rt, "setpriv", f"--bounding-set=-{capability}", f"--inh-caps=-{capability}")


def test_root_without_the_capability_is_refused_or_goes_on_with_less(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    box = root_bundle("cut -d ' ' -f 19 /proc/self/stat").change(
        process(scheduler={"policy": "SCHED_OTHER", "nice": -5})
    )
    less = without(root_rt, "sys_nice")
    assert "process.scheduler.nice: -5 is not possible" in refusal(less, box)
    done = less("--degrade=warn", "run", "--bundle", str(box.path), NAME)
    own = os.nice(0)
    assert (done.returncode, done.stdout) == (0, f"{own}\n")
    assert done.stderr.startswith(f"rt: warning: process.scheduler.nice: -5 -> {own}: ")


def test_a_filter_that_forbids_the_calls_comes_behind_them(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    rule = {"names": ["set_mempolicy", "sched_setattr", "personality"], "action": "SCMP_ACT_ERRNO"}
    box = root_bundle().change(
        lambda config: config["linux"].update(
            seccomp={"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{**rule, "errnoRet": 1}]},
            memoryPolicy={"mode": "MPOL_LOCAL"},
            personality={"domain": "LINUX32"},
        )
    )
    held(root_rt, box.change(process(scheduler={"policy": "SCHED_BATCH"})), NAME)
    if Path("/proc/self/numa_maps").exists():
        assert " local " in root_rt.ok("exec", NAME, "head", "-n", "1", "/proc/self/numa_maps")
    assert scheduling(root_rt.state(NAME)["pid"])["policy"] == os.SCHED_BATCH


# Limits


@pytest.mark.covers("process.rlimits", "process.rlimits[].type", "process.rlimits[].soft")
def test_a_lower_limit_is_set_for_the_container_and_exec(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    limits = [{"type": "RLIMIT_NOFILE", "soft": 55, "hard": 66}]
    pid = held(root_rt, root_bundle().change(process(rlimits=limits)), NAME)
    assert next(line for line in read(pid, "limits").splitlines() if "open files" in line).split()[3:5] == [
        "55",
        "66",
    ]
    assert root_rt.ok("exec", NAME, "sh", "-c", "ulimit -Sn; ulimit -Hn").split() == ["55", "66"]


@PLACES
@pytest.mark.covers("process.rlimits[].hard")
def test_a_hard_limit_is_raised_by_who_may(
    root_rt: Runtime, root_bundle: MakeBundle, lay: Callable[[Bundle], Bundle]
) -> None:
    limits = [{"type": "RLIMIT_NOFILE", "soft": 700, "hard": 800}]
    box = lay(root_bundle("ulimit -Sn; ulimit -Hn")).change(process(rlimits=limits))
    tight = Wrapped(root_rt, "prlimit", "--nofile=400:400")
    if may(24):
        assert tight.ok("run", "--bundle", str(box.path), NAME).split() == ["700", "800"]
        tight = Wrapped(root_rt, *tight.prefix, *without(root_rt, "sys_resource").prefix)
    assert "process.rlimits[0]: RLIMIT_NOFILE 800 is not possible" in refusal(tight, box)
    done = tight("--degrade=warn", "run", "--bundle", str(box.path), NAME)
    assert (done.returncode, done.stdout) == (0, "400\n400\n")
    assert done.stderr.startswith("rt: warning: process.rlimits[0]: RLIMIT_NOFILE 800 -> 400: ")


@PLACES
@pytest.mark.covers("process.oomScoreAdj")
def test_an_oom_score_is_raised_by_all_and_lowered_by_who_may(
    root_rt: Runtime, root_bundle: MakeBundle, lay: Callable[[Bundle], Bundle]
) -> None:
    box = lay(root_bundle(["/bin/cat", "/proc/self/oom_score_adj"])).change(process(oomScoreAdj=876))
    assert root_rt.ok("run", "--bundle", str(box.path), NAME) == "876\n"
    box.change(process(oomScoreAdj=-999))
    rt: Any = root_rt
    if may(24):
        assert root_rt.ok("run", "--bundle", str(box.path), NAME) == "-999\n"
        rt = without(root_rt, "sys_resource")
    assert "process.oomScoreAdj: -999 is not possible: " in refusal(rt, box)
    done = rt("--degrade=warn", "run", "--bundle", str(box.path), NAME)
    assert (done.returncode, done.stdout) == (0, Path("/proc/self/oom_score_adj").read_text())
