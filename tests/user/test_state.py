"""The state of containers: where it is kept, what is believed of it, several commands on one id at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.leftovers import Ground
from lab.runtime import RT, Runtime
from lab.users import User
from lab.waiting import PATIENCE, until

State = dict[str, Any]
Done = subprocess.CompletedProcess[str]


@pytest.fixture
def sleeper(bundle: MakeBundle) -> str:
    return str(bundle(["/bin/sleep", "1234"]).path)


@pytest.fixture
def ground(rt: Runtime) -> Ground:
    return Ground(rt, "one")


def at_once(count: int, command: Callable[[int], Done]) -> list[Done]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(command, range(count)))


def assert_plain(done: Done) -> None:
    """It ended well, or with one error line: never with a mistake of the program's."""
    assert done.returncode in (0, 1), done
    for word in ("Traceback", "internal error"):
        assert word not in done.stderr, done.stderr


# Several commands on one id.


def test_of_twenty_creates_at_once_one_wins(rt: Runtime, sleeper: str, ground: Ground) -> None:
    all_done = at_once(20, lambda _: rt("create", "--bundle", sleeper, "one"))
    assert sorted(done.returncode for done in all_done) == [0] + [1] * 19
    assert all("exists" in done.stderr for done in all_done if done.returncode)
    assert rt.state("one")["status"] == "created"
    rt.ok("delete", "one")
    ground.clean()


def test_of_twenty_starts_at_once_one_wins(rt: Runtime, sleeper: str, ground: Ground) -> None:
    rt.ok("create", "--bundle", sleeper, "one")
    all_done = at_once(20, lambda _: rt("start", "one"))
    assert sorted(done.returncode for done in all_done) == [0] + [1] * 19
    assert all("already running" in done.stderr for done in all_done if done.returncode)
    assert rt.state("one")["status"] == "running"
    rt.ok("delete", "--force", "one")
    ground.clean()


def test_of_ten_deletes_at_once_one_wins(rt: Runtime, sleeper: str, ground: Ground) -> None:
    rt.ok("create", "--bundle", sleeper, "one")
    all_done = at_once(10, lambda _: rt("delete", "one"))
    assert sorted(done.returncode for done in all_done) == [0] + [1] * 9
    assert all("does not exist" in done.stderr for done in all_done if done.returncode)
    ground.clean()


@pytest.mark.covers("--root")
def test_a_storm_of_a_hundred_commands_ends_with_plain_errors(
    rt: Runtime, sleeper: str, ground: Ground
) -> None:
    kinds = [
        ["create", "--bundle", sleeper, "one"],
        ["start", "one"],
        ["state", "one"],
        ["kill", "one", "KILL"],
        ["delete", "one"],
        ["list"],
        ["delete", "--force", "one"],
        ["run", "--detach", "--bundle", sleeper, "one"],
    ]
    for done in at_once(100, lambda number: rt(*kinds[number * 7 % len(kinds)])):
        assert_plain(done)
    rt.ok("delete", "--force", "one")
    ground.clean()


def test_a_delete_never_removes_a_container_that_a_start_has_won(
    rt: Runtime, sleeper: str, ground: Ground
) -> None:
    for _ in range(15):
        rt.ok("create", "--bundle", sleeper, "one")
        start, delete = at_once(2, lambda number: rt(("start", "delete")[number], "one"))
        assert_plain(start)
        assert_plain(delete)
        # Whoever came first: a started container is not deleted without force.
        assert (start.returncode, delete.returncode) in ((0, 1), (1, 0)), (start, delete)
        assert (rt("state", "one").returncode == 0) == (start.returncode == 0)
        rt.ok("delete", "--force", "one")
        ground.clean()


@pytest.mark.parametrize("words", [["delete", "one"], ["start", "one"], ["delete", "--force", "one"]])
def test_a_command_beside_a_create_finds_it_made_or_not_at_all(
    rt: Runtime, sleeper: str, ground: Ground, words: list[str]
) -> None:
    for _ in range(10):
        create, other = at_once(
            2, lambda number: rt("create", "--bundle", sleeper, "one") if number == 0 else rt(*words)
        )
        assert_plain(create)
        assert_plain(other)
        rt.ok("delete", "--force", "one")
        ground.clean()


# Hooks that use `rt` on their own container.


