"""What the benchmarks make of times: goals met or missed, the form of a curve, what changed since a run."""

from __future__ import annotations

import random
from typing import Any

import pytest
from goals import GOALS, PSS, judge
from growth import growth
from report import compared, render
from results import changes, load, save, summary

SIZES = (1, 100, 400, 1000)


def curve(cost: Any, rounds: int = 20, noise: float = 0.03) -> dict[int, list[float]]:
    """Milliseconds by size as `cost` says, each round a little off."""
    dice = random.Random(7)
    return {size: [cost(size) * dice.uniform(1 - noise, 1 + noise) for _ in range(rounds)] for size in SIZES}


@pytest.mark.parametrize(
    "cost",
    [lambda n: 20, lambda n: 20 + 0.1 * n, lambda n: 0.5 * n, lambda n: 15 + 10 / n, lambda n: 20 - n / 1000],
)
def test_a_curve_that_is_a_line_is_called_linear(cost: Any) -> None:
    assert growth(curve(cost)).verdict == "linear"


@pytest.mark.parametrize("cost", [lambda n: 20 + n * n / 10_000, lambda n: 5 + n**1.6 / 500])
def test_a_curve_that_bends_upwards_is_called_super_linear(cost: Any) -> None:
    assert growth(curve(cost)).verdict == "super-linear"


def test_few_rounds_or_much_noise_tell_nothing_about_a_curve() -> None:
    assert growth(curve(lambda n: 20 + n * n / 10_000, rounds=3)).verdict == "unsure"
    assert growth(curve(lambda n: 20 + 0.01 * n, noise=0.9)).verdict == "unsure"


def test_the_cost_of_one_more_is_the_slope_in_microseconds() -> None:
    assert growth(curve(lambda n: 20 + 0.1 * n, noise=0)).each == pytest.approx(100)


def raw(rt: float = 10, runc: float = 40, crun: float = 20) -> list[dict[str, Any]]:
    """A run with one row, one curve and one memory."""
    cells = {"rt": {"ms": [rt] * 9}, "runc": {"ms": [runc] * 9}, "crun": {"ms": [crun] * 9}}
    points = [
        {"n": size, "peers": {"rt": {"ms": [rt + size] * 9}, "runc": {"reason": "no"}}} for size in SIZES
    ]
    grown = {"measure": "run, mounts", "unit": "mounts", "from": 1, "points": points}
    memory = {"measure": PSS, "peers": {"rt": {"kb": 160}, "crun": {"reason": "closed"}}}
    row = {"measure": "run: own id", "peers": cells}
    return [{"case": "x", "load": 0.5, "view": "v1", "rows": [row], "memory": [memory], "curves": [grown]}]


def test_each_goal_is_judged_by_the_figures_of_one_run() -> None:
    goals = {
        (one["measure"], one["goal"]): (one["figure"], one["met"]) for one in summary({}, raw())["goals"]
    }
    assert goals == {
        ("run: own id", "≤ 0.50"): ("rt/runc 0.25", True),
        ("run: own id", "≤ 0.95"): ("rt/crun 0.50", True),
        (PSS, "≤ 150 kB"): ("160 kB", False),
        ("run, mounts: growth", "linear"): ("linear", True),
    }


def test_a_goal_without_a_figure_is_neither_met_nor_missed() -> None:
    assert [one.met for one in judge({"run: own id": {"rt": 10.0, "crun": 20.0}}, [])] == [None, True]


def test_root_is_held_to_the_ratio_of_crun() -> None:
    rows = {"run: root, with cgroups": {"rt": 30.0, "runc": 40.0, "crun": 20.0}}
    assert [(one.figure, one.goal, one.met) for one in judge(rows, [])] == [
        ("rt/runc 0.75", "≤ 0.50 (crun/runc)", False)
    ]


def test_throughput_is_told_as_how_many_times_the_peers() -> None:
    rows = {"API: 200 containers, 8 in flight": {"rt": 100.0, "crun": 600.0}}
    assert [(one.figure, one.goal, one.met) for one in judge(rows, [])] == [("crun/rt 6.00", "≥ 5.00", True)]


def test_no_goal_is_there_twice() -> None:
    assert len({(goal.measure, goal.against) for goal in GOALS}) == len(GOALS)


def test_a_results_file_is_read_as_it_was_written(tmp_path: Any) -> None:
    whole = summary({"date": "today"}, raw())
    save(whole, tmp_path / "new/results.json")
    assert load(tmp_path / "new/results.json") == whole


def test_two_runs_are_compared_by_their_ratios_and_not_by_their_times() -> None:
    then, now = summary({}, raw()), summary({}, raw(rt=30, runc=80, crun=60))
    assert changes(now, then) == [("run: own id", "runc", 0.25, 0.375), ("run: own id", "crun", 0.5, 0.5)]
    text = "\n".join(compared(now, then, markdown=False))
    assert "run: own id, rt/runc  0.25  0.38      1.50" in text
    assert "1 of 2 ratios are within 10% of that run" in text


def test_the_report_tells_figures_goals_forms_and_reasons() -> None:
    text = render(summary({"date": "today"}, raw()), ("rt", "runc", "crun"), markdown=False)
    for part in (
        "x: others used 50% of the CPUs meanwhile",
        "run: own id           10.0 (10.0)  40.0 (40.0)  20.0 (20.0)     0.25     0.50",
        "1000.0 µs",
        "3 of 4 met",
        "crun, x: not measured: closed",
    ):
        assert part in text
