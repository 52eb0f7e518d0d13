"""Limits changed while a container runs, statistics, memory that runs out: on cgroup v2 and systemd."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lab.machines.machine import Machine, MachineBundle
from lab.managers import DELEGATED

MEGABYTE = 1 << 20
USERS = pytest.mark.parametrize("user", ["root", "alice"])
EAT = "dd if=/dev/zero of=/dev/null bs=80M count=1 iflag=fullblock"


class Box:
    """A container that goes on; `cgroup` is its directory."""

    def __init__(self, machine: Machine, user: str, script: str, **resources: Any) -> None:
        self.machine, self.user = machine, user
        self.bundle = bundle_with(machine, user, script, **resources)
        done = self.rt("run", "--detach", "--bundle", self.bundle.path, "box")
        assert (done.code, done.stderr) == (0, ""), done
        pid = json.loads(self.rt("state", "box").stdout)["pid"]
        self.cgroup = "/sys/fs/cgroup" + machine.ok(f"sed -n s/^0:://p /proc/{pid}/cgroup").strip()

    def rt(self, *words: str, **options: Any) -> Any:
        return self.machine.rt(*words, user=self.user, **options)

    def files(self, *names: str) -> list[str]:
        return self.machine.ok(["cat", *(f"{self.cgroup}/{name}" for name in names)]).splitlines()

    def updated(self, *words: str) -> None:
        done = self.rt("update", *words, "box")
        assert (done.code, done.stdout, done.stderr) == (0, "", ""), (words, done)


def bundle_with(machine: Machine, user: str, script: str, **resources: Any) -> MachineBundle:
    bundle = machine.bundle(script, user=user)
    return bundle.change(lambda config: config["linux"].setdefault("resources", {}).update(resources))


@USERS
@pytest.mark.covers("update", "update --memory", "update --memory-swap", "update --pids-limit")
def test_limits_change_while_the_container_runs(machine: Machine, user: str) -> None:
    memory = {"limit": 64 * MEGABYTE, "swap": 96 * MEGABYTE}
    box = Box(machine, user, "exec sleep 1000", memory=memory, pids={"limit": 20})
    names = ("memory.max", "memory.swap.max", "pids.max")
    swap = machine.run(f"test -e {box.cgroup}/memory.swap.max").code == 0
    names = names if swap else (names[0], names[2])

    def shown() -> list[str]:
        found = box.files(*names)
        return found if swap else [found[0], "", found[1]]

    steps = [
        (["--memory", "48m"], [48 * MEGABYTE, 48 * MEGABYTE, 20]),
        (["--memory", "80m", "--memory-swap", "80m"], [80 * MEGABYTE, 0, 20]),
        (["--memory-swap", "90m"], [80 * MEGABYTE, 10 * MEGABYTE, 20]),
        (["--memory", "-1", "--pids-limit", "9"], ["max", "max", 9]),
        (["--memory", "50m"], [50 * MEGABYTE, "max", 9]),
    ]
    for words, wanted in steps:
        box.updated(*words)
        found = shown()
        assert [found[0], found[2]] == [str(wanted[0]), str(wanted[2])], words
        assert not swap or found[1] == str(wanted[1]), words
    done = box.rt("update", "--memory", "60m", "--pids-limit", "x", "box")
    assert done.code == 1 and "--pids-limit" in done.stderr and shown()[0] == str(50 * MEGABYTE)


@USERS
@pytest.mark.covers("update --cpu-quota", "update --cpu-period", "update --cpu-burst", "update --cpu-share")
def test_the_processor_s_share_changes_while_the_container_runs(machine: Machine, user: str) -> None:
    box = Box(machine, user, "exec sleep 1000", cpu={"shares": 512})
    steps = [
        (["--cpu-quota", "20000"], "cpu.max", "20000 100000"),
        (["--cpu-period", "50000"], "cpu.max", "20000 50000"),
        (["--cpu-burst", "20000"], "cpu.max.burst", "20000"),
        (["--cpu-quota", "10000", "--cpu-burst", "5000"], "cpu.max", "10000 50000"),
        (["--cpu-quota", "-1"], "cpu.max", "max 50000"),
        (["--cpu-share", "1024"], "cpu.weight", "100"),
        (["--cpu-idle", "1"], "cpu.idle", "1"),
        (["--cpu-idle", "0"], "cpu.weight", "100"),
    ]
    for words, name, wanted in steps:
        box.updated(*words)
        assert box.files(name) == [wanted], words


@USERS
@pytest.mark.covers("update --resources", "linux.resources.unified")
def test_systemd_does_not_take_an_update_back(machine: Machine, user: str) -> None:
    before = ("--systemd-cgroup",) if user == "root" else ()
    bundle = bundle_with(machine, user, "exec sleep 1000", pids={"limit": 20})
    done = machine.rt(*before, "run", "--detach", "--bundle", bundle.path, "box", user=user)
    assert (done.code, done.stderr) == (0, ""), done
    document = {
        "memory": {"limit": 40 * MEGABYTE},
        "pids": {"limit": 11},
        "unified": {"memory.high": "30000000"},
    }
    done = machine.rt("update", "-r", "-", "box", user=user, stdin=json.dumps(document))
    assert (done.code, done.stderr) == (0, ""), done
    machine.ok("systemctl daemon-reload" if user == "root" else "systemctl --user daemon-reload", user)
    pid = json.loads(machine.rt("state", "box", user=user).stdout)["pid"]
    where = "/sys/fs/cgroup" + machine.ok(f"sed -n s/^0:://p /proc/{pid}/cgroup").strip()
    assert where.endswith("/rt-box.scope")
    found = machine.ok(f"cd {where}; cat memory.max pids.max memory.high").split()
    assert found == [str(40 * MEGABYTE), "11", str(30000000 // 4096 * 4096)]


@USERS
@pytest.mark.covers("update --resources")
def test_a_refused_update_leaves_nothing_behind_in_systemd_either(machine: Machine, user: str) -> None:
    before = ("--systemd-cgroup",) if user == "root" else ()
    bundle = bundle_with(machine, user, "exec sleep 1000", pids={"limit": 20})
    assert machine.rt(*before, "run", "--detach", "--bundle", bundle.path, "box", user=user).code == 0
    words = "systemctl" if user == "root" else "systemctl --user"

    def shown() -> list[str]:
        properties = ["MemoryMax", "TasksMax", "CPUQuotaPerSecUSec"]
        asked = " ".join(f"-p {name}" for name in properties)
        return machine.ok(f"{words} show {asked} rt-box.scope", user).split()

    wanted = shown()
    document = {
        "memory": {"limit": 40 * MEGABYTE},
        "cpu": {"quota": 20000},
        "pids": {"limit": 11},
        "unified": {"memory.nothing": "1"},
    }
    done = machine.rt("update", "-r", "-", "box", user=user, stdin=json.dumps(document))
    assert done.code == 1 and 'unified["memory.nothing"]: this kernel has no' in done.stderr, done
    assert "TasksMax=20" in wanted and shown() == wanted
    pid = json.loads(machine.rt("state", "box", user=user).stdout)["pid"]
    where = "/sys/fs/cgroup" + machine.ok(f"sed -n s/^0:://p /proc/{pid}/cgroup").strip()
    assert machine.ok(f"cd {where}; cat memory.max pids.max").split() == ["max", "20"]


@USERS
@pytest.mark.covers("linux.resources.memory.checkBeforeUpdate")
def test_a_limit_below_what_is_in_use_is_refused_where_that_is_asked(machine: Machine, user: str) -> None:
    memory = {"limit": 64 * MEGABYTE, "checkBeforeUpdate": True}
    box = Box(machine, user, "exec sleep 1000", memory=memory)
    done = box.rt("update", "--memory", "8k", "--pids-limit", "3", "box")
    assert done.code == 1 and "--memory: 8192 is below what is in use, " in done.stderr
    assert box.files("memory.max", "pids.max")[0] == str(64 * MEGABYTE)


@USERS
@pytest.mark.covers("events", "events --stats")
def test_the_statistics_are_those_of_the_kernel(machine: Machine, user: str) -> None:
    box = Box(machine, user, "exec sleep 1000", memory={"limit": 64 * MEGABYTE}, pids={"limit": 20})
    done = box.rt("events", "--stats", "box")
    assert (done.code, done.stderr) == (0, ""), done
    data = json.loads(done.stdout)["data"]
    assert data["pids"] == {"current": 1, "limit": 20}
    assert data["memory"]["usage"]["limit"] == 64 * MEGABYTE
    assert 0 < data["memory"]["usage"]["usage"] < 64 * MEGABYTE
    assert data["cpu"]["usage"]["total"] > 0
    raw = dict(line.split() for line in box.files("memory.stat"))
    assert set(data["memory"]["raw"]) == set(raw)


@USERS
@pytest.mark.covers("events", "events --interval")
def test_memory_that_runs_out_is_told(machine: Machine, user: str) -> None:
    memory = {"limit": 24 * MEGABYTE, "swap": 24 * MEGABYTE}
    script = f"mkfifo /go; read line </go; {EAT}; exec sleep 1000"
    box = Box(machine, user, script, memory=memory)
    told = f"{box.bundle.path}/told"
    follow = (
        f"rt events --interval 1h box >{told} & echo $! >{told}.pid; cd {box.bundle.path}/rootfs;"
        f" until ls -l /proc/$(cat {told}.pid)/fd 2>&1 | grep -q memory.events; do sleep 0.1; done;"
        f" until [ -p go ]; do sleep 0.1; done; echo >go;"
        f" until grep -q oom {told}; do sleep 0.1; done; rt delete --force box; wait"
    )
    machine.ok(follow, user)
    lines = [json.loads(line) for line in machine.ok(["cat", told]).splitlines()]
    assert lines == [{"type": "oom", "id": "box"}]


def own_words(limit: int) -> str:
    return f"rt: warning: the container ran out of memory (memory.max={limit})\n"


LIKELY = (
    "rt: warning: the container most likely ran out of memory: the kernel has killed for that in user.slice\n"
)


@USERS
@pytest.mark.covers("run", "linux.resources.memory.limit")
def test_a_container_killed_for_its_memory_says_why(machine: Machine, user: str) -> None:
    memory = {"limit": 24 * MEGABYTE, "swap": 24 * MEGABYTE}
    bundle = bundle_with(machine, user, f"exec {EAT}", memory=memory)
    done = machine.rt("run", "--bundle", bundle.path, "box", user=user)
    # alice's is in a scope, which systemd may have removed before rt looks.
    said = {own_words(24 * MEGABYTE), *([LIKELY] if user == "alice" else [])}
    assert done.code == 137 and done.stderr in said, done


def test_when_systemd_has_removed_the_scope_the_slice_still_tells(machine: Machine) -> None:
    memory = {"limit": 24 * MEGABYTE, "swap": 24 * MEGABYTE}
    bundle = bundle_with(machine, "alice", f"mkfifo /go; read line </go; exec {EAT}", memory=memory)
    gone = f"{DELEGATED}/user.slice/rt-box.scope"
    script = (
        f"cd {bundle.path}; rt run --bundle . box 2>told & until [ -p rootfs/go ]; do sleep 0.1; done;"
        f" kill -STOP $!; echo >rootfs/go; while [ -e {gone} ]; do sleep 0.1; done; kill -CONT $!;"
        " wait $!; echo $?; cat told"
    )
    assert machine.ok(script, "alice") == f"137\n{LIKELY}"


def test_who_was_killed_by_somebody_is_told_nothing_of_memory(machine: Machine) -> None:
    bundle = bundle_with(machine, "alice", "exec sleep 1000", memory={"limit": 24 * MEGABYTE})
    script = (
        f"cd {bundle.path}; rt run --bundle . box 2>told &"
        " until rt kill box KILL 2>/dev/null; do sleep 0.1; done; wait $!; echo $?; cat told"
    )
    assert machine.ok(script, "alice") == "137\n"