def with_hook(rt: Runtime, made: Any, kind: str, script: str) -> str:
    """A bundle with a hook in sh; RT is the command on the right state root."""
    env = ["PATH=/usr/bin:/bin", f"RT={RT} --root {rt.root}"]
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": env}
    made.change(lambda config: config.update(hooks={kind: [hook]}))
    return str(made.path)


@pytest.mark.parametrize(
    ("kind", "command", "says"),
    [
        ("createRuntime", "state one", '"status": "creating"'),
        ("createRuntime", "start one", "still being created"),
        ("createRuntime", "delete one", "not stopped: creating"),
        ("poststart", "state one", '"status": "running"'),
        ("poststart", "start one", "already running"),
        ("poststart", "delete one", "not stopped: running"),
    ],
)
def test_a_hook_is_answered_at_once_about_its_own_container(
    rt: Runtime, bundle: MakeBundle, ground: Ground, place: Path, kind: str, command: str, says: str
) -> None:
    said = place / "said"
    said.touch()
    rt.user.owns(said)
    where = with_hook(rt, bundle(["/bin/sleep", "1234"]), kind, f"$RT {command} > {said} 2>&1; true")
    rt.ok("create", "--bundle", where, "one")
    rt.ok("start", "one")
    assert says in said.read_text()
    rt.ok("delete", "--force", "one")
    ground.clean()


def test_a_poststart_hook_may_delete_its_container(rt: Runtime, bundle: MakeBundle, ground: Ground) -> None:
    where = with_hook(rt, bundle(["/bin/sleep", "1234"]), "poststart", "$RT delete --force one")
    rt.ok("create", "--bundle", where, "one")
    rt.ok("start", "one")
    ground.clean()


def test_a_create_runtime_hook_that_deletes_its_container_ends_the_create(
    rt: Runtime, bundle: MakeBundle, ground: Ground
) -> None:
    where = with_hook(rt, bundle(["/bin/true"]), "createRuntime", "$RT delete --force one")
    done = rt("create", "--bundle", where, "one")
    assert done.returncode == 1 and "ended while it ran" in done.stderr
    ground.clean()


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_delete_force_ends_a_create_that_is_held_up_by_a_hook(
    rt: Runtime, bundle: MakeBundle, ground: Ground, place: Path, kind: str
) -> None:
    ready = place / "ready"
    ready.mkdir()
    rt.user.owns(ready)
    where = with_hook(rt, bundle(["/bin/true"]), kind, f": > {ready}/now; exec sleep 1234")
    null = subprocess.DEVNULL
    create = rt.popen("create", "--bundle", where, "one", stdout=null, stderr=null)
    until((ready / "now").exists, "the hook runs")
    assert rt("delete", "one").returncode == 1
    rt.ok("delete", "--force", "one")
    assert create.wait(PATIENCE) == 1
    ground.clean()


# A created container that does not answer.


def test_the_state_of_a_stopped_created_container_is_told_any_number_of_times(
    rt: Runtime, sleeper: str, ground: Ground
) -> None:
    rt.ok("create", "--bundle", sleeper, "one")
    rt.ok("kill", "one", "STOP")
    for _ in range(25):
        assert json.loads(rt.ok("state", "one"))["status"] == "created"
    rt.ok("kill", "one", "CONT")
    rt.ok("start", "one")
    rt.wait_for("one", "running")
    rt.ok("delete", "--force", "one")
    ground.clean()


# What is believed of state.json.


def rewrite(rt: Runtime, change: Callable[[State], object]) -> None:
    path = rt.root / "one/state.json"
    state = json.loads(path.read_text())
    change(state)
    path.write_text(json.dumps(state))


def as_symlink(rt: Runtime) -> None:
    path = rt.root / "one/state.json"
    path.rename(rt.root / "one/other")
    path.symlink_to("other")


def as_fifo(rt: Runtime) -> None:
    path = rt.root / "one/state.json"
    path.unlink()
    os.mkfifo(path)
    rt.user.owns(path)


def as_directory(rt: Runtime) -> None:
    path = rt.root / "one/state.json"
    path.unlink()
    (path / "deep/er").mkdir(parents=True)
    rt.user.owns(path)


def as_huge(rt: Runtime) -> None:
    os.truncate(rt.root / "one/state.json", 1 << 40)


def as_others(rt: Runtime) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a file away")
    os.chown(rt.root / "one/state.json", 0, 0)


