"""Files that have no end, and FIFOs without another end, where a file is asked for."""

from __future__ import annotations

import os

import pytest
from conftest import MakeBundle
from lab.runtime import Runtime


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/urandom"])
def test_a_file_without_an_end_is_refused(rt: Runtime, bundle: MakeBundle, path: str) -> None:
    rt.ok("run", "--detach", "--bundle", str(bundle(["/bin/sleep", "1000"]).path), "c")
    for words in (
        ["exec", "--process", path, "c"],
        ["run", "--config", path, "d"],
        ["spec", "--from", path, "-f", "new"],
    ):
        done = rt(*words, cwd=str(bundle().path))
        assert done.returncode != 0 and "is larger than 16 MiB" in done.stderr, (words, done.stderr)


def test_a_fifo_that_nobody_writes_to_is_no_config(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    (made.path / "config.json").unlink()
    os.mkfifo(made.path / "config.json")
    rt.user.owns(made.path)
    for verb in ("run", "create", "plan", "lint"):
        done = rt(verb, "--bundle", str(made.path), *(["c"] if verb in ("run", "create") else []))
        assert done.returncode in (1, 2) and "config.json" in done.stderr, (verb, done.stderr)


def test_a_log_that_nobody_reads_holds_no_command(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    log = made.path / "log"
    os.mkfifo(log)
    rt.user.owns(made.path)
    done = rt("--log", str(log), "run", "--bundle", "/no/such/place", "c")
    assert done.returncode == 1 and "cannot write the log" in done.stderr, done.stderr
