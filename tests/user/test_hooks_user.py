"""Hooks of all six kinds: when, where and with what they run, and what a failing one does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.runtime import Runtime
from lab.waiting import until
from lab.wrapped import after

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
OF_CREATE, OF_START = KINDS[:3], KINDS[3:5]
# Where a hook finds the rootfs's directory `log`.
INSIDE = {"startContainer": ""}


def save_environment(kind: str) -> str:
    """A script that puts the environment its shell was started with into a file, a line a variable."""
    # A createContainer hook has its pid in the container's namespace, and the host's /proc.
    # `true` keeps the shell from becoming tr itself, with whose start its environment would be gone.
    whose = "$$" if kind == "startContainer" else "self"
    return f"/bin/busybox tr '\\0' '\\n' < /proc/{whose}/environ > $LOG/{kind}; true"


def hook(box: Bundle, kind: str, script: str, **fields: Any) -> None:
    """Add a hook that runs `script` in a shell, with $LOG the directory `log` of the rootfs."""
    log = box.rootfs / "log"
    if not log.exists():
        log.mkdir()
        status = box.path.stat()
        os.chown(log, status.st_uid, status.st_gid)
    where = INSIDE.get(kind, str(box.rootfs))
    entry = {"path": "/bin/sh", "args": ["sh", "-c", f"LOG={where}/log; {script}"], **fields}
    box.change(lambda config: config.setdefault("hooks", {}).setdefault(kind, []).append(entry))


def hooks_of_all_kinds(box: Bundle, script: str) -> Bundle:
    for kind in KINDS:
        hook(box, kind, script.replace("KIND", kind))
    return box


def log(box: Bundle, name: str) -> str:
    return (box.rootfs / "log" / name).read_text()


def live(rt: Runtime, box: Bundle) -> dict[str, Any]:
    """Take a container through its life; the state it had when it was created."""
    rt.ok("create", "-b", str(box.path), "c")
    state = rt.state("c")
    rt.ok("start", "c")
    rt.ok("kill", "c", "KILL")
    rt.wait_for("c", "stopped")
    rt.ok("delete", "c")
    return state


SLEEP = ["/bin/sleep", "100"]


@pytest.mark.covers("hooks")
def test_hooks_of_all_kinds_run_in_order_at_their_commands(rt: Runtime, bundle: MakeBundle) -> None:
    box = hooks_of_all_kinds(bundle(SLEEP), "echo KIND >> $LOG/order")
    rt.ok("create", "-b", str(box.path), "c")
    assert log(box, "order").split() == list(KINDS[:3])
    rt.ok("start", "c")
    assert log(box, "order").split() == list(KINDS[:5])
    rt.ok("delete", "--force", "c")
    assert log(box, "order").split() == list(KINDS)


def test_a_foreground_run_runs_them_all(rt: Runtime, bundle: MakeBundle) -> None:
    box = hooks_of_all_kinds(bundle("sleep 0.2"), "echo KIND >> $LOG/order")
    rt.ok("run", "-b", str(box.path), "c")
    assert log(box, "order").split() == list(KINDS)


@pytest.mark.covers("hooks.prestart[].args")
def test_several_hooks_of_a_kind_run_in_the_order_of_the_config(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("true")
    for kind in KINDS:
        for number in "12":
            hook(box, kind, f"echo {kind}{number} >> $LOG/order")
    rt.ok("run", "-b", str(box.path), "c")
    assert log(box, "order").split() == [kind + number for kind in KINDS for number in "12"]


@pytest.mark.covers("annotations", "hooks")
def test_each_hook_reads_the_state_of_its_moment(rt: Runtime, bundle: MakeBundle) -> None:
    box = hooks_of_all_kinds(bundle(SLEEP), "cat > $LOG/KIND")
    box.change(lambda config: config.update(annotations={"org.example.key": 'va"lue'}))
    pid = live(rt, box)["pid"]
    for kind, status in zip(KINDS, ["creating"] * 3 + ["created", "running", "stopped"], strict=True):
        state = json.loads(log(box, kind))
        assert (state["id"], state["status"], state["bundle"]) == ("c", status, str(box.path)), kind
        inside = kind in ("createContainer", "startContainer")
        assert state.get("pid", 0) == (1 if inside else pid if status != "stopped" else 0), kind
        assert state["ociVersion"] == box.config["ociVersion"]
        assert state["annotations"] == {"org.example.key": 'va"lue'}


def test_hooks_run_in_the_namespaces_that_the_specification_names(rt: Runtime, bundle: MakeBundle) -> None:
    script = "(readlink /proc/self/ns/mnt; readlink /proc/self/ns/uts) >"
    box = hooks_of_all_kinds(bundle(f"{script} /log/process"), f"{script} $LOG/KIND")
    rt.ok("run", "-b", str(box.path), "c")
    host = f"{os.readlink('/proc/self/ns/mnt')}\n{os.readlink('/proc/self/ns/uts')}\n"
    container = log(box, "process")
    assert host != container
    for kind in KINDS:
        expected = container if kind in ("createContainer", "startContainer") else host
        assert log(box, kind) == expected, kind


def test_a_create_container_hook_sees_the_mounts_before_the_root_is_changed(
    rt: Runtime, bundle: MakeBundle
) -> None:
    box = bundle("cat /mnt/hello")
    (box.rootfs / "mnt").mkdir()
    script = f"mount -t tmpfs none {box.rootfs}/mnt && echo mounted > {box.rootfs}/mnt/hello"
    hook(box, "createContainer", script, env=["PATH=/bin:/usr/bin"])
    assert rt.ok("run", "-b", str(box.path), "c") == "mounted\n"
    assert list((box.rootfs / "mnt").iterdir()) == []


@pytest.mark.covers("hooks.prestart[].env")
def test_a_hook_has_the_environment_it_is_given_and_no_more(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("true")
    for kind in KINDS:
        hook(box, kind, save_environment(kind), env=["PATH=/bin:/usr/bin", "A=b=c"])
    outside = {**rt.user.environment(), "LEAK": "1"}
    rt.ok("run", "-b", str(box.path), "c", env=outside)
    for kind in KINDS:
        assert sorted(log(box, kind).split()) == ["A=b=c", "PATH=/bin:/usr/bin"], kind


def test_a_hook_without_an_environment_has_none(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("true")
    for kind in KINDS:
        hook(box, kind, save_environment(kind))
    box.change(lambda config: config["process"]["env"].append("OF=process"))
    rt.ok("run", "-b", str(box.path), "c")
    for kind in KINDS:
        # As in runc, startContainer then has the process's.
        assert ("OF=process" in log(box, kind)) == (kind == "startContainer"), kind
        assert kind == "startContainer" or log(box, kind) == ""


def test_a_hook_has_no_files_but_its_three(rt: Runtime, bundle: MakeBundle) -> None:
    script = (
        "for fd in 0 1 2 3 4 5 6 7 8 9; do test -e /proc/self/fd/$fd && echo $fd >> $LOG/KIND; done; true"
    )
    box = hooks_of_all_kinds(bundle("true"), script)
    after(rt, "exec 3</etc/hostname 7</").ok("run", "-b", str(box.path), "c")
    for kind in KINDS:
        assert log(box, kind).split() == ["0", "1", "2"], kind


def test_a_hook_s_output_is_not_the_container_s(rt: Runtime, bundle: MakeBundle) -> None:
    box = hooks_of_all_kinds(bundle("echo process"), "echo hook; echo hook >&2")
    assert rt.ok("run", "-b", str(box.path), "c") == "process\n"


def nothing_left(rt: Runtime, box: Bundle) -> None:
    assert list(rt.root.iterdir()) == []

    def inside() -> list[Path]:
        return [path.parent for path in Path("/proc").glob("[0-9]*/root") if _rooted(path, box)]

    until(lambda: not inside(), lambda: f"no process is in it; there are {inside()}")


def _rooted(path: Path, box: Bundle) -> bool:
    try:
        return os.readlink(path).startswith(str(box.rootfs))
    except OSError:
        return False


@pytest.mark.parametrize("kind", KINDS[:5])
def test_a_failing_hook_ends_a_run_with_its_name_and_words(
    rt: Runtime, bundle: MakeBundle, kind: str
) -> None:
    box = bundle(SLEEP)
    hook(box, kind, "true")
    hook(box, kind, "echo it is broken >&2; exit 3")
    done = rt("run", "-b", str(box.path), "c")
    assert done.returncode == 1
    assert done.stderr == f"rt: hooks.{kind}[1]: /bin/sh: exit status 3: it is broken\n"
    nothing_left(rt, box)


@pytest.mark.parametrize("kind", OF_CREATE)
def test_a_failing_hook_ends_create_with_nothing_left(rt: Runtime, bundle: MakeBundle, kind: str) -> None:
    box = bundle(SLEEP)
    hook(box, kind, "exit 1")
    done = rt("create", "-b", str(box.path), "c")
    assert (done.returncode, done.stderr) == (1, f"rt: hooks.{kind}[0]: /bin/sh: exit status 1\n")
    nothing_left(rt, box)


@pytest.mark.parametrize("kind", OF_START)
def test_a_failing_hook_ends_start_and_stops_the_container(
    rt: Runtime, bundle: MakeBundle, kind: str
) -> None:
    box = bundle(SLEEP)
    hook(box, kind, "exit 1")
    rt.ok("create", "-b", str(box.path), "c")
    done = rt("start", "c")
    assert (done.returncode, done.stderr) == (1, f"rt: hooks.{kind}[0]: /bin/sh: exit status 1\n")
    assert rt.state("c")["status"] == "stopped"
    rt.ok("delete", "c")
    nothing_left(rt, box)


def test_failing_poststop_hooks_are_told_and_the_others_still_run(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("true")
    hook(box, "poststop", "exit 4")
    hook(box, "poststop", "echo done > $LOG/second")
    done = rt("run", "-b", str(box.path), "c")
    assert (done.returncode, log(box, "second")) == (0, "done\n")
    assert done.stderr.startswith("rt: warning: hooks.poststop") and "exit status 4" in done.stderr
    nothing_left(rt, box)


@pytest.mark.covers("--log-level", "delete", "hooks.poststop")
def test_a_failing_poststop_hook_is_told_by_delete_as_loud_as_asked(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("true")
    hook(box, "poststop", "exit 4")
    warning = "rt: warning: hooks.poststop[0]: /bin/sh: exit status 4\n"
    for level, told in (("warning", warning), ("error", "")):
        rt.ok("create", "-b", str(box.path), "c")
        done = rt("--log-level", level, "delete", "c")
        assert (done.returncode, done.stderr) == (0, told)


@pytest.mark.parametrize("kind", KINDS[:5])
@pytest.mark.covers("hooks.prestart[].timeout")
def test_a_hook_that_takes_too_long_is_killed(rt: Runtime, bundle: MakeBundle, kind: str) -> None:
    box = bundle(SLEEP)
    hook(box, kind, "echo $$ > $LOG/pid; /bin/busybox sleep 4322; exit 0", timeout=1)
    done = rt("run", "-b", str(box.path), "c")
    assert done.returncode == 1
    assert done.stderr.startswith(f"rt: hooks.{kind}[0]: /bin/sh: no end within its timeout of 1")

    def running() -> list[Path]:
        return [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"\x004322\0" in _bytes(path)]

    until(lambda: not running(), lambda: f"what the hook started ends; there are {running()}")
    nothing_left(rt, box)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("kind", KINDS[:5])
def test_a_hook_that_is_no_program_is_named(rt: Runtime, bundle: MakeBundle, kind: str) -> None:
    box = bundle(SLEEP)
    box.change(lambda config: config.update(hooks={kind: [{"path": "/no/such/hook"}]}))
    done = rt("run", "-b", str(box.path), "c")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == f"rt: hooks.{kind}[0]: /no/such/hook: no such file or directory"
    nothing_left(rt, box)


def test_a_change_of_the_bundle_after_create_does_not_change_the_hooks(
    rt: Runtime, bundle: MakeBundle
) -> None:
    box = hooks_of_all_kinds(bundle(SLEEP), "echo KIND >> $LOG/order")
    rt.ok("create", "-b", str(box.path), "c")
    box.change(lambda config: config.pop("hooks"))
    rt.ok("start", "c")
    rt.ok("delete", "--force", "c")
    assert log(box, "order").split() == list(KINDS)