def as_text(text: str) -> Callable[[Runtime], None]:
    return lambda rt: (rt.root / "one/state.json").write_text(text) and None


def as_field(name: str, value: object) -> Callable[[Runtime], None]:
    return lambda rt: rewrite(rt, lambda state: state.update({name: value}))


UNREADABLE = {
    "empty": as_text(""),
    "torn": as_text('{"version": 1, "id": "on'),
    "a list": as_text("[]"),
    "deep": as_text("[" * 100_000),
    "symlink": as_symlink,
    "fifo": as_fifo,
    "directory": as_directory,
    "huge": as_huge,
    "of another user": as_others,
    "writable by others": lambda rt: (rt.root / "one/state.json").chmod(0o666),
}
WRONG = {
    "id": as_field("id", "two"),
    "cgroup list": as_field("cgroup", ["/"]),
    "maker": as_field("maker", {"pid": "x"}),
    "annotations": as_field("annotations", 7),
    "bundle": as_field("bundle", None),
    "ownPid": as_field("ownPid", "yes"),
    "startOps": as_field("startOps", {"first": 1 << 60, "ops": []}),
}
WRONG_PID = {
    "pid text": as_field("pid", "x"),
    "pid true": as_field("pid", True),
    "pid negative": as_field("pid", -1),
    "pid beyond all": as_field("pid", 1 << 70),
    "startTime": as_field("startTime", 5),
}


def refuse_and_remove(rt: Runtime) -> None:
    for words in (["state"], ["start"], ["kill"], ["delete"]):
        done = rt(*words, "one")
        assert done.returncode == 1, done
        assert_plain(done)
        assert "rt delete --force one" in done.stderr, done.stderr
    assert rt.ok("list", "-q") == "one\n"
    assert "one" not in rt.ok("list")
    rt.ok("delete", "--force", "one")
    assert not (rt.root / "one").exists()


@pytest.mark.parametrize("damage", WRONG.values(), ids=WRONG)
def test_a_damaged_state_is_refused_and_delete_force_ends_the_process(
    rt: Runtime, sleeper: str, ground: Ground, damage: Callable[[Runtime], None]
) -> None:
    rt.ok("run", "--detach", "--bundle", sleeper, "one")
    damage(rt)
    refuse_and_remove(rt)
    ground.clean()


@pytest.mark.parametrize("damage", [*UNREADABLE.values(), *WRONG_PID.values()], ids=[*UNREADABLE, *WRONG_PID])
def test_a_state_without_a_known_process_is_refused_and_removed(
    rt: Runtime, sleeper: str, ground: Ground, damage: Callable[[Runtime], None]
) -> None:
    rt.ok("run", "--detach", "--bundle", sleeper, "one")
    pid = rt.state("one")["pid"]
    damage(rt)
    os.kill(pid, signal.SIGKILL)
    refuse_and_remove(rt)
    ground.clean()


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_a_directory_that_is_no_cgroup_is_not_removed_as_one(
    rt: Runtime, sleeper: str, ground: Ground, place: Path, kind: str
) -> None:
    outside = place / "outside"
    (outside / "empty/er").mkdir(parents=True)
    bystander = subprocess.Popen(["sleep", "1234"])
    try:
        (outside / "cgroup.procs").write_text(f"{bystander.pid}\n")
        rt.user.owns(outside)
        rt.ok("run", "--detach", "--bundle", sleeper, "one")
        path = str(outside)
        wrong = {"kind": "v2", "path": path} if kind == "v2" else {"kind": "v1", "paths": {"freezer": path}}
        rewrite(rt, lambda state: state.update(cgroup=wrong, ownPid=False))
        assert_plain(rt("state", "one"))
        done = rt("kill", "one", "KILL")
        assert done.returncode == 1 and "no cgroup of a container" in done.stderr
        rt.ok("delete", "--force", "one")
        assert (outside / "empty/er").is_dir()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    ground.clean()


@pytest.fixture
def bystander(rt: Runtime) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the same user that is no container's."""
    options: dict[str, Any] = {}
    if os.getuid() != rt.user.uid:
        options = {"user": rt.user.uid, "group": rt.user.gid, "extra_groups": []}
    with subprocess.Popen(["sleep", "1234"], **options) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("reused", ["startTime", "bootId", "both"])
