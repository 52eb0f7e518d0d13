"""Standard input and output pass through untouched."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from conftest import MakeBundle
from lab.runtime import Runtime
from lab.wrapped import after

GIB = 1 << 30


def test_a_reader_that_goes_away_ends_the_container_as_a_pipe_does(rt: Runtime, bundle: MakeBundle) -> None:
    process = rt.popen("run", "-b", str(bundle(["/bin/yes"]).path), "c", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    # 128 + SIGPIPE; or what a program that catches the error makes of it.
    assert process.wait(30) in (141, 1)
    assert rt.ok("list", "-q") == ""


def test_a_gibibyte_of_bytes_passes_through_pipes_unchanged(rt: Runtime, bundle: MakeBundle) -> None:
    block = hashlib.shake_128(b"seed").digest(1 << 20)
    box = bundle(["/bin/cat"])
    with (
        rt.popen("run", "-b", str(box.path), "c", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        subprocess.Popen(["sha1sum"], stdin=process.stdout, stdout=subprocess.PIPE) as check,
    ):
        assert process.stdin and process.stdout and check.stdout
        process.stdout.close()
        expected = hashlib.sha1()
        for _ in range(GIB // len(block)):
            process.stdin.write(block)
            expected.update(block)
        process.stdin.close()
        assert check.stdout.read().split()[0].decode() == expected.hexdigest()
        assert process.wait(30) == 0


def test_stdout_and_stderr_stay_apart(rt: Runtime, bundle: MakeBundle) -> None:
    done = rt("run", "-b", str(bundle("echo out; echo err >&2").path), "c")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")


def test_a_closed_stdin_is_an_empty_one(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("cat; echo end; ls /proc/$$/fd; true")
    said = after(rt, "exec 0<&-").ok("run", "-b", str(box.path), "c")
    assert said.split() == ["end", "0", "1", "2"]


def test_a_closed_stdout_never_becomes_another_file(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("echo lost; where=$(readlink /proc/$$/fd/1); echo $where >&2; exit 3")
    done = after(rt, "exec 1>&-")("run", "-b", str(box.path), "c")
    assert done.returncode == 3
    assert done.stderr == "/dev/null\n"


def test_all_three_closed_still_runs(rt: Runtime, bundle: MakeBundle) -> None:
    done = after(rt, "exec 0<&- 1>&- 2>&-")("run", "-b", str(bundle("exit 5").path), "c")
    assert done.returncode == 5


def test_a_detached_container_keeps_the_caller_s_output(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    with (place / "out").open("wb") as out:
        assert (
            rt("run", "-d", "-b", str(bundle("sleep 0.1; echo late").path), "c", stdout=out).returncode == 0
        )
    rt.wait_for("c", "stopped")
    assert (place / "out").read_text() == "late\n"


def test_a_file_as_stdin_is_read_from_where_it_stands(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    (place / "in").write_text("first\nsecond\n")
    with (place / "in").open("rb", buffering=0) as file:
        file.seek(6)
        assert rt.ok("run", "-b", str(bundle(["/bin/cat"]).path), "c", stdin=file) == "second\n"


def test_an_argument_and_a_variable_of_120_kilobytes_arrive(rt: Runtime, bundle: MakeBundle) -> None:
    text = "x" * 120_000
    box = bundle(["/bin/sh", "-c", 'echo "${#1} ${#BIG}"', "sh", text])
    box.change(lambda config: config["process"]["env"].append(f"BIG={text}"))
    assert rt.ok("run", "-b", str(box.path), "c") == "120000 120000\n"


def test_thousands_of_arguments_and_variables_arrive(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle(["/bin/sh", "-c", 'echo "$# $V4999"', "sh", *map(str, range(5000))])
    box.change(lambda config: config["process"]["env"].extend(f"V{n}={n}" for n in range(5000)))
    assert rt.ok("run", "-b", str(box.path), "c") == "5000 4999\n"


def test_an_argument_the_kernel_refuses_is_said(rt: Runtime, bundle: MakeBundle) -> None:
    # One string can have 128 KiB (execve(2), MAX_ARG_STRLEN).
    done = rt("run", "-b", str(bundle(["/bin/echo", "x" * 140_000]).path), "c")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == 'rt: exec: "/bin/echo": argument list too long'
    assert rt.ok("list", "-q") == ""


def test_words_that_are_not_ascii_arrive(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle(["/bin/echo", "grün", "日本", "\t\x01"])
    assert rt.ok("run", "-b", str(box.path), "c") == "grün 日本 \t\x01\n"
