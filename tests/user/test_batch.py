"""`rt batch` by an ordinary user: jobs in, results out."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import tempfile
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.runtime import Runtime

Job = dict[str, Any]
ENDLESS = ["sleep", "98765"]


def text_of(jobs: list[Job]) -> str:
    return "".join(json.dumps(job) + "\n" for job in jobs)


def results(text: str) -> dict[str, Job]:
    """The results by id; each id once."""
    lines = [json.loads(line) for line in text.splitlines()]
    found = {line["id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


class Batches:
    """`rt batch` with jobs in a file and results in another, both in a directory of alice's."""

    def __init__(self, rt: Runtime, bundle: Bundle, place: Path) -> None:
        self.rt = rt
        self.bundle = bundle
        self.jobs = place / "jobs.jsonl"
        self.kept = bundle.path / "results.jsonl"

    def words(self, jobs: list[Job] | str, *words: str) -> list[str]:
        self.jobs.write_text(jobs if isinstance(jobs, str) else text_of(jobs))
        return ["batch", "--bundle", str(self.bundle.path), *words, str(self.jobs)]

    def __call__(self, jobs: list[Job] | str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.rt(*self.words(jobs, *words))


@pytest.fixture
def batch(rt: Runtime, bundle: MakeBundle, place: Path) -> Batches:
    return Batches(rt, bundle("echo from the bundle"), place)


@pytest.mark.covers("batch", "batch --jobs", "batch --bundle")
def test_each_job_has_a_result_with_its_id_as_it_ends(batch: Batches) -> None:
    jobs = [
        {"id": "slow", "args": ["sh", "-c", "until [ -e /tmp/last ]; do sleep 0.02; done; echo $A"],
         "env": {"A": "b"}},
        {"id": "in", "args": ["cat"], "stdin": "what came in"},
        {"id": "bytes", "args": ["cat"], "stdin_base64": "/wA="},
        {},
        {"id": "where", "args": ["sh", "-c", "pwd; touch last"], "cwd": "/tmp"},
    ]  # fmt: skip
    done = batch(jobs, "--jobs", "2")
    assert (done.returncode, done.stderr) == (0, "")
    found = results(done.stdout)
    assert found.keys() == {"slow", "in", "bytes", "4", "where"}
    assert next(iter(found)) != "slow"
    assert all(one["ok"] and one["exit_code"] == 0 and one["stderr"] == "" for one in found.values())
    assert (found["slow"]["stdout"], found["in"]["stdout"]) == ("b\n", "what came in")
    assert (found["bytes"]["stdout_base64"], found["where"]["stdout"]) == ("/wA=", "/tmp\n")
    assert found["4"]["stdout"] == "from the bundle\n"
    assert found["slow"]["duration"] > 0 and found["in"]["peak_memory"] > 0
    assert batch.rt.ok("list", "--quiet") == ""


@pytest.mark.covers("batch --timeout", "batch --max-output")
def test_failures_are_told_apart_and_make_the_status_1(batch: Batches) -> None:
    jobs = [
        {"id": "ok", "args": ["true"]},
        {"id": "status", "args": ["sh", "-c", "echo no >&2; exit 3"]},
        {"id": "signal", "args": ["sh", "-c", "ulimit -c 0; sh -c 'kill -SEGV $$'; exit $?"]},
        {"id": "none", "args": ["/no/such"]},
        {"id": "own time", "args": ["sleep", "0.7"]},
        {"id": "much", "args": ["yes"]},
        {"id": "files", "args": ["sh", "-c", "ulimit -n"], "limits": {"open_files": 17}},
    ]
    jobs = [{"timeout": 60, **job} for job in jobs] + [{"id": "time", "args": ENDLESS}]
    done = batch(jobs, "--timeout", "500ms", "--max-output", "64k")
    assert (done.returncode, done.stderr) == (1, "")
    found = results(done.stdout)
    assert {name for name, one in found.items() if one["ok"]} == {"ok", "own time", "files"}
    assert (found["status"]["exit_code"], found["status"]["stderr"]) == (3, "no\n")
    assert found["none"]["error"].startswith('exec: "/no/such"') and "exit_code" not in found["none"]
    assert found["time"]["timed_out"] and found["time"]["signal"] == 9
    assert found["much"]["output_exceeded"] and not found["much"]["timed_out"]
    assert found["files"]["stdout"] == "17\n"


def test_a_wrong_line_of_a_file_is_named_before_anything_runs(batch: Batches) -> None:
    batch.bundle.rootfs.joinpath("tmp").chmod(0o1777)
    done = batch('{"args": ["touch", "/tmp/ran"]}\n{"agrs": []}\n')
    assert (done.returncode, done.stdout) == (2, "")
    first, hint = done.stderr.splitlines()
    assert first == f'rt: {batch.jobs}:2: "agrs" is no field of a job' and hint.startswith(
        "hint: the fields are "
    )
    assert not (batch.bundle.rootfs / "tmp/ran").exists()


def test_jobs_of_a_pipe_run_as_they_come_up_to_a_wrong_line(batch: Batches) -> None:
    words = batch.words("")[:-1]
    process = batch.rt.popen(
        *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write('{"id": "first"}\n')
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["id"] == "first"  # while the pipe is open
    rest, said = process.communicate("[]\n", timeout=60)
    assert (process.returncode, rest) == (2, "")
    assert said.startswith("rt: standard input:2: not a JSON object\nhint: ")


@pytest.mark.parametrize(
    "words, status, message",
    [
        (["--resume"], 2, "--resume goes on with a file of results"),
        (["--timeout", "soon"], 2, "--timeout: expected a duration"),
        (["--max-output", "much"], 2, "--max-output: expected bytes"),
        (["--jobs", "5000"], 2, "--jobs: at most 1024"),
        (["--output", "/no/such/file"], 2, "cannot write /no/such/file: no such file or directory"),
        (["--bundle", "/no/such"], 2, ""),
    ],
)
def test_wrong_options_are_one_line_and_their_own_status(
    batch: Batches, words: list[str], status: int, message: str
) -> None:
    done = batch([{}], *words)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(f"rt: {message}") and "Traceback" not in done.stderr


def test_the_bundle_may_ask_for_a_terminal_and_name_things_from_its_own_directory(batch: Batches) -> None:
    def change(config: dict[str, Any]) -> None:
        config["process"] |= {"terminal": True, "consoleSize": {"height": 24, "width": 80}}
        mount = {"destination": "/mnt", "type": "none", "source": "beside", "options": ["rbind", "ro"]}
        config["mounts"].append(mount)

    (batch.bundle.path / "beside").mkdir()
    (batch.bundle.path / "beside/note").write_text("there\n")
    batch.bundle.change(change)
    words = batch.words([{"args": ["sh", "-c", "cat /mnt/note; test -t 0 || echo none"]}], "--output", "kept")
    words[2] = "."
    done = batch.rt(*words, cwd=batch.bundle.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert results((batch.bundle.path / "kept").read_text())["1"]["stdout"] == "there\nnone\n"


def test_a_file_of_jobs_that_is_not_there_is_named(batch: Batches) -> None:
    done = batch.rt("batch", "--bundle", str(batch.bundle.path), "/no/such.jsonl")
    assert done.returncode == 2
    assert done.stderr.startswith("rt: cannot read /no/such.jsonl: no such file or directory\nhint: ")


@pytest.mark.covers("batch --output", "batch --resume")
def test_a_cut_off_batch_is_gone_on_with(batch: Batches) -> None:
    jobs: list[Job] = [{"id": str(one), "args": ["sh", "-c", f"exit {one % 2}"]} for one in range(6)]
    kept = ["--output", str(batch.kept)]
    assert batch(jobs[:3], *kept).returncode == 1
    again = batch(jobs, *kept)
    assert again.returncode == 2 and "is there already" in again.stderr and "--resume" in again.stderr
    before = batch.kept.read_text()
    batch.kept.write_text(before + '{"id": "3", "ok": fal')
    done = batch(jobs, *kept, "--resume")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    assert batch.kept.read_text().startswith(before)
    assert results(batch.kept.read_text()).keys() == {str(one) for one in range(6)}
    assert batch(jobs, *kept, "--resume").returncode == 1  # nothing to do; some have failed before


def endless(rt: Runtime) -> int:
    """How many of the programs that never end are there."""
    listed = subprocess.run(
        ["pgrep", "-u", str(rt.user.uid), "-cf", " ".join(ENDLESS)], capture_output=True, check=False
    )
    return int(listed.stdout)


def interrupted(batch: Batches, process: subprocess.Popen[bytes], *, stopped: bool) -> int:
    """Wait for one result and two that never come, press Ctrl-C, and tell the status."""
    deadline = time.monotonic() + 60
    while not (batch.kept.is_file() and batch.kept.read_text() and endless(batch.rt) == 2):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    if stopped:
        os.killpg(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGCONT)
    return process.wait(60)


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_ctrl_c_ends_all_containers_and_keeps_the_results_so_far(batch: Batches, stopped: bool) -> None:
    """One that is stopped gets the signal when it goes on, in whichever thread comes first."""
    jobs = [{"id": "quick"}, {"id": "a", "args": ENDLESS}, {"id": "b", "args": ENDLESS}, {"id": "c"}]
    kept = ["--output", str(batch.kept)]
    with tempfile.TemporaryFile() as said:
        words = batch.words(jobs, "--jobs", "2", *kept)
        process = batch.rt.popen(*words, stderr=said, start_new_session=True)
        assert interrupted(batch, process, stopped=stopped) == 130
        said.seek(0)
        assert said.read() == b"rt: interrupted: 1 jobs have a result\nhint: --resume runs the others\n"
    assert results(batch.kept.read_text()).keys() == {"quick"}
    assert endless(batch.rt) == 0
    done = batch([{"id": name} for name in ("quick", "a", "b", "c")], *kept, "--resume")
    assert (done.returncode, done.stderr) == (0, "")
    assert results(batch.kept.read_text()).keys() == {"quick", "a", "b", "c"}


def test_a_reader_of_the_results_that_goes_away_ends_the_batch(batch: Batches) -> None:
    gone = ["sh", "-c", "until [ -e /tmp/gone ]; do sleep 0.02; done"]
    jobs: list[Job] = [{"id": "quick"}, {"args": ENDLESS}, {"args": gone}]
    process = batch.rt.popen(*batch.words(jobs, "--jobs", "3"), stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    (batch.bundle.rootfs / "tmp/gone").touch()
    assert process.wait(60) == 141
    assert endless(batch.rt) == 0


@pytest.mark.covers("batch --overlay")
def test_with_overlay_no_job_sees_what_another_has_written(batch: Batches) -> None:
    jobs = [{"args": ["sh", "-c", "ls /; touch /mark"]} for _ in range(3)]
    done = batch(jobs, "--overlay", "--jobs", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert all("mark" not in one["stdout"] for one in results(done.stdout).values())
    assert not (batch.bundle.rootfs / "mark").exists()


def shown(batch: Batches, *words: str) -> str:
    """What a terminal shows that is stderr."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    words_of = batch.words([{}, {"args": ["false"]}], "--output", str(batch.kept), *words)
    process = batch.rt.popen(*words_of, stderr=theirs)
    os.close(theirs)
    assert process.wait(60) == 1
    said = b""
    try:
        while data := os.read(ours, 65536):
            said += data
    except OSError:
        pass  # nobody has the other end any more
    os.close(ours)
    return said.decode()


@pytest.mark.covers("batch --no-progress")
def test_a_terminal_shows_how_far_it_is_and_how_many_failed(batch: Batches) -> None:
    pytest.importorskip("tqdm")
    text = shown(batch)
    assert "2/2" in text and "failed=1" in text
    batch.kept.unlink()
    assert shown(batch, "--no-progress") == ""