def test_a_process_that_has_got_the_same_pid_is_left_alone(
    rt: Runtime, sleeper: str, bystander: subprocess.Popen[bytes], reused: str
) -> None:
    rt.ok("run", "--detach", "--bundle", sleeper, "one")
    os.kill(rt.state("one")["pid"], signal.SIGKILL)
    started = Path(f"/proc/{bystander.pid}/stat").read_text().rpartition(")")[2].split()[19]

    def become(state: State) -> None:
        state["pid"] = bystander.pid
        if reused != "startTime":  # the boot id is then all that tells them apart
            state["startTime"] = started
            state["bootId"] = "0" * 36
        if reused == "both":
            state["startTime"] = "1"

    rewrite(rt, become)
    assert rt.state("one")["status"] == "stopped"
    assert rt.state("one")["pid"] == 0
    done = rt("kill", "one", "KILL")
    assert done.returncode == 1 and "not running" in done.stderr
    assert rt("start", "one").returncode == 1
    rt.ok("delete", "--force", "one")
    assert bystander.poll() is None


def test_the_bundles_config_counts_only_at_create(rt: Runtime, bundle: MakeBundle, ground: Ground) -> None:
    made = bundle("exit 0")
    made.run(["/bin/sleep", "1234"])
    rt.ok("create", "--bundle", str(made.path), "one")
    made.change(
        lambda config: config.update(
            hooks={kind: [{"path": "/bin/false"}] for kind in ("poststart", "poststop", "startContainer")}
        )
    )
    made.run(["/no/such/program"])
    rt.ok("start", "one")
    assert rt.state("one")["status"] == "running"
    (made.path / "config.json").unlink()
    rt.ok("delete", "--force", "one")
    ground.clean()


def test_leftovers_of_an_interrupted_write_go_with_the_container(
    rt: Runtime, sleeper: str, ground: Ground
) -> None:
    rt.ok("create", "--bundle", sleeper, "one")
    for name in (".state.json.4711", ".config.json.1"):
        (rt.root / "one" / name).write_text("{")
    (rt.root / "one/link").symlink_to("/etc/passwd")
    assert rt.state("one")["status"] == "created"
    rt.ok("delete", "one")
    ground.clean()


def test_a_container_whose_directory_was_removed_by_hand_is_unknown(
    rt: Runtime, sleeper: str, ground: Ground
) -> None:
    rt.ok("run", "--detach", "--bundle", sleeper, "one")
    pid = rt.state("one")["pid"]
    subprocess.run(["rm", "-r", str(rt.root / "one")], check=True)
    for words in (["state"], ["kill"], ["delete"]):
        done = rt(*words, "one")
        assert done.returncode == 1 and 'container "one" does not exist' in done.stderr
    assert rt.ok("delete", "--force", "one") == ""
    assert rt.ok("list", "-q") == ""
    os.kill(pid, signal.SIGKILL)
    ground.clean()


@pytest.mark.covers("list", "list --quiet")
def test_a_list_shows_the_sound_and_leaves_out_the_broken(rt: Runtime, sleeper: str, ground: Ground) -> None:
    rt.ok("create", "--bundle", sleeper, "one")
    (rt.root / "file").write_text("")
    (rt.root / "link").symlink_to("one")
    (rt.root / "not an id\n").mkdir()
    (rt.root / "empty").mkdir(mode=0o711)
    (rt.root / "torn").mkdir(mode=0o711)
    (rt.root / "torn/state.json").write_text("{")
    rt.user.owns(rt.root)
    assert [entry["id"] for entry in json.loads(rt.ok("list", "--format", "json"))] == ["one"]
    assert rt.ok("list", "-q") == "empty\none\ntorn\n"
    assert "belongs" not in rt.ok("list")
    for name in ("file", "link"):
        done = rt("delete", "--force", name)
        assert done.returncode == 1 and "remove it by hand" in done.stderr
    for name in ("empty", "torn", "one"):
        rt.ok("delete", "--force", name)
    assert sorted(path.name for path in rt.root.iterdir()) == ["file", "link", "not an id\n"]
    for entry in list(rt.root.iterdir()):
        entry.rmdir() if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    ground.clean()


