"""Scheduling, I/O priority, CPUs, memory policy, personality: who sets it, when, and what is clamped."""

from __future__ import annotations

from typing import Any

import pytest
from lab.plans import (
    Config,
    compiled,
    degraded,
    every,
    names,
    one,
    place,
    root_config,
    root_facts,
    spec_of,
    user_config,
    user_facts,
)

from rootless_rt.errors import RtError
from rootless_rt.host.facts import HostFacts
from rootless_rt.plan.execute import exec_plan
from rootless_rt.plan.model import Plan, Policy
from rootless_rt.spec.names import CAPABILITIES, RLIMITS

OTHER, FIFO, RR, BATCH, IDLE = 0, 1, 2, 3, 5
NICE, RTPRIO = RLIMITS["RLIMIT_NICE"], RLIMITS["RLIMIT_RTPRIO"]


def asking(config: Config, *, linux: Config | None = None, **process: Any) -> Config:
    config["process"].update(process)
    config["linux"].update(linux or {})
    return config


def user(nice_limit: int = 0, rtprio: int = 0, now: tuple[int, int, int] = (OTHER, 0, 0)) -> HostFacts:
    facts = user_facts()
    facts.rlimits[NICE], facts.rlimits[RTPRIO] = (nice_limit, nice_limit), (rtprio, rtprio)
    facts.scheduling = now
    return facts


def tuned(made: Plan) -> list[tuple[Any, ...]]:
    return [(op.name, *op.args) for op in made.tuning]


def scheduled(facts: HostFacts, **scheduler: Any) -> Plan:
    return compiled(asking(user_config(), scheduler=scheduler), facts)


def executed(config: Config) -> Plan:
    files = {kind: f"/proc/7/ns/{kind}" for kind in ("user", "pid", "mount")}
    return exec_plan(spec_of(config), user(), Policy("box"), files)


def test_a_plain_container_has_none_of_it():
    made = compiled(user_config())
    assert made.tuning == []
    assert not {"affinity", "memory_policy", "personality"} & set(names(made))


def test_root_gets_every_policy_as_it_asks():
    config = asking(
        root_config(),
        scheduler={
            "policy": "SCHED_DEADLINE",
            "runtime": 2000,
            "deadline": 3000,
            "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM"],
        },
        ioPriority={"class": "IOPRIO_CLASS_RT", "priority": 0},
    )
    made = compiled(config, root_facts(), strict=True)
    assert tuned(made) == [("scheduler", 6, 3, "0", 0, 2000, 3000, 0), ("io_priority", 1, 0)]
    assert made.degradations == []
    config["process"]["scheduler"] = {"policy": "SCHED_RR", "priority": 99}
    assert tuned(compiled(config, root_facts()))[0] == ("scheduler", RR, 0, "0", 99, 0, 0, 0)


@pytest.mark.parametrize("lost", ["capability", "initial user namespace"])
def test_root_without_the_privilege_of_the_host_is_like_a_user(lost):
    config = asking(root_config(), scheduler={"policy": "SCHED_OTHER", "nice": -5})
    facts = root_facts()
    facts.rlimits[NICE] = (0, 0)
    if lost == "capability":
        facts.capabilities &= ~(1 << CAPABILITIES["CAP_SYS_NICE"])
    else:
        facts.uid_map = [(0, 1000, 1)]
    assert degraded(compiled(config, facts, strict=False)).keys() >= {"process.scheduler.nice"}
    with pytest.raises(RtError, match=r"process\.scheduler\.nice: -5 is not possible"):
        compiled(config, facts, strict=True)


@pytest.mark.parametrize(
    ("asked", "limit", "now", "got"),
    [
        (0, 0, 0, 0),
        (7, 0, 0, 7),
        (-1, 0, 0, 0),
        (-20, 25, 0, -5),  # 20 - limit
        (-5, 25, 0, -5),
        (-20, 40, 0, -20),
        (-20, (1 << 64) - 1, 0, -20),
        (0, 0, 10, 10),  # what the caller has given up it does not get back
        (5, 15, 10, 5),
        (-3, 0, -4, -3),
    ],
)
def test_a_nice_value_is_clamped_to_what_the_caller_may_have(asked, limit, now, got):
    for name in ("SCHED_OTHER", "SCHED_BATCH"):
        made = scheduled(user(limit, now=(OTHER, now, 0)), policy=name, nice=asked)
        assert made.tuning[0].args[2] == str(got)
        assert ("process.scheduler.nice" in degraded(made)) == (asked != got)


