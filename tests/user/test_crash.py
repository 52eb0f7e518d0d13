"""`rt` is killed at any moment, or told to end: what is left can be removed, or nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle, Config
from lab.leftovers import Ground
from lab.runtime import Runtime
from lab.strikes import duration, ends_by, moments, remove, saved_or_ended, strike
from lab.users import User
from lab.waiting import PATIENCE, until

KILLS = 60
ENDING = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM]
HOOKS = ["prestart", "createRuntime", "createContainer"]


@pytest.fixture
def sleeper(bundle: MakeBundle) -> str:
    return str(bundle(["/bin/sleep", "1234"]).path)


@pytest.fixture
def ground(rt: Runtime) -> Ground:
    return Ground(rt, "struck")


def with_slow_hook(bundle: Bundle, kind: str, user: User, place: Path) -> Path:
    """Give the bundle a hook that says by a file that it runs, and then does not end."""
    ready = place / "ready"
    ready.mkdir()
    user.owns(ready)
    script = f"echo > {ready}/now; exec sleep 1234"

    def change(config: Config) -> None:
        config["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]}

    bundle.change(change)
    return ready / "now"


def begin(rt: Runtime, *words: str) -> subprocess.Popen[bytes]:
    null = subprocess.DEVNULL
    return rt.popen(*words, stdin=null, stdout=null, stderr=null)


def test_a_killed_create_leaves_what_delete_force_removes(rt: Runtime, sleeper: str, ground: Ground) -> None:
    stretch = duration(rt, "create", "--bundle", sleeper, "struck")
    remove(rt, ground, "struck")
    seen = set()
    for after in moments(KILLS, stretch):
        strike(rt, signal.SIGKILL, after, "create", "--bundle", sleeper, "struck")
        status = saved_or_ended(rt, ground, "struck")
        seen.add(status)
        if status == "created":
            rt.ok("kill", "struck", "KILL")
            assert rt.wait_for("struck", "stopped")["pid"] == 0
        remove(rt, ground, "struck")
    assert seen <= {"none", "creating", "created", "stopped"}


def test_a_killed_create_with_a_full_map_leaves_nothing_either(
    rt: Runtime, bundle: MakeBundle, ground: Ground, alice: User
) -> None:
    made = bundle(["/bin/sleep", "1234"])
    made.config["linux"]["uidMappings"] = [
        {"containerID": 0, "hostID": alice.uid, "size": 1},
        {"containerID": 1, "hostID": _first_of("/etc/subuid", alice), "size": 1000},
    ]
    made.config["linux"]["gidMappings"] = [
        {"containerID": 0, "hostID": alice.gid, "size": 1},
        {"containerID": 1, "hostID": _first_of("/etc/subgid", alice), "size": 1000},
    ]
    made.write()
    stretch = duration(rt, "create", "--bundle", str(made.path), "struck")
    remove(rt, ground, "struck")
    for after in moments(KILLS // 2, stretch):
        strike(rt, signal.SIGKILL, after, "create", "--bundle", str(made.path), "struck")
        saved_or_ended(rt, ground, "struck")
        remove(rt, ground, "struck")


def _first_of(path: str, user: User) -> int:
    for line in Path(path).read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in (user.name, str(user.uid)):
            return int(rest.partition(":")[0])
    pytest.skip(f"{path} grants {user.name} nothing")


def test_a_killed_run_leaves_what_delete_force_removes(rt: Runtime, sleeper: str, ground: Ground) -> None:
    stretch = duration(rt, "run", "--detach", "--bundle", sleeper, "struck")
    remove(rt, ground, "struck")
    for number, after in enumerate(moments(KILLS, stretch)):
        detached = ["--detach"] if number % 2 else []
        strike(rt, signal.SIGKILL, after, "run", *detached, "--bundle", sleeper, "struck")
        saved_or_ended(rt, ground, "struck")
        remove(rt, ground, "struck")


def test_a_killed_start_leaves_a_container_that_starts_again_or_runs(
    rt: Runtime, sleeper: str, ground: Ground
) -> None:
    rt.ok("create", "--bundle", sleeper, "struck")
    stretch = duration(rt, "start", "struck")
    remove(rt, ground, "struck")
    for after in moments(KILLS // 2, stretch):
        rt.ok("create", "--bundle", sleeper, "struck")
        strike(rt, signal.SIGKILL, after, "start", "struck")
        # rt-init may have been told to go on by a command that is gone now: it does, in its own time.
        if rt.state("struck")["status"] == "created":
            rt("start", "struck")
        rt.wait_for("struck", "running")
        remove(rt, ground, "struck")


def test_a_killed_delete_can_be_done_again(rt: Runtime, sleeper: str, ground: Ground) -> None:
    rt.ok("create", "--bundle", sleeper, "struck")
    stretch = duration(rt, "delete", "--force", "struck")
    for after in moments(KILLS // 2, stretch):
        rt.ok("create", "--bundle", sleeper, "struck")
        strike(rt, signal.SIGKILL, after, "delete", "--force", "struck")
        remove(rt, ground, "struck")


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
def test_a_create_told_to_end_is_made_or_has_never_been(
    rt: Runtime, sleeper: str, ground: Ground, place: Path, number: signal.Signals
) -> None:
    pids = place / "pids"
    pids.mkdir()
    rt.user.owns(pids)
    words = ["create", "--pid-file", str(pids / "pid"), "--bundle", sleeper, "struck"]
    stretch = duration(rt, *words)
    remove(rt, ground, "struck")
    (pids / "pid").unlink()
    for after in moments(KILLS // 3, stretch):
        code = strike(rt, number, after, *words)
        assert code in (0, *ends_by(number))
        if code == 0:
            assert rt.state("struck")["status"] == "created"
            (pids / "pid").unlink()
            remove(rt, ground, "struck")
        ground.clean()
        assert list(pids.iterdir()) == []


def test_a_run_told_to_end_leaves_nothing(rt: Runtime, bundle: MakeBundle, ground: Ground) -> None:
    quick = str(bundle(["/bin/true"]).path)
    stretch = duration(rt, "run", "--bundle", quick, "struck")
    for number, after in enumerate(moments(KILLS, stretch)):
        wanted = ENDING[number % 4]
        code = strike(rt, wanted, after, "run", "--bundle", quick, "struck")
        assert code in (0, *ends_by(wanted))
        ground.clean()


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_signal_ends_a_hook_and_takes_the_container_back(
    rt: Runtime, bundle: MakeBundle, alice: User, place: Path, ground: Ground, kind: str, verb: str
) -> None:
    made = bundle(["/bin/true"])
    ready = with_slow_hook(made, kind, alice, place)
    process = begin(rt, verb, "--bundle", str(made.path), "struck")
    until(ready.exists, f"{ready} is there")
    assert rt.state("struck")["status"] == "creating"
    process.terminate()
    assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    ground.clean()


def test_a_signal_ends_a_run_that_waits_for_a_start_container_hook(
    rt: Runtime, bundle: MakeBundle, place: Path, alice: User, ground: Ground
) -> None:
    made = bundle(["/bin/true"])
    # It runs in the container's root, where nothing of the host is.
    made.change(lambda config: config.update(hooks={"startContainer": [{"path": "/bin/hook"}]}))
    hook = made.rootfs / "bin/hook"
    hook.write_text("#!/bin/sh\n: > /tmp/now\nexec sleep 1234\n")
    hook.chmod(0o755)
    process = begin(rt, "run", "--bundle", str(made.path), "struck")
    until((made.rootfs / "tmp/now").exists, "the hook runs")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 128 + signal.SIGINT
    ground.clean()


@pytest.mark.parametrize("kind", HOOKS)
def test_a_create_killed_in_a_hook_is_removed_by_delete_force(
    rt: Runtime, bundle: MakeBundle, alice: User, place: Path, ground: Ground, kind: str
) -> None:
    made = bundle(["/bin/true"])
    ready = with_slow_hook(made, kind, alice, place)
    process = begin(rt, "create", "--bundle", str(made.path), "struck")
    until(ready.exists, f"{ready} is there")
    process.kill()
    process.wait(PATIENCE)
    rt.ok("delete", "--force", "struck")
    assert not (rt.root / "struck").exists()
    # A hook of the host's is not the container's: it goes on after its runtime, as under every runtime.
    kept = [] if kind == "createContainer" else ["sleep 1234"]
    until(
        lambda: {*ground.processes_end(0).values()} <= {*kept},
        lambda: f"{kept} is left of it, not {ground.processes_end(0)}",
    )
    if rest := ground.processes_end(0):
        subprocess.run(["kill", "-KILL", *map(str, rest)], check=True)
    ground.clean()


def test_a_failure_does_not_wait_for_children_that_are_not_ours(
    rt: Runtime, bundle: MakeBundle, ground: Ground
) -> None:
    made = bundle(["/no/such/program"])
    # The shell becomes rt, and rt inherits its child.
    done = by_shell(
        rt, 'sleep 1234 >&- 2>&- & echo $!; exec "$@"', "create", "--bundle", str(made.path), "struck"
    )
    assert done.returncode == 1 and "no such file or directory" in done.stderr
    subprocess.run(["kill", "-KILL", done.stdout.strip()], check=True)
    ground.clean()


def test_a_caller_that_ignores_sigchld_still_learns_the_exit_code(
    rt: Runtime, bundle: MakeBundle, ground: Ground
) -> None:
    words = ["run", "--bundle", str(bundle("exit 7").path), "struck"]
    assert by_shell(rt, """trap '' CHLD; exec "$@" """, *words).returncode == 7
    ground.clean()


def test_a_hangup_that_the_caller_ignores_does_not_end_a_create(
    rt: Runtime, bundle: MakeBundle, alice: User, place: Path, ground: Ground
) -> None:
    made = bundle(["/bin/true"])
    ready = with_slow_hook(made, "createRuntime", alice, place)
    (words,) = made.config["hooks"]["createRuntime"]
    words["args"][2] = f"echo > {ready}; until [ -e {ready}-again ]; do sleep 0.02; done; exit 3"
    made.write()
    process = rt.popen(
        "create", "--bundle", str(made.path), "struck", preexec_fn=lambda: signal.signal(1, signal.SIG_IGN)
    )
    until(ready.exists, f"{ready} is there")
    process.send_signal(signal.SIGHUP)
    Path(f"{ready}-again").touch()
    assert process.wait(PATIENCE) == 1
    ground.clean()


def by_shell(rt: Runtime, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command through a shell script that executes it as "$@"."""
    own = (
        {} if rt.user.uid == os.getuid() else {"user": rt.user.uid, "group": rt.user.gid, "extra_groups": []}
    )
    argv = ["/bin/sh", "-c", script, "sh", *rt.argv(*words)]
    options: dict[str, Any] = {"env": rt.user.environment(), "cwd": "/", "timeout": PATIENCE, **own}
    return subprocess.run(argv, capture_output=True, text=True, check=False, **options)
