"""What users see when something is wrong: one line, at most one hint, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Config
from lab.refusals import problem, refused
from lab.runtime import Runtime
from lab.wrapped import Wrapped, after, with_mounts

# The bundle


def test_a_directory_that_is_no_bundle_is_told_what_to_do(rt: Runtime, place: Path) -> None:
    line, hint = refused(rt, place)
    assert line == f'"{place}" is not a bundle: it has no config.json'
    assert "rt spec" in hint


def test_a_bundle_that_does_not_exist_is_named(rt: Runtime, place: Path) -> None:
    assert refused(rt, place / "none")[0] == f'bundle "{place}/none": no such file or directory'


def test_a_bundle_without_a_rootfs_is_told_its_path(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle()
    shutil.rmtree(box.rootfs)
    line, hint = refused(rt, box)
    assert line == f'config.json: root.path: "{box.rootfs}" does not exist'
    assert hint


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_rootfs_that_is_no_directory_is_told(rt: Runtime, bundle: MakeBundle, kind: str) -> None:
    box = bundle()
    box.rootfs.rename(box.path / "other")
    if kind == "file":
        box.rootfs.write_text("")
    else:
        box.rootfs.symlink_to("other")
    said = "is not a directory" if kind == "file" else "is a symbolic link"
    assert refused(rt, box)[0] == f'config.json: root.path: "{box.rootfs}" {said}'


def test_a_rootfs_that_the_user_cannot_reach_is_told(rt: Runtime, bundle: MakeBundle) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to make a directory closed to the user")
    box = bundle()
    closed = box.path / "closed"
    closed.mkdir(mode=0o700)
    shutil.move(box.rootfs, closed / "rootfs")
    box.change(lambda config: config["root"].update(path="closed/rootfs"))
    assert "permission denied" in refused(rt, box)[0]


def test_broken_json_is_told_with_line_and_column(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle()
    (box.path / "config.json").write_text('{\n  "ociVersion": "1.0.0",\n  "process": {,}\n}\n')
    line, _ = refused(rt, box)
    assert line.startswith("config.json: line 3") and "column 15" in line, line


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b'{"a":1}trailing', b"[" * 100_000])
def test_a_file_that_is_no_config_is_told(rt: Runtime, bundle: MakeBundle, content: bytes) -> None:
    box = bundle()
    (box.path / "config.json").write_bytes(content)
    assert refused(rt, box)[0].startswith("config.json")


WRONG: list[tuple[str, Callable[[Config], Any]]] = [
    ("process.args", lambda config: config["process"].update(args="sh")),
    ("process.args[0]", lambda config: config["process"].update(args=[1])),
    ("process.cwd", lambda config: config["process"].update(cwd="relative")),
    ("process.user.uid", lambda config: config["process"].update(user={"uid": "0", "gid": 0})),
    ("process.user.uid", lambda config: config["process"].update(user={"uid": -1, "gid": 0})),
    ("process.terminal", lambda config: config["process"].update(terminal=1)),
    ("process.rlimits[0].type", lambda config: config["process"]["rlimits"][0].update(type="RLIMIT_FUN")),
    ("process.rlimits[0].soft", lambda config: config["process"]["rlimits"][0].update(soft=2, hard=1)),
    ("mounts[0].destination", lambda config: config["mounts"][0].pop("destination")),
    ("mounts[1].options[0]", lambda config: config["mounts"][1].update(options=[{}])),
    ("linux.namespaces[0].type", lambda config: config["linux"]["namespaces"][0].update(type="mnt")),
    ("linux.uidMappings[0].size", lambda config: config["linux"]["uidMappings"][0].update(size=1.5)),
    ("root", lambda config: config.pop("root")),
    ("ociVersion", lambda config: config.update(ociVersion="2.0.0")),
    ("hooks.prestart[0].path", lambda config: config.update(hooks={"prestart": [{"path": "x"}]})),
]


@pytest.mark.parametrize(("path", "change"), WRONG, ids=[f"{n}-{path}" for n, (path, _) in enumerate(WRONG)])
def test_a_wrong_value_is_told_with_its_path(
    rt: Runtime, bundle: MakeBundle, path: str, change: Callable[[Config], Any]
) -> None:
    line, _ = refused(rt, bundle().change(lambda config: (change(config), None)[1]))
    assert line.startswith(f"config.json: {path}: "), line


# The program

NOT_FOUND = "executable file not found in $PATH"


@pytest.mark.parametrize("verb", ["run", "create"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing-such", NOT_FOUND),
        ("/no/such", "stat /no/such: no such file or directory"),
        ("/etc/passwd", "permission denied (its mode is 0644)"),
        ("/bin", "is a directory: permission denied"),
        ("/etc/passwd/x", "not a directory"),
        ("/loop", "too many levels of symbolic links"),
    ],
)
def test_a_program_that_cannot_be_found_is_an_error_of_create(
    rt: Runtime, bundle: MakeBundle, verb: str, name: str, said: str
) -> None:
    box = bundle([name])
    (box.rootfs / "loop").symlink_to("loop")
    line, hint = refused(rt, box, verb)
    assert line == f'exec: "{name}": {said}'
    assert hint or (said != NOT_FOUND and "mode" not in said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no format\n", "exec format error"),
        (
            b"#!/no/interpreter\n",
            "stat /script: no such file or directory (its interpreter /no/interpreter is not in the rootfs)",
        ),
    ],
)
def test_a_program_the_kernel_cannot_start_is_told(
    rt: Runtime, bundle: MakeBundle, content: bytes, said: str
) -> None:
    box = bundle(["/script"])
    (box.rootfs / "script").write_bytes(content)
    (box.rootfs / "script").chmod(0o755)
    line, hint = refused(rt, box)
    assert line == f'exec: "/script": {said}' and hint


def test_a_program_on_a_noexec_mount_is_told(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle(["/mnt/true"])
    (box.path / "programs").mkdir()
    shutil.copy("/bin/busybox", box.path / "programs/true")
    mount = {"destination": "/mnt", "type": "bind", "source": "programs", "options": ["bind", "noexec"]}
    line, hint = refused(rt, box.change(lambda config: config["mounts"].append(mount)))
    assert line == 'exec: "/mnt/true": permission denied (its file system is mounted noexec)'
    assert "noexec" in hint


# Ids and states


@pytest.mark.parametrize("name", ["../c", "a/b", ".", "..", "a b", "é", "x" * 1025, "a\nb"])
def test_a_name_that_is_no_id_is_refused(rt: Runtime, bundle: MakeBundle, name: str) -> None:
    line, hint = problem(rt("create", "--bundle", str(bundle().path), "--", name))
    assert line.startswith("invalid container id ") and hint
    assert list(rt.root.iterdir()) == []


def test_an_id_that_is_taken_is_refused_and_its_container_untouched(rt: Runtime, bundle: MakeBundle) -> None:
    box = str(bundle().path)
    rt.ok("create", "--bundle", box, "c")
    before = rt.state("c")
    for verb in ("create", "run"):
        line, hint = problem(rt(verb, "--bundle", box, "c"))
        assert "container with given ID already exists" in line and "rt delete c" in hint
    assert rt.state("c") == before


@pytest.mark.parametrize("verb", ["start", "state", "kill", "delete"])
def test_an_id_that_nobody_has_is_told(rt: Runtime, verb: str) -> None:
    assert problem(rt(verb, "nobody"))[0] == 'container "nobody" does not exist'


def test_a_running_container_cannot_be_started_again(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("run", "-d", "--bundle", str(bundle(["/bin/sleep", "100"]).path), "c")
    assert problem(rt("start", "c"))[0] == "cannot start an already running container (running)"
    assert rt.state("c")["status"] == "running"


def test_a_stopped_container_can_only_be_deleted(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("run", "--keep", "--bundle", str(bundle().path), "c")
    assert problem(rt("start", "c"))[0] == "cannot start a container that has stopped"
    assert problem(rt("kill", "c"))[0] == "container not running"
    rt.ok("delete", "c")


@pytest.mark.parametrize(
    "words", [("frobnicate",), ("--frob", "list"), ("run",), ("list", "extra"), ("run", "--frob", "c")]
)
def test_a_wrong_command_line_fails_and_says_so(rt: Runtime, words: tuple[str, ...]) -> None:
    done = rt(*words)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert done.stderr.startswith(("rt: ", "Incorrect Usage.", "Usage:")) or "Usage" in done.stdout


# The state root


def test_a_read_only_state_root_is_told(rt: Runtime, bundle: MakeBundle) -> None:
    root = rt.root
    read_only = with_mounts(rt, f"mount --bind {root} {root}; mount -o remount,bind,ro {root}")
    line, hint = refused(read_only, bundle())
    assert f"{root}/c" in line and line.endswith("read-only file system") and "--root" in hint


def test_a_state_root_that_the_user_may_not_write_is_told(rt: Runtime, bundle: MakeBundle) -> None:
    rt.root.chmod(0o500)
    line, hint = refused(rt, bundle())
    rt.root.chmod(0o700)
    assert line.endswith("permission denied") and "--root" in hint


def test_a_state_root_of_somebody_else_is_refused(rt: Runtime, bundle: MakeBundle) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to make a directory of somebody else's")
    os.chown(rt.root, 0, 0)
    rt.root.chmod(0o777)
    line, hint = refused(rt, bundle())
    rt.root.chmod(0o700)
    rt.user.owns(rt.root)
    assert line == f"state root {rt.root} belongs to uid 0" and hint


def test_a_state_root_that_others_can_write_is_refused(rt: Runtime, bundle: MakeBundle) -> None:
    rt.root.chmod(0o777)
    line, _ = refused(rt, bundle())
    rt.root.chmod(0o700)
    assert line == f"state root {rt.root} can be written by other users"


@pytest.mark.parametrize("pages", [0, 1, 2])
def test_a_full_disk_is_told_and_nothing_is_left_on_it(
    rt: Runtime, bundle: MakeBundle, place: Path, pages: int
) -> None:
    root, user = rt.root, rt.user
    # One page more is taken by what the script itself puts there.
    options = f"size={(pages + 1) * 4096},mode=700,uid={user.uid},gid={user.gid}"
    script = f"""
        mount -t tmpfs -o {options} none {root}
        head -c 4096 /dev/zero > {root}/filler
        code=0; "$@" || code=$?
        ls -A {root} > {place}/left
        exit $code
    """
    unshare = ["unshare", "--mount", "--propagation", "private"]
    full = Wrapped(rt, *unshare, "sh", "-ec", script, "sh", as_root=True)
    big = {"org.example.big": "x" * 4096 * (pages + 1)}
    box = bundle().change(lambda config: config.update(annotations=big))
    line, hint = refused(full, box, "create")
    assert "no space left on device" in line and "make room" in hint
    assert (place / "left").read_text() == "filler\n"


@pytest.mark.covers("create --pid-file")
def test_a_pid_file_that_cannot_be_written_takes_the_container_back(
    rt: Runtime, bundle: MakeBundle, place: Path
) -> None:
    box = bundle(["/bin/sleep", "100"])
    line, _ = refused(rt, box, "create", "--pid-file", str(place / "no/pid"))
    assert line == f"--pid-file {place}/no/pid: no such file or directory"


# The log


@pytest.mark.covers("--log", "--log-format")
def test_the_json_log_gets_exactly_one_object(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    box = bundle(["nothing-such"])
    box.change(lambda config: config["process"].update(oomScoreAdj=-1000))
    log = box.path / "log.json"
    done = rt("--log", str(log), "--log-format", "json", "run", "--bundle", str(box.path), "c")
    record = json.loads(log.read_text())
    assert record["level"] == "error"
    assert record["msg"] == f'exec: "nothing-such": {NOT_FOUND}'
    assert record["time"].endswith("Z") and record["hint"]
    assert f"rt: {record['msg']}\n" in done.stderr


def test_a_successful_command_leaves_no_json_log(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle()
    log = box.path / "log.json"
    rt.ok("--log", str(log), "--log-format", "json", "run", "--bundle", str(box.path), "c")
    assert not log.exists() or log.read_text() == ""


def test_control_characters_of_a_config_do_not_reach_the_terminal(rt: Runtime, bundle: MakeBundle) -> None:
    line, _ = refused(rt, bundle(["\x1b[2Jevil\nrt: second line"]))
    assert "\x1b" not in line and "evil" in line


@pytest.mark.covers("--root")
def test_nothing_of_the_surroundings_is_needed(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("echo fine")
    assert rt.ok("run", "--bundle", str(box.path), "c", env={}) == "fine\n"
    gone = after(rt, "d=$(mktemp -d); cd $d; rmdir $d")
    assert gone.ok("run", "--bundle", str(box.path), "c") == "fine\n"