@pytest.mark.parametrize("policy", ["SCHED_FIFO", "SCHED_RR"])
def test_real_time_is_for_whom_the_limit_allows_it(policy):
    made = scheduled(user(), policy=policy, priority=5)
    assert made.tuning == [] and "RLIMIT_RTPRIO" in degraded(made)["process.scheduler"]
    assert "rtprio" in made.degradations[0].fix
    made = scheduled(user(rtprio=50), policy=policy, priority=5)
    assert made.tuning[0].args[3] == 5 and made.degradations == []
    made = scheduled(user(rtprio=50), policy=policy, priority=99)
    assert made.tuning[0].args[3] == 50 and list(degraded(made)) == ["process.scheduler.priority"]


def test_a_real_time_caller_may_pass_on_what_it_has():
    made = scheduled(user(now=(FIFO, 0, 30)), policy="SCHED_FIFO", priority=40)
    assert made.tuning[0].args[3] == 30
    made = scheduled(user(now=(FIFO, 0, 30)), policy="SCHED_RR", priority=30)
    assert made.tuning == []
    keep = ["SCHED_FLAG_KEEP_POLICY"]
    made = scheduled(user(now=(FIFO, 0, 30)), policy="SCHED_RR", priority=30, flags=keep)
    assert made.tuning[0].args[:4] == (RR, 8, "0", 30) and made.degradations == []


def test_an_idle_caller_stays_idle_unless_its_nice_limit_allows_more():
    assert scheduled(user(now=(IDLE, 0, 0)), policy="SCHED_OTHER").outside == []
    assert scheduled(user(now=(IDLE, 0, 0)), policy="SCHED_IDLE").degradations == []
    assert scheduled(user(20, now=(IDLE, 0, 0)), policy="SCHED_BATCH").degradations == []


def test_a_deadline_takes_root_and_no_limit_helps():
    made = scheduled(user(40, 99), policy="SCHED_DEADLINE", runtime=2000, deadline=3000)
    assert made.tuning == [] and list(degraded(made)) == ["process.scheduler"]
    flags = ["SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_KEEP_PARAMS"]
    made = scheduled(user(), policy="SCHED_DEADLINE", flags=flags)
    assert made.tuning[0].args[1] == 0x18 and made.degradations == []


def test_the_real_time_class_of_io_becomes_the_best_other_one():
    made = compiled(asking(user_config(), ioPriority={"class": "IOPRIO_CLASS_RT", "priority": 4}), user())
    assert tuned(made) == [("io_priority", 2, 0)] and list(degraded(made)) == ["process.ioPriority"]
    made = compiled(asking(user_config(), ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 7}), user())
    assert tuned(made) == [("io_priority", 2, 7)] and made.degradations == []
    made = compiled(asking(user_config(), ioPriority={"class": "IOPRIO_CLASS_IDLE"}), user())
    assert tuned(made) == [("io_priority", 3, 0)]


def memory(**fields: Any) -> Config:
    return asking(user_config(), linux={"memoryPolicy": fields, "personality": {"domain": "LINUX32"}})


def test_memory_policy_and_personality_are_set_by_the_process_before_what_inherits_them():
    made = compiled(memory(mode="MPOL_BIND", nodes="0-1,3", flags=["MPOL_F_STATIC_NODES"]))
    assert one(made, "memory_policy") == {"mode": 2 | 1 << 15, "nodes": [0, 1, 3]}
    assert one(made, "personality") == {"domain": 8}
    for name in ("memory_policy", "personality"):
        assert place(made, "clone") < place(made, name) < place(made, "ids") < place(made, "wait_start")
    assert "set_mempolicy" in made.tolerated[place(made, "memory_policy")].why
    for name in ("memory_policy", "personality"):
        assert name in names(executed(memory(mode="MPOL_LOCAL")))


def test_affinity_is_of_exec_alone():
    config = asking(user_config(), execCPUAffinity={"initial": "0", "final": "0-1"})
    assert "affinity" not in names(compiled(config))
    made = executed(config)
    first, last = [index for index, name in enumerate(names(made)) if name == "affinity"]
    assert [item["cpus"] for item in every(made, "affinity")] == [[0], [0, 1]]
    assert first < names(made).index("join") < place(made, "clone") < place(made, "sync") < last
    assert last < place(made, "ids")


@pytest.mark.parametrize(
    ("affinity", "count"), [({}, 0), ({"initial": "", "final": ""}, 0), ({"final": "1"}, 1)]
)
def test_without_a_list_the_affinity_is_left_alone(affinity, count):
    made = executed(asking(user_config(), execCPUAffinity=affinity))
    assert names(made).count("affinity") == count
