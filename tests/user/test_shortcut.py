"""The launcher's short way (cli/shortcut*.c) and the long one through Python: the same in every situation.

Whatever the launcher does by itself is what Python would have done; where it does not, nothing has happened.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab import shortcuts
from lab.bundles import Bundle, busybox_rootfs, rootless_config
from lab.runtime import RT, Runtime
from lab.shortcuts import LONG, Alone, Situation, first_pids, remains, told
from lab.users import User
from lab.waiting import PATIENCE, command, until

SLEEP = "exec sleep 1000"
STATE, START = ("state", "c"), ("start", "c")
CONT, KILL, ALL, TERM = (
    ("kill", "c", "CONT"),
    ("kill", "c", "KILL"),
    ("kill", "--all", "c", "9"),
    ("kill", "c"),
)
DELETE, FORCE = ("delete", "c"), ("delete", "--force", "c")
EVERY = {STATE, START, CONT, KILL, ALL, TERM, DELETE, FORCE}

# situation -> (what the launcher does by itself, what else is to be tried)
MATRIX: dict[Situation, tuple[set[tuple[str, ...]], set[tuple[str, ...]]]] = {
    shortcuts.created: (EVERY, set()),
    shortcuts.running: ({STATE, CONT, KILL, ALL, TERM, FORCE}, {START, DELETE}),
    shortcuts.stopped: ({STATE, ALL, DELETE, FORCE}, {START, KILL}),
    shortcuts.other_boot: ({STATE, FORCE}, {KILL}),
    shortcuts.reused_pid: ({STATE, FORCE}, {KILL}),
    shortcuts.somebody_s_pid: ({STATE, FORCE}, {KILL}),
    shortcuts.missing: ({FORCE}, {STATE, START, KILL, DELETE}),
    shortcuts.no_root: ({FORCE}, {STATE}),
    shortcuts.touched: (set(), {STATE, FORCE}),
    shortcuts.torn_state: (set(), {STATE, DELETE}),
    shortcuts.no_state: (set(), {STATE, FORCE}),
    shortcuts.edited_state: (set(), {STATE, KILL}),
    shortcuts.torn_record: (set(), {KILL}),
    shortcuts.no_record: (set(), {FORCE}),
    shortcuts.linked_record: (set(), {STATE}),
    shortcuts.open_record: (set(), {STATE}),
    shortcuts.open_root: (set(), {STATE, KILL}),
    shortcuts.a_directory_inside: (set(), {DELETE}),
    shortcuts.a_link_for_a_container: (set(), {STATE}),
}
CASES = [
    pytest.param(situation, words, words in short, id=f"{situation.__name__}-{' '.join(words)}")
    for situation, (short, long) in MATRIX.items()
    for words in sorted(short | long)
]


@pytest.fixture
def second(rt: Runtime, place: Path) -> Runtime:
    """Another state root of the same user."""
    root = place / "second-state"
    root.mkdir(mode=0o700)
    rt.user.owns(root)
    return Runtime(rt.user, root)


@pytest.fixture(scope="module")
def asleep(alice: User) -> Iterator[str]:
    """A bundle of alice's that sleeps, for many containers."""
    place = Path(tempfile.mkdtemp(prefix="rt-asleep-"))
    place.chmod(0o755)
    busybox_rootfs(place / "bundle/rootfs")
    Bundle(place / "bundle", rootless_config(alice.uid, alice.gid, args=["/bin/sleep", "1000"]))
    alice.owns(place / "bundle")
    yield str(place / "bundle")
    shutil.rmtree(place)


def settle(rt: Runtime, words: tuple[str, ...], code: int) -> None:
    """SIGKILL takes its time."""
    if words in (KILL, ALL) and code == 0:
        rt.wait_for("c", "stopped")


