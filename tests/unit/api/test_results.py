"""Results and errors of the API as plain data."""

from __future__ import annotations

import pytest

from idmap.errors import IdmapError
from rootless_rt import Limits, ProcessFailed, Result, RtError
from rootless_rt.api.errors import MappingFailed, told


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (Result(("a",), 3), "exit status 3"),
        (Result(("a",), -9), "ended by signal 9 (SIGKILL)"),
        (Result(("a",), -40), "ended by signal 40 (SIGRTMIN+6)"),
        (Result(("a",), -9, oom_killed=True), "ran out of memory"),
        (Result(("a",), -9, timed_out=True, duration=2.0), "killed after 2.0 s: its time was over"),
        (Result(("a",), 0, output_exceeded=True), "killed: it wrote more than it may"),
    ],
)
def test_a_result_says_how_it_ended(result: Result, why: str) -> None:
    assert result.why() == why and not result.ok
    with pytest.raises(ProcessFailed, match=r"^a: ") as failed:
        result.check()
    assert failed.value.result is result


def test_exit_codes_are_those_of_a_shell() -> None:
    assert (Result(("a",), -15).exit_code, Result(("a",), -15).signal) == (143, 15)
    assert (Result(("a",), 7).exit_code, Result(("a",), 7).signal) == (7, None)


def test_the_last_line_of_stderr_is_in_the_error() -> None:
    result = Result(("prog",), 1, stderr=b"first\nbad \xff thing\n")
    with pytest.raises(ProcessFailed, match="prog: exit status 1: bad \ufffd thing"):
        result.check()
    good = Result(("prog",), 0, stdout=b"x")
    assert good.check() is good and good.text == "x"


def test_limits_become_a_config_and_no_negative_ones() -> None:
    config = {"process": {"rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}]}, "linux": {}}
    limits = Limits(memory=1 << 20, pids=7, cpus=0.5, cpu_seconds=3, open_files=64)
    limits.put_into(config)
    assert config["linux"]["resources"] == {
        "memory": {"limit": 1 << 20},
        "pids": {"limit": 7},
        "cpu": {"quota": 50_000, "period": 100_000},
    }
    assert [(item["type"], item["hard"]) for item in config["process"]["rlimits"]] == [
        ("RLIMIT_CPU", 3),
        ("RLIMIT_NOFILE", 64),
    ]
    with pytest.raises(ValueError, match="pids: -1"):
        Limits(pids=-1).put_into(config)


def test_an_error_explains_itself_as_the_command_does() -> None:
    error = RtError("it went wrong", hint="mend it", id="RT-IDS-UNMAPPED")
    text = error.explain()
    assert text.startswith("it went wrong\nhint: mend it\n\nRT-IDS-UNMAPPED: ") and "What helps:" in text
    assert RtError("no more").explain() == "no more\n"


def test_errors_of_maps_are_errors_of_the_api() -> None:
    with pytest.raises(MappingFailed) as failed, told():
        raise IdmapError("newuidmap is missing", reason="helper-missing", hint="install it")
    assert failed.value.reason == "helper-missing" and isinstance(failed.value, RtError)
    assert failed.value.id and failed.value.id in failed.value.explain()
