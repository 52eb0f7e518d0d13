"""Scheduling, I/O priority, CPU lists, memory policy, personality: what fits together, and hostile values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import configs

from rootless_rt.errors import RtError, SpecError
from rootless_rt.spec import tuning
from rootless_rt.spec.load import Spec, from_bytes

DEADLINE = {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 3000, "period": 4000}
LOW, HIGH = -(1 << 31), (1 << 31) - 1
BOTH = ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]


def loaded(process: dict[str, Any] | None = None, linux: dict[str, Any] | None = None) -> Spec:
    config = configs.valid()
    config["process"].update(process or {})
    config["linux"].update(linux or {})
    return from_bytes(configs.as_bytes(config), "/bundle")


def error_of(process: dict[str, Any] | None = None, linux: dict[str, Any] | None = None) -> SpecError:
    with pytest.raises(SpecError) as caught:
        loaded(process, linux)
    return caught.value


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0", [0]),
        ("0-3,7", [0, 1, 2, 3, 7]),
        ("7,0-3,2", [0, 1, 2, 3, 7]),
        ("5-5", [5]),
        ("8191", [8191]),
        ("007", [7]),
    ],
)
def test_a_list_names_numbers(text: str, numbers: list[int]) -> None:
    assert tuning.number_list(text, "where", 8192) == numbers


HOSTILE = [
    "", " ", ",", "0,", ",0", "0,,1", "-", "-1", "1-", "0-1-2", "3-1", "+1", "1_0", " 1", "1 ", "0, 1", "0x1",
    "1e3", "1.0", "\u0661", "\uff11", "\u00b2", "1\n", "all", "0-8192", "8192", "0-4294967295",
    "99999999999999999999", "1" * 5000, "0-" + "9" * 21, "0;1", "0:1", "^1", "!0", "0-3:1/2", "0\u20133",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text)[:20])
def test_what_is_no_list_is_refused_with_its_path(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        tuning.number_list(text, "process.where", 8192)
    assert caught.value.path == "process.where" and len(str(caught.value)) < 200


@pytest.mark.parametrize("key", ["initial", "final"])
def test_a_list_of_cpus_is_checked_for_every_command(key: str) -> None:
    loaded({"execCPUAffinity": {key: "0-1"}})
    loaded({"execCPUAffinity": {key: ""}})
    assert error_of({"execCPUAffinity": {key: "0-"}}).path == f"process.execCPUAffinity.{key}"


GOOD_SCHEDULERS: list[dict[str, Any]] = [
    {"policy": "SCHED_OTHER"},
    {"policy": "SCHED_OTHER", "nice": -20},
    {"policy": "SCHED_BATCH", "nice": 19, "priority": 0, "runtime": 0, "deadline": 0, "period": 0},
    {"policy": "SCHED_IDLE"},
    {"policy": "SCHED_ISO"},
    {"policy": "SCHED_FIFO", "priority": 1},
    {"policy": "SCHED_RR", "priority": 99, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
    {"policy": "SCHED_RR", "flags": ["SCHED_FLAG_KEEP_PARAMS"]},
    {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_UTIL_CLAMP_MIN"]},
    {"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_KEEP_PARAMS"]},
    DEADLINE,
    {**DEADLINE, "period": 0},
    {**DEADLINE, "runtime": 1024, "deadline": 1024, "period": 1024},
    {**DEADLINE, "flags": ["SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"]},
]


@pytest.mark.parametrize("scheduler", GOOD_SCHEDULERS, ids=repr)
def test_a_scheduler_that_makes_sense_passes_without_a_word(scheduler: dict[str, Any]) -> None:
    assert loaded({"scheduler": scheduler}).notes == ()


BAD_SCHEDULERS: list[tuple[dict[str, Any], str]] = [
    ({"nice": 1}, "policy"),
    ({"policy": ""}, "policy"),
    ({"policy": "sched_other"}, "policy"),
    ({"policy": "SCHED_EXT"}, "policy"),
    ({"policy": "SCHED_NORMAL"}, "policy"),
    *[({"policy": "SCHED_OTHER", "nice": nice}, "nice") for nice in (-21, 20, LOW, HIGH)],
    ({"policy": "SCHED_FIFO", "priority": 1, "nice": 40}, "nice"),
    *[({"policy": name, "priority": 1}, "priority") for name in ("SCHED_OTHER", "SCHED_BATCH", "SCHED_IDLE")],
    ({**DEADLINE, "priority": 5}, "priority"),
    *[({"policy": "SCHED_FIFO", "priority": number}, "priority") for number in (0, -1, 100, LOW, HIGH)],
    ({"policy": "SCHED_RR"}, "priority"),
    *[({"policy": "SCHED_OTHER", key: 1}, key) for key in ("runtime", "deadline", "period")],
    ({"policy": "SCHED_FIFO", "priority": 9, "runtime": 1}, "runtime"),
    ({"policy": "SCHED_DEADLINE"}, "runtime"),
    ({**DEADLINE, "runtime": 1023}, "runtime"),
    ({**DEADLINE, "runtime": 3001}, "deadline"),
    ({**DEADLINE, "deadline": 0}, "deadline"),
    ({**DEADLINE, "period": 2999}, "period"),
    ({**DEADLINE, "deadline": 1 << 63, "period": 0}, "deadline"),
    ({**DEADLINE, "period": (1 << 64) - 1}, "period"),
    ({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK", "RESET"]}, "flags[1]"),
    ({"policy": "SCHED_OTHER", "flags": [""]}, "flags[0]"),
]


@pytest.mark.parametrize(("scheduler", "field"), BAD_SCHEDULERS, ids=repr)
def test_a_scheduler_that_makes_no_sense_is_refused_at_its_field(
    scheduler: dict[str, Any], field: str
) -> None:
    assert error_of({"scheduler": scheduler}).path == f"process.scheduler.{field}"


@pytest.mark.parametrize(
    ("scheduler", "field"),
    [
        ({"policy": "SCHED_FIFO", "priority": 3, "nice": 5}, "nice"),
        ({"policy": "SCHED_IDLE", "nice": -5}, "nice"),
        ({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RECLAIM"]}, "flags[0]"),
        ({"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_DL_OVERRUN"]}, "flags[0]"),
    ],
    ids=repr,
)
def test_what_has_no_effect_with_the_policy_is_named(scheduler: dict[str, Any], field: str) -> None:
    ((path, text),) = loaded({"scheduler": scheduler}).notes
    assert path == f"process.scheduler.{field}" and "no effect" in text


@pytest.mark.parametrize("kind", ["createContainer", "startContainer"])
def test_hooks_of_the_container_need_a_deadline_process_that_can_fork(kind: str) -> None:
    config = configs.valid()
    config["process"]["scheduler"] = dict(DEADLINE)
    config["hooks"] = {"poststop": [{"path": "/bin/true"}]}
    from_bytes(configs.as_bytes(config), "/bundle")
    config["hooks"][kind] = [{"path": "/bin/true"}]
    with pytest.raises(SpecError) as caught:
        from_bytes(configs.as_bytes(config), "/bundle")
    assert caught.value.path == f"hooks.{kind}" and "SCHED_FLAG_RESET_ON_FORK" in (caught.value.hint or "")
    config["process"]["scheduler"]["flags"] = ["SCHED_FLAG_RESET_ON_FORK"]
    from_bytes(configs.as_bytes(config), "/bundle")


@pytest.mark.parametrize(
    ("io_priority", "field"),
    [
        ({"priority": 1}, "class"),
        ({"class": "", "priority": 1}, "class"),
        ({"class": "IOPRIO_CLASS_NONE", "priority": 0}, "class"),
        ({"class": "IOPRIO_CLASS_BE"}, "priority"),
        ({"class": "IOPRIO_CLASS_RT", "priority": 8}, "priority"),
        ({"class": "IOPRIO_CLASS_RT", "priority": -1}, "priority"),
    ],
    ids=repr,
)
def test_an_io_priority_that_makes_no_sense_is_refused(io_priority: dict[str, Any], field: str) -> None:
    assert error_of({"ioPriority": io_priority}).path == f"process.ioPriority.{field}"


def test_the_idle_class_needs_no_level() -> None:
    loaded({"ioPriority": {"class": "IOPRIO_CLASS_IDLE"}})


@pytest.mark.parametrize(
    "policy",
    [
        {"mode": "MPOL_DEFAULT"},
        {"mode": "MPOL_LOCAL", "nodes": ""},
        {"mode": "MPOL_PREFERRED"},
        {"mode": "MPOL_PREFERRED", "nodes": "1", "flags": ["MPOL_F_STATIC_NODES"]},
        {"mode": "MPOL_BIND", "nodes": "0-3,5", "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES"]},
        {"mode": "MPOL_PREFERRED_MANY", "nodes": "1023", "flags": ["MPOL_F_NUMA_BALANCING"]},
        {"mode": "MPOL_INTERLEAVE", "nodes": "0"},
        {"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0", "flags": []},
    ],
    ids=repr,
)
def test_a_memory_policy_that_the_kernel_takes_passes(policy: dict[str, Any]) -> None:
    assert loaded(linux={"memoryPolicy": policy}).notes == ()


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({"nodes": "0"}, "mode"),
        ({"mode": "MPOL_BOUND"}, "mode"),
        ({"mode": "MPOL_BIND"}, "nodes"),
        ({"mode": "MPOL_BIND", "nodes": ""}, "nodes"),
        ({"mode": "MPOL_BIND", "nodes": "1024"}, "nodes"),
        ({"mode": "MPOL_BIND", "nodes": "0 1"}, "nodes"),
        ({"mode": "MPOL_INTERLEAVE"}, "nodes"),
        ({"mode": "MPOL_WEIGHTED_INTERLEAVE"}, "nodes"),
        ({"mode": "MPOL_PREFERRED_MANY"}, "nodes"),
        ({"mode": "MPOL_PREFERRED", "flags": ["MPOL_F_STATIC_NODES"]}, "nodes"),
        ({"mode": "MPOL_DEFAULT", "nodes": "0"}, "nodes"),
        ({"mode": "MPOL_LOCAL", "nodes": "0"}, "nodes"),
        ({"mode": "MPOL_LOCAL", "flags": ["MPOL_F_STATIC_NODES"]}, "flags"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": BOTH}, "flags"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}, "flags"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_OTHER"]}, "flags[0]"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_memory_policy_that_the_kernel_would_refuse_is_refused_at_its_field(
    policy: dict[str, Any], field: str
) -> None:
    assert error_of(linux={"memoryPolicy": policy}).path == f"linux.memoryPolicy.{field}"


@pytest.mark.parametrize("personality", [{"flags": ["X"]}, {"domain": ""}, {"domain": "LINUX64"}], ids=repr)
def test_an_unknown_personality_is_refused(personality: dict[str, Any]) -> None:
    assert error_of(linux={"personality": personality}).path == "linux.personality.domain"


def test_flags_of_a_personality_are_ignored_and_named() -> None:
    ((path, text),) = loaded(linux={"personality": {"domain": "LINUX", "flags": ["X"]}}).notes
    assert path == "linux.personality.flags" and "ignored" in text


def test_empty_objects_ask_for_nothing() -> None:
    loaded(
        {"scheduler": {}, "ioPriority": {}, "execCPUAffinity": {}}, {"memoryPolicy": {}, "personality": None}
    )


WORDS = st.sampled_from(
    [*tuning.POLICIES, *tuning.SCHEDULER_FLAGS, *tuning.MEMORY_MODES, *tuning.MEMORY_FLAGS, "LINUX", ""]
)
VALUES = st.one_of(
    WORDS, st.integers(), st.sampled_from(HOSTILE), st.lists(WORDS, max_size=3), st.none(), st.booleans()
)
KEYS = [
    *("policy", "nice", "priority", "flags", "runtime", "deadline", "period"),
    *("class", "initial", "final", "mode", "nodes", "domain"),
]
OBJECT = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5)


@given(OBJECT, OBJECT, OBJECT, OBJECT, OBJECT)
def test_whatever_stands_there_is_taken_or_refused_in_words(scheduler, io, cpus, policy, personality):
    try:
        loaded(
            {"scheduler": scheduler, "ioPriority": io, "execCPUAffinity": cpus},
            {"memoryPolicy": policy, "personality": personality},
        )
    except RtError as error:
        assert "\n" not in str(error)