@pytest.mark.parametrize(("situation", "words", "short"), CASES)
def test_both_ways_say_and_leave_the_same(
    rt: Runtime,
    second: Runtime,
    asleep: str,
    alone: Path,
    situation: Situation,
    words: tuple[str, ...],
    short: bool,
) -> None:
    outcomes = []
    for way in (rt, second):
        situation(way, asleep)
    pids = first_pids(rt) + first_pids(second)
    try:
        before = remains(rt)
        by_itself = Alone(alone, rt)
        if not short:
            assert not by_itself.can(*words)
            assert remains(rt) == before
        for way, done in ((rt, (by_itself if short else rt)(*words)), (second, second(*LONG, *words))):
            settle(way, words, done.returncode)
            outcomes.append((told(way, done), remains(way), told(way, way(*LONG, "state", "c"))))
        assert outcomes[0] == outcomes[1]
        assert not short or outcomes[0][0][0] == 0
    finally:
        for way in (rt, second):
            if way.root.is_dir():
                way.root.chmod(0o700)
            way.clean()
        for pid in set(pids) - {os.getpid(), 1 << 30}:
            if any("sleep" in word for word in command(pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


# Command lines.

GLOBALS = [
    [],
    ["--log", "LOG", "--log-format", "json"],
    ["--log-format=json", "--log", "LOG"],
    ["-log=LOG", "--systemd-cgroup", "--rootless=true"],
    ["--systemd-cgroup=false", "--criu", "/x", "--degrade", "strict", "--cgroup-manager", "disabled"],
]


@pytest.mark.parametrize("words", GLOBALS, ids=" ".join)
def test_the_calls_of_engines_take_the_short_way(
    rt: Runtime, asleep: str, place: Path, alone: Path, words: list[str]
) -> None:
    log = place / "log.json"
    words = [word.replace("LOG", str(log)) for word in words]
    by_itself = Alone(alone, rt)
    shortcuts.created(rt, asleep)
    for call in (
        ["state", "c"], ["start", "c"], ["kill", "c", "18"], ["kill", "c", "sigcont"], ["kill", "c", "Cont"],
        ["kill", "c", "RTMIN+30"], ["kill", "--all", "c", "9"], ["kill", "-a=true", "c", "KILL"],
        ["delete", "c"], ["delete", "--force", "c"], ["delete", "c", "-f"],
    ):  # fmt: skip
        assert by_itself.can(*words, *call), call
        if call[-1] == "9":
            rt.wait_for("c", "stopped")
        if call[-1] == "RTMIN+30":
            # Its default is to end the process, were it not the first of its namespace.
            assert rt.state("c")["status"] == "running"
    assert not log.exists(), "nothing is logged, and no file made for it"


@pytest.mark.parametrize(
    "words",
    [
        ["--debug", "state", "c"], ["--log-level", "error", "state", "c"], ["--", "state", "c"],
        ["state", "--help"], ["state", "--", "c"], ["state", "c", "d"], ["kill", "--regex", "c"],
        ["kill", "c", "0"], ["kill", "c", "65"], ["kill", "c", "NONE"], ["delete", "--purge", "c"],
        ["--systemd-cgroup=perhaps", "state", "c"], ["--degrade", "softly", "state", "c"], ["state"],
        ["--root", "relative", "state", "c"], ["--root=", "state", "c"], ["state", "../c"], ["list"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_all_else_is_left_to_python(rt: Runtime, asleep: str, alone: Path, words: list[str]) -> None:
    shortcuts.created(rt, asleep)
    before = remains(rt)
    assert not Alone(alone, rt).can(*words)
    assert remains(rt) == before and rt.state("c")["status"] == "created"


# What `start` and `delete` must leave to Python.


def hook(box: Any, kind: str, script: str) -> Any:
    return box.change(
        lambda config: (
            config.setdefault("hooks", {})
            .setdefault(kind, [])
            .append({"path": "/bin/sh", "args": ["sh", "-c", script]})
        )
    )


@pytest.mark.parametrize(("kind", "words"), [("poststart", START), ("poststop", DELETE)])
def test_hooks_are_run_by_python(
    rt: Runtime, bundle: MakeBundle, place: Path, alone: Path, kind: str, words: tuple[str, ...]
) -> None:
    (place / "said").mkdir()
    rt.user.owns(place / "said")
    shortcuts.created(rt, str(hook(bundle(SLEEP), kind, f"echo ran > {place}/said/it").path))
    by_itself = Alone(alone, rt)
    assert by_itself.can("state", "c") and not by_itself.can(*words)
    rt.ok(*words)
    assert (place / "said/it").read_text() == "ran\n"


def test_a_hook_s_kind_that_is_written_with_escapes_is_seen(
    rt: Runtime, bundle: MakeBundle, place: Path, alone: Path
) -> None:
    (place / "said").mkdir()
    rt.user.owns(place / "said")
    box = hook(bundle(SLEEP), "poststart", f"echo ran > {place}/said/it")
    text = (box.path / "config.json").read_text()
    (box.path / "config.json").write_text(text.replace('"poststart"', '"post\\u0073tart"'))
    shortcuts.created(rt, str(box.path))
    assert not Alone(alone, rt).can("start", "c")
    rt.ok("start", "c")
    assert (place / "said/it").read_text() == "ran\n"


def test_a_service_manager_is_told_by_python(rt: Runtime, asleep: str, alone: Path) -> None:
    shortcuts.created(rt, asleep)
    environment = {**rt.user.environment(), "NOTIFY_SOCKET": "/nowhere"}
    assert not Alone(alone, rt).can("start", "c", env=environment)
    assert Alone(alone, rt).can("start", "c", env={**environment, "NOTIFY_SOCKET": ""})


def test_who_holds_the_lock_is_waited_for_by_python(rt: Runtime, asleep: str, alone: Path) -> None:
    shortcuts.created(rt, asleep)
    by_itself = Alone(alone, rt)
    held = os.open(rt.root / "c", os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert by_itself.can("state", "c") and by_itself.can("kill", "c", "CONT")
        assert not by_itself.can("start", "c") and not by_itself.can("delete", "c")
        waiting = rt.popen("start", "c")
        time.sleep(0.2)
        assert waiting.poll() is None
    finally:
        os.close(held)
    assert waiting.wait(PATIENCE) == 0 and rt.state("c")["status"] == "running"


# A start that fails when it has begun.


def failing(rt: Runtime, bundle: MakeBundle, how: str) -> str:
    box = bundle(SLEEP)
    if how == "no program":
        (box.rootfs / "bin/odd").write_bytes(b"\x7fELF no program")
        (box.rootfs / "bin/odd").chmod(0o755)
        box.change(lambda config: config["process"].update(args=["/bin/odd"]))
        rt.user.owns(box.path)
    else:
        hook(box, "startContainer", "echo no such luck; exit 3")
    return str(box.path)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("how", ["no program", "a hook"])
def test_what_goes_wrong_later_is_explained_by_python(
    rt: Runtime, second: Runtime, bundle: MakeBundle, place: Path, how: str, debug: bool
) -> None:
    path = failing(rt, bundle, how)
    outcomes = []
    for way, words in ((rt, ()), (second, LONG)):
        done = way(*(["--debug"] if debug else []), "create", "--bundle", path, "c")
        assert done.returncode == 0
        log = place / f"log-{len(outcomes)}"
        log.touch()
        way.user.owns(log)
        done = way("--log", str(log), "--log-format", "json", *words, "start", "c")
        assert done.returncode == 1 and len(done.stderr.splitlines()) in (1, 2), done
        record = json.loads(log.read_text())
        outcomes.append((told(way, done), record["msg"], remains(way), told(way, way("state", "c"))))
        way.clean()
    assert outcomes[0] == outcomes[1]
    assert "start" not in outcomes[0][2]["c"] and '"status": "stopped"' in outcomes[0][3][1]


def test_the_launcher_has_begun_such_a_start(rt: Runtime, bundle: MakeBundle, alone: Path) -> None:
    """Else the test above would compare the long way with itself."""
    shortcuts.created(rt, failing(rt, bundle, "no program"))
    assert not Alone(alone, rt).can("start", "c")
    rt.wait_for("c", "stopped")


def test_a_start_with_times_is_seen_through(rt: Runtime, asleep: str) -> None:
    """rt-init goes on to report how long each op took when `create` was asked to debug."""
    assert rt("--debug", "create", "--bundle", asleep, "c").returncode == 0
    rt.ok("start", "c")
    assert rt.state("c")["status"] == "running"
    assert "start" not in remains(rt)["c"]


def speaks(pid: int) -> bool:
    """Whether it has a socket open: `start` has one to the waiting process."""
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                return True
    return False


def test_ctrl_c_ends_a_start_that_waits(rt: Runtime, asleep: str) -> None:
    shortcuts.created(rt, asleep)
    pid = rt.state("c")["pid"]
    os.kill(pid, signal.SIGSTOP)
    codes = []
    for words in ((), LONG):
        waiting = rt.popen(*words, "start", "c", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(partial(speaks, waiting.pid), "it has a connection")
        waiting.send_signal(signal.SIGINT)
        codes.append(waiting.wait(PATIENCE))
    os.kill(pid, signal.SIGCONT)
    assert codes == [130, 130]


# Output that cannot be written.


@pytest.mark.parametrize("words", [(), LONG])
def test_a_reader_that_is_gone_and_a_full_disk_are_told_as_ever(
    rt: Runtime, asleep: str, words: tuple[str, ...]
) -> None:
    shortcuts.created(rt, asleep)
    read, write = os.pipe()
    os.close(read)
    done = rt(*words, "state", "c", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
    with open("/dev/full", "w") as full:
        done = rt(*words, "state", "c", stdout=full)
    assert done.returncode == 1 and "cannot write to standard output: no space left" in done.stderr


def test_a_pipe_that_does_not_block_gets_all_of_it(rt: Runtime, bundle: MakeBundle, alone: Path) -> None:
    box = bundle(SLEEP)
    box.change(lambda config: config.update(annotations={f"a{n}": "x" * 1000 for n in range(150)}))
    shortcuts.created(rt, str(box.path))
    read, write = os.pipe()
    os.set_blocking(write, False)
    process = Alone(alone, rt).popen("state", "c", stdout=write)
    os.close(write)
    time.sleep(0.2)
    with open(read, "rb") as file:
        assert json.loads(file.read())["annotations"]["a149"] == "x" * 1000
    assert process.wait(PATIENCE) == 0


def test_a_text_of_any_characters_is_printed_alike(rt: Runtime, bundle: MakeBundle, alone: Path) -> None:
    box = bundle(SLEEP)
    odd = {"\n  \"pid\": 0": "\\\"é\u2028\x7f", "<&>": "%s%n"}  # fmt: skip
    box.change(lambda config: config.update(annotations=odd))
    shortcuts.created(rt, str(box.path))
    short = Alone(alone, rt)("state", "c")
    assert short.stdout == rt(*LONG, "state", "c").stdout
    assert json.loads(short.stdout)["annotations"] == odd


# The state root that nobody names.


@pytest.mark.parametrize("kind", ["session", "unset", "empty", "open", "relative", "no home", "open home"])
def test_the_usual_root_is_found_as_python_finds_it(
    rt: Runtime, asleep: str, place: Path, alone: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind in ("no home", "open home"):
        request.getfixturevalue("fallback")
    environment = dict(rt.user.environment())
    runtime = place / "runtime"
    runtime.mkdir(mode=0o700)
    home = place / "home"
    home.mkdir(mode=0o755)
    for path in (runtime, home):
        rt.user.owns(path)
    environment.update(XDG_RUNTIME_DIR=str(runtime), HOME=str(home))
    if kind in ("unset", "no home", "open home"):
        del environment["XDG_RUNTIME_DIR"]
    elif kind == "empty":
        environment["XDG_RUNTIME_DIR"] = ""
    elif kind == "open":
        runtime.chmod(0o777)
    elif kind == "relative":
        environment["XDG_RUNTIME_DIR"] = "runtime"
    if kind == "no home":
        del environment["HOME"]
    elif kind == "open home":
        home.chmod(0o777)
    ids: dict[str, Any] = {"cwd": "/", "env": environment, "stdout": subprocess.DEVNULL}
    if os.getuid() != rt.user.uid:
        ids |= {"user": rt.user.uid, "group": rt.user.gid, "extra_groups": []}
    box = f"box{os.getpid()}"
    subprocess.run([RT, *LONG, "create", "--bundle", asleep, box], check=True, **ids)
    try:
        for words in (["state", box], ["start", box], ["kill", box, "CONT"], ["delete", "-f", box]):
            subprocess.run([alone, *words], check=True, **ids)
    finally:
        subprocess.run([RT, *LONG, "delete", "--force", box], check=True, **ids)
