"""Scheduling, I/O priority, CPUs, memory policy, personality and limits of an ordinary user's container."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle, Config
from lab.inside import held, output, read, refusal, told
from lab.ranges import map_ranges
from lab.runtime import Runtime
from lab.scheduling import io_priority, scheduling
from lab.terminal import Session
from lab.users import User
from lab.wrapped import Wrapped

CPUS = sorted(os.sched_getaffinity(0))
needs_two_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")


def process(**fields: object) -> Callable[[Config], None]:
    return lambda config: config["process"].update(fields)


def linux(**fields: object) -> Callable[[Config], None]:
    return lambda config: config["linux"].update(fields)


def running(rt: Runtime, box: Bundle) -> tuple[int, list[str]]:
    """(pid, what rt said) of a container that goes on until the test ends."""
    box.run(["/bin/sleep", "1000"])
    done = rt("run", "--detach", "--bundle", str(box.path), "c")
    assert done.returncode == 0, done.stderr
    return rt.state("c")["pid"], done.stderr.splitlines()


# Scheduler

NICE = "cut -d ' ' -f 19 /proc/self/stat"  # proc_pid_stat(5); busybox may lack nice(1)


@pytest.mark.parametrize(("name", "number"), [("SCHED_OTHER", 0), ("SCHED_BATCH", 3), ("SCHED_IDLE", 5)])
@pytest.mark.covers("process.scheduler", "process.scheduler.policy")
def test_an_ordinary_policy_is_set(rt: Runtime, bundle: MakeBundle, name: str, number: int) -> None:
    pid = held(rt, bundle().change(process(scheduler={"policy": name})), "c")
    assert scheduling(pid)["policy"] == number == os.sched_getscheduler(pid)


@pytest.mark.covers("process.scheduler.nice")
def test_a_higher_nice_value_is_set_and_hooks_and_programs_inherit_it(
    rt: Runtime, bundle: MakeBundle
) -> None:
    box = bundle(f"cat /hooked; {NICE}").change(process(scheduler={"policy": "SCHED_OTHER", "nice": 7}))
    hook = {"path": "/bin/sh", "args": ["sh", "-c", NICE + " > /hooked"], "env": ["PATH=/bin"]}
    box.change(lambda config: config.update(hooks={"startContainer": [hook]}))
    assert output(rt, box) == "7\n7"


@pytest.mark.covers("process.scheduler.nice")
def test_a_negative_nice_value_is_clamped_and_named(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle(NICE).change(process(scheduler={"policy": "SCHED_OTHER", "nice": -5}))
    said, warning = told(rt, box)
    line, hint = warning.splitlines()
    assert said == "0" and line.startswith("rt: warning: process.scheduler.nice: -5 -> 0: ")
    assert hint.startswith("hint: an admin can allow it: nice in /etc/security/limits.d")
    assert "process.scheduler.nice: -5 is not possible" in refusal(rt, box, before=("--degrade=strict",))


@pytest.mark.parametrize(
    "scheduler",
    [
        {"policy": "SCHED_FIFO", "priority": 1},
        {"policy": "SCHED_RR", "priority": 99},
        {"policy": "SCHED_DEADLINE", "runtime": 10000, "deadline": 100000},
    ],
    ids=lambda value: value["policy"],
)
@pytest.mark.covers("process.scheduler.policy")
def test_real_time_is_left_out_and_named(rt: Runtime, bundle: MakeBundle, scheduler: Config) -> None:
    box = bundle().change(process(scheduler=scheduler))
    pid, said = running(rt, box)
    assert os.sched_getscheduler(pid) == os.SCHED_OTHER
    assert said[0].startswith(f"rt: warning: process.scheduler: {scheduler['policy']} -> ")
    (degraded,) = rt.state("c")["degraded"]
    assert degraded["field"] == "process.scheduler"
    assert "process.scheduler: " in refusal(rt, box, before=("--degrade=strict",))


@pytest.mark.covers("process.scheduler.priority", "process.scheduler.flags SCHED_FLAG_RESET_ON_FORK")
def test_what_the_caller_has_may_be_passed_on(rt: Runtime, bundle: MakeBundle) -> None:
    real_time = Wrapped(rt, "chrt", "--fifo", "20", as_root=True)
    scheduler = {"policy": "SCHED_FIFO", "priority": 30, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    pid, said = running(real_time, bundle().change(process(scheduler=scheduler)))
    found = scheduling(pid)
    assert (found["policy"], found["priority"], found["flags"] & 1) == (os.SCHED_FIFO, 20, 1)
    assert said[0].startswith("rt: warning: process.scheduler.priority: 30 -> 20: RLIMIT_RTPRIO here is 20")


def test_a_nice_caller_keeps_its_nice_value(rt: Runtime, bundle: MakeBundle) -> None:
    favoured = Wrapped(rt, "nice", "-n", "-6", as_root=True)
    box = bundle(NICE).change(process(scheduler={"policy": "SCHED_BATCH", "nice": -4}))
    assert output(favoured, box) == "-4"
    modest = Wrapped(rt, "nice", "-n", "5")
    said, warning = told(modest, box.change(process(scheduler={"policy": "SCHED_OTHER"})))
    assert said == "5" and "process.scheduler.nice: 0 -> 5" in warning


@pytest.mark.covers("process.scheduler.priority")
def test_the_limit_of_the_caller_allows_real_time(rt: Runtime, bundle: MakeBundle) -> None:
    allowed = Wrapped(rt, "prlimit", "--rtprio=30:30", as_root=True)
    if subprocess.run([*allowed.prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs CAP_SYS_RESOURCE, to raise a hard limit")
    pid = held(allowed, bundle().change(process(scheduler={"policy": "SCHED_RR", "priority": 25})), "c")
    assert scheduling(pid)["priority"] == 25


@pytest.mark.covers("process.scheduler.flags SCHED_FLAG_KEEP_POLICY")
def test_policy_and_parameters_can_be_kept(rt: Runtime, bundle: MakeBundle) -> None:
    batch = Wrapped(rt, "chrt", "--batch", "0", "nice", "-n", "3")
    keep = {"policy": "SCHED_IDLE", "flags": ["SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_KEEP_PARAMS"]}
    found = scheduling(held(batch, bundle().change(process(scheduler=keep)), "c"))
    assert (found["policy"], found["nice"]) == (os.SCHED_BATCH, 3)


def test_a_root_that_is_another_user_outside_is_scheduled_too(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    box = map_ranges(bundle(), alice).change(
        process(user={"uid": 1000, "gid": 1000}, scheduler={"policy": "SCHED_BATCH", "nice": 2})
    )
    found = scheduling(held(rt, box, "c"))
    assert (found["policy"], found["nice"]) == (os.SCHED_BATCH, 2)


def test_a_policy_that_linux_lacks_is_an_error_and_leaves_nothing(rt: Runtime, bundle: MakeBundle) -> None:
    said = refusal(rt, bundle().change(process(scheduler={"policy": "SCHED_ISO"})))
    assert "process.scheduler: " in said and "sched_setattr: invalid argument" in said
    assert "hint: Linux keeps the number of SCHED_ISO" in said


@pytest.mark.parametrize("flag", ["SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX"])
@pytest.mark.covers("process.scheduler.flags SCHED_FLAG_UTIL_CLAMP_MIN")
def test_utilization_clamps_work_or_are_refused_in_words(rt: Runtime, bundle: MakeBundle, flag: str) -> None:
    box = bundle().change(process(scheduler={"policy": "SCHED_OTHER", "flags": [flag]}))
    try:
        supported = "uclamp" in Path("/proc/self/sched").read_text()
    except OSError:
        pytest.skip("needs /proc/PID/sched, to know what the kernel has")
    if not supported:
        assert "hint: this kernel has no utilization clamps" in refusal(rt, box)
        return
    assert scheduling(held(rt, box, "c"))["min" if flag.endswith("MIN") else "max"] == 0


@pytest.mark.covers("process.scheduler")
def test_exec_schedules_as_the_container_unless_the_file_says_otherwise(
    rt: Runtime, bundle: MakeBundle, place: Path
) -> None:
    box = bundle().change(process(scheduler={"policy": "SCHED_OTHER", "nice": 4}))
    held(rt, box.change(process(ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 6})), "c")
    assert rt.ok("exec", "c", "sh", "-c", NICE) == "4\n"
    own = {"policy": "SCHED_BATCH", "nice": 9}
    assert with_file(rt, place, NICE + "; ionice", scheduler=own) == "9\nbest-effort: prio 6\n"


def with_file(rt: Runtime, place: Path, script: str, **fields: Any) -> str:
    """What a script prints that is executed in `c` by --process."""
    path = place / "process.json"
    whole = {"cwd": "/", "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"], **fields}
    path.write_text(json.dumps(whole))
    return rt.ok("exec", "--process", str(path), "c")


def test_a_wrong_scheduler_of_a_file_is_named_with_it(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    held(rt, bundle(), "c")
    path = place / "process.json"
    path.write_text(json.dumps({"cwd": "/", "args": ["id"], "scheduler": {"policy": "SCHED_FAST"}}))
    done = rt("exec", "--process", str(path), "c")
    assert done.returncode == 255 and f"{path}: process.scheduler.policy: unknown name" in done.stderr


# I/O priority


@pytest.mark.parametrize(
    ("name", "level", "got"),
    [
        ("IOPRIO_CLASS_BE", 0, (2, 0)),
        ("IOPRIO_CLASS_BE", 7, (2, 7)),
        ("IOPRIO_CLASS_IDLE", 0, (3, 0)),
    ],
)
@pytest.mark.covers("process.ioPriority", "process.ioPriority.class", "process.ioPriority.priority")
def test_an_io_priority_is_set(
    rt: Runtime, bundle: MakeBundle, name: str, level: int, got: tuple[int, int]
) -> None:
    box = bundle().change(process(ioPriority={"class": name, "priority": level}))
    assert io_priority(held(rt, box, "c")) == got


@pytest.mark.covers("process.ioPriority.class")
def test_the_real_time_class_becomes_the_best_of_the_other_and_is_named(
    rt: Runtime, bundle: MakeBundle
) -> None:
    box = bundle(["ionice"]).change(process(ioPriority={"class": "IOPRIO_CLASS_RT", "priority": 5}))
    said, warning = told(rt, box)
    assert said == "best-effort: prio 0"
    assert warning.startswith("rt: warning: process.ioPriority: IOPRIO_CLASS_RT 5 -> IOPRIO_CLASS_BE 0")
    assert "process.ioPriority: " in refusal(rt, box, before=("--degrade=strict",))


# Memory policy and personality


MEMORY = [
    ("MPOL_DEFAULT", None, [], "default"),
    ("MPOL_LOCAL", None, [], "local"),
    ("MPOL_PREFERRED", "0", [], "prefer:0"),
    ("MPOL_BIND", "0", [], "bind:0"),
    ("MPOL_INTERLEAVE", "0", [], "interleave:0"),
    ("MPOL_PREFERRED_MANY", "0", [], "prefer (many):0"),
    ("MPOL_WEIGHTED_INTERLEAVE", "0", [], "weighted interleave:0"),
    ("MPOL_BIND", "0", ["MPOL_F_STATIC_NODES"], "bind=static:0"),
    ("MPOL_INTERLEAVE", "0", ["MPOL_F_RELATIVE_NODES"], "interleave=relative:0"),
    ("MPOL_BIND", "0", ["MPOL_F_NUMA_BALANCING"], "bind=balancing:0"),
]


@pytest.mark.parametrize(("mode", "nodes", "flags", "shown"), MEMORY, ids=str)
@pytest.mark.covers(
    "linux.memoryPolicy", "linux.memoryPolicy.mode", "linux.memoryPolicy.nodes", "linux.memoryPolicy.flags"
)
def test_a_memory_policy_is_set(
    rt: Runtime, bundle: MakeBundle, mode: str, nodes: str | None, flags: list[str], shown: str
) -> None:
    if not Path("/proc/self/numa_maps").exists():
        pytest.skip("needs a kernel with NUMA")
    policy = {"mode": mode, "flags": flags, **({"nodes": nodes} if nodes else {})}
    box = bundle("head -n 1 /proc/self/numa_maps").change(linux(memoryPolicy=policy))
    done = rt("run", "--bundle", str(box.path), "c")
    if "set_mempolicy: invalid argument" in done.stderr:
        pytest.skip(f"this kernel does not know {mode} {flags}")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    # As a name of the policy may hold a blank: "ADDRESS policy name:nodes file=..."
    assert done.stdout.split(" ", 1)[1].startswith(shown + (" " if ":" in shown or nodes is None else ""))


def test_exec_has_the_memory_policy_too(rt: Runtime, bundle: MakeBundle) -> None:
    if not Path("/proc/self/numa_maps").exists():
        pytest.skip("needs a kernel with NUMA")
    held(rt, bundle().change(linux(memoryPolicy={"mode": "MPOL_BIND", "nodes": "0"})), "c")
    assert " bind:0 " in rt.ok("exec", "c", "head", "-n", "1", "/proc/self/numa_maps")


def test_nodes_that_are_not_there_are_refused_with_the_field(rt: Runtime, bundle: MakeBundle) -> None:
    if Path("/sys/devices/system/node/node1023").exists() or not Path("/proc/self/numa_maps").exists():
        pytest.skip("needs a kernel with NUMA, and less than 1024 nodes")
    said = refusal(rt, bundle().change(linux(memoryPolicy={"mode": "MPOL_BIND", "nodes": "1023"})))
    assert "linux.memoryPolicy: set_mempolicy: invalid argument" in said and "\nhint: " in said


@pytest.mark.covers("linux.personality", "linux.personality.domain", "linux.personality.flags")
def test_a_personality_shows_a_32_bit_machine(rt: Runtime, bundle: MakeBundle) -> None:
    expected = {"x86_64": "i686", "aarch64": "armv8l"}.get(platform.machine())
    if expected is None:
        pytest.skip(f"does not know the 32-bit name of {platform.machine()}")
    box = bundle("uname -m").change(linux(personality={"domain": "LINUX32"}))
    assert output(rt, box) == expected
    box.change(linux(personality={"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}))
    said, warning = told(Wrapped(rt, "setarch", "linux32"), box)
    assert said == platform.machine()
    assert warning.startswith("rt: warning: linux.personality.flags: the runtime-spec defines no flags")
    held(rt, box.change(linux(personality={"domain": "LINUX32"})), "c")
    assert rt.ok("exec", "c", "uname", "-m").strip() == expected


# CPUs of exec

ALLOWED = ["grep", "Cpus_allowed_list", "/proc/self/status"]


@needs_two_cpus
@pytest.mark.covers(
    "process.execCPUAffinity", "process.execCPUAffinity.initial", "process.execCPUAffinity.final"
)
def test_exec_runs_on_the_final_cpus_and_without_them_stays_on_the_initial(
    rt: Runtime, bundle: MakeBundle, place: Path
) -> None:
    first, second = CPUS[:2]
    whole = sorted(os.sched_getaffinity(0))
    box = bundle().change(process(execCPUAffinity={"initial": str(first), "final": str(second)}))
    assert sorted(os.sched_getaffinity(held(rt, box, "c"))) == whole, "it is not for create and run"
    assert rt.ok("exec", "c", *ALLOWED).split()[1] == str(second)
    script = " ".join(ALLOWED)
    assert with_file(rt, place, script).split()[1] == str(second), "the config's, where a file says nothing"
    assert with_file(rt, place, script, execCPUAffinity={"initial": str(first)}).split()[1] == str(first)
    both = f"{first},{second}"
    said = with_file(rt, place, script, execCPUAffinity={"initial": str(first), "final": both}).split()[1]
    assert said in (both, f"{first}-{second}")


@needs_two_cpus
def test_without_settings_exec_has_the_cpus_of_its_caller(rt: Runtime, bundle: MakeBundle) -> None:
    held(rt, bundle(), "c")
    bound = Wrapped(rt, "taskset", "-c", str(CPUS[1]))
    assert bound.ok("exec", "c", *ALLOWED).split()[1] == str(CPUS[1])


@pytest.mark.covers("process.execCPUAffinity.final")
def test_cpus_that_are_not_there_are_refused_with_the_field(
    rt: Runtime, bundle: MakeBundle, place: Path
) -> None:
    if Path("/sys/devices/system/cpu/cpu8191").exists():
        pytest.skip("needs less than 8192 CPUs")
    held(rt, bundle().change(process(execCPUAffinity={"final": "8191"})), "c")
    done = rt("exec", "c", "true")
    assert done.returncode == 255
    assert "process.execCPUAffinity.final: sched_setaffinity: invalid argument\nhint: none of" in done.stderr


def test_a_wrong_list_is_refused_before_anything_is_made(rt: Runtime, bundle: MakeBundle) -> None:
    said = refusal(rt, bundle().change(process(execCPUAffinity={"initial": "0-3, 7"})))
    assert "process.execCPUAffinity.initial: expected a list such as 0-3,7" in said


# Size of the terminal


@pytest.mark.covers("process.consoleSize")
def test_exec_takes_the_size_of_the_file_where_the_caller_has_no_terminal(
    rt: Runtime, bundle: MakeBundle, place: Path
) -> None:
    held(rt, bundle(), "c")
    size = {"height": 9, "width": 99}
    assert with_file(rt, place, "stty size", terminal=True, consoleSize=size) == "9 99\r\n"
    size = {"height": 0, "width": 0}
    assert with_file(rt, place, "tty", terminal=True, consoleSize=size) == "/dev/pts/0\r\n"


@pytest.mark.covers("process.consoleSize.height", "process.consoleSize.width")
def test_a_size_of_zero_is_that_of_the_caller_s_terminal(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("stty size").change(process(terminal=True, consoleSize={"height": 0, "width": 0}))
    with Session(rt, "run", "--bundle", str(box.path), "c", rows=33, columns=111) as shell:
        shell.expect("33 111\r\n")
        assert shell.wait() == 0
    held(rt, bundle().change(process(consoleSize={"height": 0, "width": 0})), "c")
    with Session(rt, "exec", "-t", "c", "stty", "size", rows=34, columns=112) as shell:
        shell.expect("34 112\r\n")
        assert shell.wait() == 0


# Limits of exec


@pytest.mark.covers("process.oomScoreAdj")
def test_exec_has_the_container_s_oom_score(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    pid = held(rt, bundle().change(process(oomScoreAdj=555)), "c")
    assert read(pid, "oom_score_adj") == "555\n"
    assert rt.ok("exec", "c", "cat", "/proc/self/oom_score_adj") == "555\n"
    assert with_file(rt, place, "cat /proc/self/oom_score_adj", oomScoreAdj=777) == "777\n"


@pytest.mark.covers("process.rlimits[].hard")
def test_exec_clamps_a_limit_and_names_it(rt: Runtime, bundle: MakeBundle) -> None:
    limits = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 1000}]
    held(rt, bundle().change(process(rlimits=limits)), "c")
    tight = Wrapped(rt, "prlimit", "--nofile=400:400")
    done = tight("exec", "c", "sh", "-c", "ulimit -Sn; ulimit -Hn")
    assert (done.returncode, done.stdout) == (0, "100\n400\n")
    assert done.stderr.startswith("rt: warning: process.rlimits[0]: RLIMIT_NOFILE 1000 -> 400: ")
