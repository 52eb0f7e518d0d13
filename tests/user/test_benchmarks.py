"""The benchmarks at work, for one round: no time is looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lab.runtime import RT
from lab.users import User, can_make_users

RUN = Path(__file__).parents[2] / "benchmarks/run.py"
CASES = ["run-own", "life", "exec", "api", "pool", "doctor", "grow-mounts"]


def test_the_benchmarks_measure_rt_in_each_kind_of_case_and_keep_the_figures(tmp_path: Path) -> None:
    kept = tmp_path / "results.json"
    options = ["--rt", RT, "--rounds", "1", "--peers", "rt", "--results", str(kept), "--only", *CASES]
    done = subprocess.run(
        [sys.executable, "-B", str(RUN), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    cases = {case["case"]: case for case in json.loads(kept.read_text())["cases"]}
    assert set(cases) == set(CASES)
    for case in cases.values():
        points = [point for curve in case["curves"] for point in curve["points"]]
        for row in [*case["rows"], *case["memory"], *points]:
            assert {"ms", "kb"} & row["peers"]["rt"].keys(), (case["case"], row)
    assert "goals" in done.stdout


def test_a_place_for_the_figures_that_cannot_be_written_is_named_before_anything_is_measured(
    alice: User, tmp_path: Path
) -> None:
    if not can_make_users():
        pytest.skip("needs root, to be another user")
    options = ["--rt", RT, "--only", "run-own", "--results", "/proc/none/results.json"]
    done = subprocess.run(
        [sys.executable, "-B", str(RUN), *options], capture_output=True, text=True, check=False, cwd="/",
        user=alice.uid, group=alice.gid, extra_groups=[],
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("not measured: cannot write /proc/none/results.json\nhint: ")


@pytest.mark.parametrize("what", ["interpreter", "rt"])
def test_what_the_benchmarks_user_cannot_reach_is_named_with_a_way_out(tmp_path: Path, what: str) -> None:
    if not can_make_users():
        pytest.skip("needs root, to measure as another user")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    programs = {"interpreter": str(Path(sys.executable).resolve()), "rt": RT}
    (closed / what).symlink_to(programs[what])
    programs[what] = str(closed / what)
    kept = tmp_path / "none.json"
    options = ["--rt", programs["rt"], "--rounds", "1", "--only", "run-own", "--results", str(kept)]
    done = subprocess.run(
        [programs["interpreter"], "-B", str(RUN), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    first, hint = done.stderr.splitlines()
    assert first.startswith("not measured: the ordinary user that the benchmark makes cannot use")
    assert programs[what] in first and "Permission denied" in first
    assert hint.startswith("hint: ")
    assert not kept.exists()
