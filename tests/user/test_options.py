"""Options of the command line that engines and scripts give, seen by what they do."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.inside import set_namespace
from lab.runtime import Runtime


@pytest.mark.covers("run --pid-file")
def test_the_pid_file_of_run_holds_the_number_alone(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    file = place / "pid"
    place.chmod(0o777)
    rt.ok("run", "-d", "--pid-file", str(file), "-b", str(bundle(["/bin/sleep", "4430"]).path), "c")
    assert file.read_text() == str(rt.state("c")["pid"])


@pytest.mark.covers("create --detach", "create --no-new-keyring", "run --no-subreaper")
def test_options_that_change_nothing_here_are_taken(rt: Runtime, bundle: MakeBundle) -> None:
    box = str(bundle(["/bin/true"]).path)
    rt.ok("create", "--detach", "--no-new-keyring", "--bundle", box, "c")
    rt.ok("start", "c")
    rt.ok("run", "-no-subreaper", "--bundle", box, "d")


@pytest.mark.covers("run --no-subreaper")
def test_without_a_subreaper_orphans_are_not_rt_s(rt: Runtime, bundle: MakeBundle) -> None:
    box = set_namespace(bundle("(sleep 0.2 &); sleep 4432"), "pid", absent=True)
    process = rt.popen("run", "--no-subreaper", "-b", str(box.path), "c", stderr=subprocess.DEVNULL)
    try:
        while not (parents := _parents("sleep\x000.2\0")):
            time.sleep(0.005)
        assert str(process.pid) not in parents
    finally:
        rt.ok("kill", "c", "KILL")
        process.wait(10)


@pytest.mark.covers("--rootless", "--criu", "--degrade")
def test_a_caller_may_be_treated_as_one_without_root(rt: Runtime, bundle: MakeBundle) -> None:
    box = str(bundle(["/bin/true"]).path)
    for word in ("--rootless=true", "--rootless=false", "--rootless=auto"):
        rt.ok("--criu", "/usr/sbin/criu", word, "run", "-b", box, "c")


@pytest.mark.covers("exec --user")
def test_an_empty_user_is_none_given_as_with_runc(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("run", "-d", "-b", str(bundle(["/bin/sleep", "4433"]).path), "c")
    for words in (["--user="], ["-u", ""]):
        assert rt.ok("exec", *words, "c", "/bin/id", "-u") == "0\n"
    for word in (":", ":0", "0:", "root", " "):
        done = rt("exec", "--user", word, "c", "/bin/id")
        assert done.returncode == 255 and "--user" in done.stderr


@pytest.mark.covers("exec --process")
def test_words_beside_a_process_file_are_ignored_aloud(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    (place / "process.json").write_text(json.dumps({"args": ["/bin/echo", "file"], "cwd": "/"}))
    rt.ok("run", "-d", "-b", str(bundle(["/bin/sleep", "4434"]).path), "c")
    done = rt("exec", "--process", str(place / "process.json"), "c", "/bin/echo", "words")
    assert (done.returncode, done.stdout) == (0, "file\n")
    assert "the words behind the id are ignored" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.covers("run --detach", "delete --force", "kill --all")
def test_options_may_stand_behind_the_id(rt: Runtime, bundle: MakeBundle) -> None:
    box = str(bundle(["/bin/sleep", "4435"]).path)
    rt.ok("run", "c", "-detach", "-b=" + box)
    rt.ok("kill", "c", "--all", "KILL")
    rt.ok("delete", "c", "-force")
    done = rt("list", "--root", str(rt.root))
    assert done.returncode == 1 and "write it before the command" in done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [(["exec", "nobody", "true"], 255), (["exec"], 1), (["exec", "--bogus", "c"], 1),
     (["state", "nobody"], 1), (["nonsense"], 1), (["kill", "nobody", "NOPE"], 1), (["update", "c"], 1),
     (["start", "a", "b"], 1)],
)  # fmt: skip
def test_errors_have_the_codes_of_runc(rt: Runtime, words: list[str], code: int) -> None:
    done = rt(*words)
    assert (done.returncode, done.stdout) == (code, "") and "rt: " in done.stderr


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _parents(command: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if _text(path) == command:
            found.append(_text(path.parent / "stat").rpartition(")")[2].split()[1])
    return found