# Names.


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "a b", "a\nb", "a\tb", "ä", "a:b", "a*", "a" * 256, "\udcff"]
)
def test_what_is_no_plain_name_is_refused_as_an_id(rt: Runtime, sleeper: str, name: str) -> None:
    for words in (["create", "--bundle", sleeper], ["state"], ["kill"], ["start"], ["delete", "--force"]):
        done = rt(*words, "--", name)
        assert done.returncode == 1 and "invalid container id" in done.stderr, done
    assert list(rt.root.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "A-Z_0.9+x", "...", ".hidden", "0", "-dash", "i" * 255])
def test_plain_names_are_taken_as_ids(rt: Runtime, sleeper: str, ground: Ground, name: str) -> None:
    rt.ok("create", "--bundle", sleeper, "--", name)
    rt.ok("start", "--", name)
    assert json.loads(rt.ok("state", "--", name))["id"] == name
    rt.ok("delete", "--force", "--", name)
    ground.clean()


# The state root.


def test_a_root_path_longer_than_a_socket_address_serves(rt: Runtime, sleeper: str, ground: Ground) -> None:
    deep = Runtime(rt.user, rt.root / ("d" * 120) / ("e" * 120))
    deep.ok("create", "--bundle", sleeper, "one")
    deep.ok("start", "one")
    assert deep.state("one")["status"] == "running"
    deep.ok("delete", "--force", "one")
    subprocess.run(["rm", "-r", str(rt.root / ("d" * 120))], check=True)
    ground.clean()


def test_a_missing_root_that_was_named_is_an_error_for_list_alone(rt: Runtime, place: Path) -> None:
    nowhere = Runtime(rt.user, place / "nowhere")
    done = nowhere("list")
    assert done.returncode == 1 and "no such directory" in done.stderr
    assert "does not exist" in nowhere("state", "one").stderr
    assert nowhere.ok("delete", "--force", "one") == ""
    assert not (place / "nowhere").exists()


@pytest.mark.parametrize("root", ["/", "//", "/tmp/..", "/."])
def test_the_root_directory_is_no_state_root(rt: Runtime, root: str) -> None:
    done = Runtime(rt.user, Path("/"))("list") if root == "/" else rt("--root", root, "list")
    assert done.returncode == 1 and "cannot be the state root" in done.stderr


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o720])
def test_a_root_that_others_may_write_to_is_refused(rt: Runtime, sleeper: str, mode: int) -> None:
    rt.root.chmod(mode)
    try:
        for words in (["create", "--bundle", sleeper], ["state"], ["delete", "--force"]):
            done = rt(*words, "one")
            assert done.returncode == 1 and "can be written by other users" in done.stderr
    finally:
        rt.root.chmod(0o700)
    assert list(rt.root.iterdir()) == []


