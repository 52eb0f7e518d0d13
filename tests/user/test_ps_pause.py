"""The processes of a container: shown, paused, and all of them signalled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.inside import set_namespace
from lab.runtime import Runtime
from lab.users import User
from lab.waiting import PATIENCE, command, until
from lab.wrapped import Wrapped, with_mounts

THREE = "sleep 4401 & sleep 4402 & exec sleep 4403"
NESTED = "unshare -p -f sh -c 'sleep 4404; true' & sleep 4405; true"


def listed(rt: Runtime) -> list[int]:
    return list(json.loads(rt.ok("ps", "--format", "json", "c")))


def command_of(pid: int) -> str:
    return " ".join(command(pid))


def wait_for_processes(rt: Runtime, number: int, *sleeping: str) -> list[int]:
    """Until the container `c` has so many, and among them `sleep` with each of these words; their numbers."""
    wanted = {f"sleep {word}" for word in sleeping}

    def there() -> bool:
        pids = listed(rt)
        return len(pids) == number and wanted <= set(map(command_of, pids))

    until(there, lambda: f"{number}, among them {wanted}; there are {[*map(command_of, listed(rt))]}")
    return listed(rt)


@pytest.mark.covers("ps", "ps --format")
def test_all_processes_are_listed_in_json_on_one_line(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("run", "-d", "-b", str(bundle(THREE).path), "c")
    pids = wait_for_processes(rt, 3, "4401", "4402", "4403")
    assert rt.state("c")["pid"] in pids
    assert sorted(map(command_of, pids)) == ["sleep 4401", "sleep 4402", "sleep 4403"]
    assert rt.ok("ps", "-f=json", "c") == json.dumps(pids, separators=(",", ":")) + "\n"


def test_processes_of_a_nested_pid_namespace_are_the_container_s(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle(NESTED)
    sets = ("bounding", "effective", "permitted")
    box.change(
        lambda config: [config["process"]["capabilities"][kind].append("CAP_SYS_ADMIN") for kind in sets]
    )
    rt.ok("run", "-d", "-b", str(box.path), "c")
    pids = wait_for_processes(rt, 5, "4404", "4405")
    assert {"sleep 4404", "sleep 4405"} <= set(map(command_of, pids))


def test_without_a_pid_namespace_the_first_process_is_known(rt: Runtime, bundle: MakeBundle) -> None:
    box = set_namespace(bundle(["/bin/sleep", "4406"]), "pid", absent=True)
    assert rt("run", "-d", "-b", str(box.path), "c").returncode == 0
    assert json.loads(rt.ok("ps", "-f", "json", "c")) == [rt.state("c")["pid"]]


@pytest.mark.covers("ps")
def test_the_table_is_that_of_ps_with_the_container_s_lines(rt: Runtime, bundle: MakeBundle) -> None:
    if not shutil.which("ps"):
        pytest.skip("needs ps (procps)")
    rt.ok("run", "-d", "-b", str(bundle(THREE).path), "c")
    pids = wait_for_processes(rt, 3, "4401", "4402", "4403")
    heading, *lines = rt.ok("ps", "c").splitlines()
    assert heading.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert sorted(int(line.split()[1]) for line in lines) == pids
    heading, *lines = rt.ok("ps", "c", "-o", "pid,args", "-A").splitlines()
    assert heading.split() == ["PID", "COMMAND"] and len(lines) == 3
    assert all(" sleep 440" in line for line in lines)


def test_arguments_without_a_column_of_pids_are_refused(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("run", "-d", "-b", str(bundle(["/bin/sleep", "4407"]).path), "c")
    done = rt("ps", "c", "-A", "-o", "args")
    assert done.returncode == 1 and done.stderr.startswith("rt: no column PID in what ps prints\n")
    done = rt("ps", "c", "--no-such-option")
    assert done.returncode == 1 and done.stderr.startswith("rt: ps --no-such-option: ")


def test_without_ps_there_is_a_table_all_the_same(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    rt.ok("run", "-d", "-b", str(bundle(THREE).path), "c")
    pids = wait_for_processes(rt, 3, "4401", "4402", "4403")
    bare = {**rt.user.environment(), "PATH": str(place)}
    heading, *lines = rt.ok("ps", "c", env=bare).splitlines()
    assert heading.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert [int(line.split()[1]) for line in lines] == pids
    assert {line.split()[-1] for line in lines} == {"4401", "4402", "4403"}
    done = rt("ps", "c", "aux", env=bare)
    assert done.returncode == 1 and "no ps on this host" in done.stderr


@pytest.mark.parametrize("words", [["ps"], ["ps", "-f", "json"], ["pause"], ["resume"]])
def test_a_stopped_container_is_refused(rt: Runtime, bundle: MakeBundle, words: list[str]) -> None:
    rt.ok("run", "--keep", "-b", str(bundle(["/bin/true"]).path), "c")
    done = rt(*words, "c")
    assert done.returncode == 1 and done.stderr.startswith("rt: container not ")
    assert done.stdout == ""


def test_a_created_container_has_the_process_that_waits(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("create", "-b", str(bundle(["/bin/true"]).path), "c")
    assert json.loads(rt.ok("ps", "-f", "json", "c")) == [rt.state("c")["pid"]]


def test_a_format_that_is_none_is_refused(rt: Runtime) -> None:
    done = rt("ps", "--format", "yaml", "c")
    assert done.returncode == 1 and "choose one of: table, json" in done.stderr


@pytest.mark.covers("kill --all")
def test_kill_all_reaches_every_process(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    # The first process of a pid namespace does not mind a signal that it has no handler for.
    rt.ok("run", "-d", "-b", str(bundle("sleep 4410 & sleep 4411 & wait; exec sleep 4412").path), "c")
    before = wait_for_processes(rt, 3, "4410", "4411")
    rt.ok("kill", "c", "TERM")
    assert wait_for_processes(rt, 3, "4410", "4411") == before
    rt.ok("kill", "--all", "c", "TERM")
    wait_for_processes(rt, 1, "4412")


@pytest.mark.covers("kill --all")
def test_kill_all_does_not_mind_a_container_that_has_stopped(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("run", "--keep", "-b", str(bundle(["/bin/true"]).path), "c")
    rt.ok("kill", "--all", "c", "9")
    rt.ok("kill", "-a", "c", "15")
    assert rt("kill", "c", "9").stderr.startswith("rt: container not running\n")
    assert rt("kill", "--all", "nobody", "9").returncode == 1


@pytest.mark.covers("kill --regex", "delete --regex")
def test_an_expression_stands_for_all_that_match(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle(["/bin/sleep", "4413"])
    for name in ("web-1", "web-2", "db-1"):
        rt.ok("run", "-d", "-b", str(box.path), name)
    rt.ok("kill", "--regex", "^web-[0-9]$", "KILL")
    rt.wait_for("web-1", "stopped")
    rt.wait_for("web-2", "stopped")
    assert rt.state("db-1")["status"] == "running"
    done = rt("delete", "-r", "[-]1$")
    assert done.returncode == 1 and done.stderr.startswith('rt: db-1: cannot delete container "db-1"')
    assert rt.ok("list", "-q").split() == ["db-1", "web-2"]
    done = rt("delete", "--force", "--regex", "")
    assert done.returncode == 1 and "an empty expression matches every container" in done.stderr
    assert rt.ok("delete", "--force", "--regex", "[[w]eb-2") == ""
    assert rt.ok("list", "-q").split() == ["db-1"]
    rt.ok("delete", "--force", "--regex", ".")
    assert rt.ok("list", "-q") == ""
    done = rt("delete", "--regex", "(")
    assert done.returncode == 1 and "is no regular expression" in done.stderr


@pytest.mark.parametrize("command", ["kill", "delete"])
def test_an_expression_whose_matching_never_ends_is_given_up(
    rt: Runtime, bundle: MakeBundle, command: str
) -> None:
    name = "a" * 60
    rt.ok("run", "--keep", "-b", str(bundle(["/bin/true"]).path), name)
    done = rt(command, "--regex", "(a+)+b")
    assert done.returncode == 1
    assert "takes too long to match the ids: nothing was done\nhint: " in done.stderr
    assert rt.ok("list", "-q").split() == [name]


# Pausing


@pytest.fixture
def delegated(rt: Runtime, alice: User) -> Iterator[Wrapped]:
    """`rt` on a host of cgroup v2 alone, in a cgroup that has been given to alice."""
    group = f"/sys/fs/cgroup/rt-test-pause-{os.getpid()}"
    script = f"""
        umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup
        mkdir -p {group}/own; cd {group}
        chown {alice.uid} . cgroup.procs own own/cgroup.procs; cd /
        echo $$ > {group}/own/cgroup.procs"""
    made = with_mounts(rt, script)
    if made("list").returncode != 0:
        pytest.skip("a cgroup2 file system cannot be mounted here")
    yield made
    made.clean()
    # A cgroup may be busy for a moment after its last process.
    undo = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup"
    undo += f"; until rmdir {group}/own; do sleep 0.05; done; rmdir {group}"
    subprocess.run(["unshare", "--mount", "sh", "-c", undo], check=True, timeout=PATIENCE)


def ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


@pytest.mark.covers("pause", "resume")
def test_a_paused_container_stands_still_until_it_is_resumed(delegated: Wrapped, bundle: MakeBundle) -> None:
    delegated.ok("run", "-d", "-b", str(bundle("while :; do :; done").path), "c")
    delegated.ok("pause", "c")
    state = delegated.state("c")
    assert state["status"] == "paused"
    before = ticks(state["pid"])
    done = delegated("pause", "c")
    assert (done.returncode, done.stderr) == (
        1,
        'rt: container not running or created: "c" is paused\nhint: rt resume c\n',
    )
    assert ticks(state["pid"]) == before
    assert json.loads(delegated.ok("ps", "-f", "json", "c")) == [state["pid"]]
    assert delegated("exec", "c", "/bin/true").returncode == 255
    delegated.ok("resume", "c")
    assert delegated.state("c")["status"] == "running"
    done = delegated("resume", "c")
    assert (done.returncode, done.stderr) == (1, 'rt: container not paused: "c" is running\n')
    until(lambda: ticks(state["pid"]) > before, "it goes on")


def test_a_paused_container_can_be_killed_and_removed(delegated: Wrapped, bundle: MakeBundle) -> None:
    box = bundle(["/bin/sleep", "4414"])
    delegated.ok("run", "-d", "-b", str(box.path), "c")
    delegated.ok("pause", "c")
    assert "that is not stopped: paused" in delegated("delete", "c").stderr
    delegated.ok("kill", "c", "KILL")
    delegated.wait_for("c", "stopped")
    delegated.ok("delete", "c")
    delegated.ok("run", "-d", "-b", str(box.path), "c")
    delegated.ok("pause", "c")
    delegated.ok("delete", "--force", "c")


def test_a_created_container_can_be_paused_and_not_started_then(
    delegated: Wrapped, bundle: MakeBundle
) -> None:
    delegated.ok("create", "-b", str(bundle(["/bin/sleep", "4415"]).path), "c")
    delegated.ok("pause", "c")
    assert delegated("start", "c").stderr.startswith("rt: cannot start a container that is paused\n")
    delegated.ok("resume", "c")
    assert delegated.state("c")["status"] == "created"
    delegated.ok("start", "c")
    assert delegated.state("c")["status"] == "running"


def test_a_container_without_a_cgroup_says_why_it_cannot_be_paused(rt: Runtime, bundle: MakeBundle) -> None:
    manager = ["--cgroup-manager", "disabled"]
    rt.ok(*manager, "run", "-d", "-b", str(bundle(["/bin/sleep", "4416"]).path), "c")
    done = rt("pause", "c")
    line, hint = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("rt: cannot pause: the container has no cgroup")
    assert "Delegate=yes" in hint
    assert rt("resume", "c").stderr == 'rt: container not paused: "c" is running\n'
