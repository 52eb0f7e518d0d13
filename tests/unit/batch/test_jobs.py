"""Jobs out of JSON lines: what is taken, and what is refused with the number of its line."""

from __future__ import annotations

import pytest

from rootless_rt.api.config import Limits
from rootless_rt.batch.jobs import Job, read_jobs
from rootless_rt.errors import RtError


def jobs(*lines: str) -> list[Job]:
    return list(read_jobs([line.encode() + b"\n" for line in lines], "jobs.jsonl"))


def test_a_job_may_say_nothing_and_is_called_by_its_line():
    assert jobs("", "{}", "  ", '{"id": 7}', '{"id": "x y"}') == [Job("2"), Job("7"), Job("x y")]


def test_every_field_is_taken():
    [job] = jobs(
        '{"id": "a", "args": ["sh", "-c", "exit 1"], "env": {"A": "b", "HOME": null}, "cwd": "/tmp",'
        ' "stdin": "h\\u00e9", "timeout": 2, "limits": {"memory": 1048576, "cpus": 0.5}}'
    )
    assert job == Job(
        id="a",
        args=["sh", "-c", "exit 1"],
        env={"A": "b", "HOME": None},
        cwd="/tmp",
        stdin="hé".encode(),
        timeout=2.0,
        limits=Limits(memory=1048576, cpus=0.5),
    )
    assert jobs('{"stdin_base64": "/wA="}')[0].stdin == b"\xff\0"


@pytest.mark.parametrize(
    "line, problem",
    [
        ("[]", "not a JSON object"),
        ("{", "column 2: "),
        ("{} {}", "column 4: text after the end of the document"),
        ('{"timeout": NaN}', "column"),
        ('{"tiemout": 1}', '"tiemout" is no field of a job'),
        ('{"args": []}', "args: expected a list of strings, the program first"),
        ('{"args": "true"}', "args: expected a list of strings, the program first"),
        ('{"args": ["a", 1]}', "args[1]: expected a string"),
        ('{"args": ["a\\u0000"]}', "args[0]: holds a NUL character"),
        ('{"args": ["\\ud800"]}', "args[0]: holds half a surrogate pair"),
        ('{"env": ["A=b"]}', "env: expected an object of names and values"),
        ('{"env": {"A": 1}}', "env.A: expected a string"),
        ('{"env": {"A=": "b"}}', 'env: "A=" cannot be the name of a variable'),
        ('{"cwd": "tmp"}', "cwd: expected an absolute path"),
        ('{"stdin": 1}', "stdin: expected a string"),
        ('{"stdin_base64": "?"}', "stdin_base64: not base64"),
        ('{"stdin": "", "stdin_base64": ""}', "stdin and stdin_base64 stand for the same"),
        ('{"timeout": 0}', "timeout: expected a number of seconds above 0"),
        ('{"timeout": true}', "timeout: expected a number of seconds above 0"),
        ('{"timeout": "1s"}', "timeout: expected a number of seconds above 0"),
        ('{"limits": 1}', "limits: expected an object of limits"),
        ('{"limits": {"ram": 1}}', "limits.ram: no such limit; there are memory, pids, cpus"),
        ('{"limits": {"memory": 1.5}}', "limits.memory: expected a whole number above 0"),
        ('{"limits": {"memory": -1}}', "limits.memory: expected a whole number above 0"),
        ('{"limits": {"cpus": "1"}}', "limits.cpus: expected a number above 0"),
        ('{"id": ""}', "id: empty"),
        ('{"id": 1.5}', "id: expected a string"),
        ('{"id": null}', "id: expected a string"),
    ],
)
def test_what_is_no_job_is_refused_with_its_line(line, problem):
    with pytest.raises(RtError) as caught:
        jobs('{"args": ["true"]}', line)
    assert caught.value.message.startswith(f"jobs.jsonl:2: {problem}"), caught.value.message
    assert caught.value.code == 2


def test_two_jobs_of_one_id_are_refused_with_both_lines():
    with pytest.raises(RtError, match=r'jobs\.jsonl:3: id "2" is that of line 2'):
        jobs("{}", "{}", '{"id": 2}')


def test_bytes_that_are_no_utf8_are_refused():
    with pytest.raises(RtError, match=r"jobs\.jsonl:1: column 9: not valid UTF-8"):
        list(read_jobs([b'{"id": "\xff"}'], "jobs.jsonl"))


def test_jobs_before_a_wrong_line_are_given_out_first():
    taken = read_jobs(iter([b"{}\n", b"[]\n"]), "-")
    assert next(taken) == Job("1")
    with pytest.raises(RtError):
        next(taken)