def test_a_root_of_another_user_is_refused(rt: Runtime, sleeper: str, place: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to make another user's directory")
    foreign = place / "foreign"
    foreign.mkdir(mode=0o755)
    done = Runtime(rt.user, foreign)("create", "--bundle", sleeper, "one")
    assert done.returncode == 1 and "belongs to uid 0" in done.stderr


def test_a_link_to_the_root_serves_if_it_is_ones_own(rt: Runtime, sleeper: str, place: Path) -> None:
    link = place / "link"
    link.symlink_to(rt.root)
    if os.geteuid() == 0:
        os.chown(link, 12345, 12345, follow_symlinks=False)
        done = Runtime(rt.user, link)("create", "--bundle", sleeper, "one")
        assert done.returncode == 1 and "is a link of uid 12345" in done.stderr
    rt.user.owns(link)
    linked = Runtime(rt.user, link)
    linked.ok("create", "--bundle", sleeper, "one")
    assert rt.state("one")["status"] == "created"
    linked.ok("delete", "one")


class DefaultRoot(Runtime):
    """The command without --root, with variables changed; None removes one."""

    def __init__(self, user: User, **changes: str | None) -> None:
        super().__init__(user, Path("/nonexistent"))
        self.variables = {**user.environment(), **changes}

    def argv(self, *words: str) -> list[str]:
        return [RT, *words]

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        options["env"] = {name: value for name, value in self.variables.items() if value is not None}
        return super().popen(*words, **options)

    def made_at(self, where: Path, sleeper: str) -> None:
        """A container made now is kept there."""
        made = self("create", "--bundle", sleeper, "one")
        assert made.returncode == 0, made.stderr
        runtime = self.variables.get("XDG_RUNTIME_DIR")
        told = [f"containers are kept in {where}"] if runtime and runtime != str(where.parent) else []
        warnings = [line for line in made.stderr.splitlines() if "warning" in line]
        assert [line.rpartition(": ")[2] for line in warnings] == told
        assert (where / "one/state.json").is_file()
        assert where.stat().st_mode & 0o7777 == 0o1700
        assert self.ok("list", "-q") == "one\n"
        self.ok("delete", "one")
        where.rmdir()


def test_the_root_is_in_the_users_runtime_directory(alice: User, sleeper: str) -> None:
    DefaultRoot(alice).made_at(alice.runtime / "rt", sleeper)


@pytest.mark.parametrize("runtime", [None, "", "relative", "/nonexistent", "/", "/dev/null"])
def test_the_root_is_at_home_where_there_is_no_runtime_directory(
    alice: User, sleeper: str, no_session: None, runtime: str | None
) -> None:
    DefaultRoot(alice, XDG_RUNTIME_DIR=runtime).made_at(alice.home / ".rt/run", sleeper)


@pytest.mark.parametrize("mode", [0o777, 0o720, None])
def test_a_runtime_directory_of_others_or_open_to_them_is_not_used(
    alice: User, sleeper: str, place: Path, no_session: None, mode: int | None
) -> None:
    hostile = place / "runtime"
    hostile.mkdir(mode=0o755)
    if mode is not None:
        alice.owns(hostile)
        hostile.chmod(mode)
    elif os.geteuid() != 0:
        pytest.skip("needs root, to make another user's directory")
    DefaultRoot(alice, XDG_RUNTIME_DIR=str(hostile)).made_at(alice.home / ".rt/run", sleeper)
    assert list(hostile.iterdir()) == []


@pytest.mark.parametrize("home", [None, "", "/", "/nonexistent", "/dev/null"])
def test_the_root_is_in_tmp_where_there_is_no_home(
    alice: User, sleeper: str, fallback: Path, home: str | None
) -> None:
    DefaultRoot(alice, XDG_RUNTIME_DIR=None, HOME=home).made_at(fallback, sleeper)


@pytest.mark.parametrize("trap", ["directory of another", "open directory", "link", "dangling link", "file"])
def test_a_trap_laid_in_tmp_is_refused(
    alice: User, sleeper: str, fallback: Path, place: Path, trap: str
) -> None:
    precious = place / "precious"
    precious.mkdir(mode=0o755)
    alice.owns(precious)
    if trap == "directory of another":
        if os.geteuid() != 0:
            pytest.skip("needs root, to make another user's directory")
        fallback.mkdir(mode=0o777)
        fallback.chmod(0o777)
    elif trap == "open directory":
        fallback.mkdir()
        alice.owns(fallback)
        fallback.chmod(0o777)
    elif trap == "file":
        fallback.write_text("")
    else:
        fallback.symlink_to(precious if trap == "link" else precious / "new")
    program = DefaultRoot(alice, XDG_RUNTIME_DIR=None, HOME=None)
    for words in (["create", "--bundle", sleeper], ["state"], ["delete", "--force"]):
        done = program(*words, "one")
        assert_plain(done)
        assert done.returncode == 1 or (words[0] == "delete" and trap == "dangling link"), done
    assert list(precious.iterdir()) == []
    assert precious.stat().st_mode & 0o7777 == 0o755


def test_an_empty_default_root_lists_nothing(alice: User) -> None:
    program = DefaultRoot(alice)
    assert program.ok("list", "-q") == ""
    assert program.ok("list", "--format", "json") == "null\n"
    assert not (alice.runtime / "rt").exists()


@pytest.mark.parametrize("umask", [0, 0o077, 0o277, 0o777])
def test_the_caller_s_umask_opens_nothing_to_others_and_closes_nothing_to_the_user(
    rt: Runtime, bundle: MakeBundle, place: Path, umask: int
) -> None:
    root = rt.root / "new"
    made = str(bundle(["/bin/sleep", "1000"]).path)
    nested = Runtime(rt.user, root)
    nested.ok("create", "--bundle", made, "c", umask=umask)
    for path in (root, *root.rglob("*")):
        assert not path.lstat().st_mode & 0o022, path
    nested.ok("start", "c", umask=umask)
    nested.ok("exec", "c", "true", umask=umask)
    nested.ok("delete", "--force", "c", umask=umask)
    assert list(root.iterdir()) == []
