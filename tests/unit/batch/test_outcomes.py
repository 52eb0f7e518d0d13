"""Results as JSON lines, and the file that keeps them."""

from __future__ import annotations

import json

import pytest

from rootless_rt.api.result import Result
from rootless_rt.batch.outcomes import Outcome, ResultsFile
from rootless_rt.errors import RtError


def test_a_result_has_every_field_on_one_line():
    result = Result(("a",), -9, b"out\n", b"\xff", duration=0.5, peak_memory=4096, timed_out=True)
    line = Outcome("x", result, degradations=("d",)).line()
    assert line.endswith("}\n") and line.count("\n") == 1
    assert json.loads(line) == {
        "id": "x",
        "ok": False,
        "exit_code": 137,
        "signal": 9,
        "timed_out": True,
        "oom_killed": False,
        "output_exceeded": False,
        "duration": 0.5,
        "cpu_time": None,
        "peak_memory": 4096,
        "stdout": "out\n",
        "stderr_base64": "/w==",
        "degradations": ["d"],
    }


def test_a_job_that_did_not_start_has_an_error_and_its_hint():
    told = json.loads(Outcome("x", error=RtError("no", hint="do")).line())
    assert told == {"id": "x", "ok": False, "error": "no", "hint": "do"}


def test_a_file_is_gone_on_with_behind_its_last_whole_line(tmp_path):
    path = tmp_path / "results"
    path.write_text('{"id": "a", "ok": true}\n{"id": "b", "ok": false}\n{"id": "c", "o')
    file = ResultsFile(str(path), resume=True)
    assert file.done == {"a": True, "b": False}
    file.write('{"id": "c", "ok": true}\n')
    file.close()
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a", "b", "c"]


def test_a_file_that_is_there_is_neither_written_to_nor_cut_without_being_asked(tmp_path):
    path = tmp_path / "results"
    for text in ('{"id": "a", "ok": true}\n', "torn"):
        path.write_text(text)
        with pytest.raises(RtError, match="is there already") as caught:
            ResultsFile(str(path), resume=False)
        assert caught.value.code == 2 and path.read_text() == text
    path.write_text("")
    ResultsFile(str(path), resume=False).close()


@pytest.mark.parametrize(
    "line", ["{}", "[]", "no", '{"id": 1, "ok": true}', '{"id": "a", "ok": 1}', "[" * 9999]
)
def test_a_file_of_something_else_is_left_as_it_is(tmp_path, line):
    path = tmp_path / "results"
    text = f'{{"id": "a", "ok": true}}\n{line}\ntorn'
    path.write_text(text)
    with pytest.raises(RtError, match="results:2: not a result of a job"):
        ResultsFile(str(path), resume=True)
    assert path.read_text() == text


def test_only_one_process_writes_to_a_file(tmp_path):
    first = ResultsFile(str(tmp_path / "results"), resume=True)
    with pytest.raises(RtError, match="another process writes results to it"):
        ResultsFile(str(tmp_path / "results"), resume=True)
    first.close()
    ResultsFile(str(tmp_path / "results"), resume=True).close()
