"""Options of the command line that engines and scripts give, seen by what they do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.inside import set_namespace
from lab.runtime import Runtime
from lab.waiting import PATIENCE, command, commands, until
from lab.wrapped import after


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
    orphan = ["sleep", f"{4434_00000 + os.getpid()}"]  # no other run's
    box = set_namespace(bundle(f"({' '.join(orphan)} &); sleep 4432"), "pid", absent=True)
    process = rt.popen("run", "--no-subreaper", "-b", str(box.path), "c", stderr=subprocess.DEVNULL)

    def orphans() -> dict[int, str]:
        """Whose parent is the container's shell no more."""
        shell = box.config["process"]["args"]
        return {pid: parent for pid, parent in _processes(orphan).items() if command(parent) != shell}

    try:
        until(orphans, "the orphan sleeps")
        found = orphans()
        assert found and str(process.pid) not in found.values()
        for pid in found:
            os.kill(pid, signal.SIGKILL)
    finally:
        rt.ok("kill", "c", "KILL")
        process.wait(PATIENCE)


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


def _processes(words: list[str]) -> dict[int, str]:
    """Those with this command line; their parents."""
    pids = [pid for pid, line in commands().items() if line == words]
    found = {pid: _text(Path(f"/proc/{pid}/stat")) for pid in pids}
    return {pid: status.rpartition(")")[2].split()[1] for pid, status in found.items() if status}


@pytest.mark.covers("create --preserve-fds", "create --no-pivot")
def test_what_is_asked_at_create_holds_at_start(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    box = bundle("ls /proc/self/fd | tr '\\n' ' ' > /tmp/said")
    place.chmod(0o777)
    words = ("create", "--no-pivot", "--preserve-fds=1", "-b", str(box.path), "c")
    after(rt, "exec 3</dev/null 4</dev/null").ok(*words)
    rt.ok("start", "c")
    rt.wait_for("c", "stopped")
    # Of 3 and 4 only 3 was asked for; the fourth is what ls itself has open on the directory.
    assert (box.rootfs / "tmp/said").read_text().split() == ["0", "1", "2", "3", "4"]


@pytest.mark.covers("create --config", "run --config")
def test_another_config_than_the_bundle_s_may_be_named(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    box = bundle(["/bin/echo", "other"])
    other = place / "other.json"
    (box.path / "config.json").rename(other)
    assert rt.ok("run", "--config", str(other), "-b", str(box.path), "c") == "other\n"
    rt.ok("create", "--config", str(other), "-b", str(box.path), "d", stdout=subprocess.DEVNULL)
    assert rt.state("d")["bundle"] == str(box.path)
    rt.ok("delete", "d")


@pytest.mark.covers("list --format")
def test_a_list_as_json_has_what_state_has_and_the_owner(rt: Runtime, bundle: MakeBundle) -> None:
    assert rt.ok("list", "--format", "json") == "null\n"
    rt.ok("run", "-d", "-b", str(bundle(["/bin/sleep", "4435"]).path), "c")
    [found] = json.loads(rt.ok("list", "-f", "json"))
    assert found == {**rt.state("c"), "owner": rt.user.name}


@pytest.mark.covers("--debug")
def test_debugging_tells_steps_on_stderr_and_leaves_stdout_alone(rt: Runtime, bundle: MakeBundle) -> None:
    done = rt("--debug", "run", "-b", str(bundle(["/bin/echo", "said"]).path), "c")
    assert (done.returncode, done.stdout) == (0, "said\n")
    assert done.stderr and all(line.startswith("rt: debug: ") for line in done.stderr.splitlines())


@pytest.mark.covers("spec --rootfs-from-host", "spec", "features")
def test_a_bundle_made_of_the_host_s_programs_runs(rt: Runtime, place: Path) -> None:
    made = place / "made"
    made.mkdir()
    made.chmod(0o777)
    rt.ok("spec", "--rootless", "--rootfs-from-host", "-b", str(made))
    config = json.loads((made / "config.json").read_text())
    config["process"].update(terminal=False, args=["/bin/echo", "made"])
    own = made / "own.json"
    own.write_text(json.dumps(config))
    assert rt.ok("run", "--config", str(own), "-b", str(made), "c") == "made\n"
    assert config["ociVersion"] == json.loads(rt.ok("features"))["ociVersionMax"]
