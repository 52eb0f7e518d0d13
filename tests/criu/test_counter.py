"""A process that counts is saved and goes on counting where it was, with nothing lost and nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.criu import Saver
from lab.leftovers import Ground
from lab.waiting import PATIENCE, until

COUNT = "n=0; while :; do n=$((n + 1)); echo $n >> /count; sleep 0.02; done"
# Of this run alone: the containers of root have cgroups by their ids.
BOX = f"saved{os.getpid()}"


def counted(box: Bundle) -> list[int]:
    path = box.rootfs / "count"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def wait_beyond(box: Bundle, number: int) -> None:
    until(lambda: counted(box)[-1:] > [number], lambda: f"it counts beyond {number}: {counted(box)[-3:]}")


def running(rt: Saver, box: Bundle, container: str = BOX) -> int:
    pid = rt.start(container, box.path)
    wait_beyond(box, 3)
    return pid


@pytest.mark.covers(
    "checkpoint", "checkpoint --image-path", "restore", "restore --image-path", "restore --bundle",
    "restore --detach",
)  # fmt: skip
def test_a_counter_goes_on_where_it_was(root_rt: Saver, root_bundle: MakeBundle, images: Path) -> None:
    box = root_bundle(COUNT)
    before = running(root_rt, box)
    root_rt.save(BOX, images)
    assert root_rt("state", BOX).returncode == 1, "the container is gone"
    assert not os.path.exists(f"/proc/{before}/root/count")
    last = counted(box)[-1]
    time.sleep(0.1)
    assert counted(box)[-1] == last, "nothing counts meanwhile"
    root_rt.bring_back(BOX, images, box.path)
    assert root_rt.state(BOX)["status"] == "running"
    wait_beyond(box, last + 3)
    found = counted(box)
    assert found == list(range(1, len(found) + 1)), "no number is missing or twice"


@pytest.mark.covers("checkpoint --leave-running")
def test_it_goes_on_when_it_is_left_running(root_rt: Saver, root_bundle: MakeBundle, images: Path) -> None:
    box = root_bundle(COUNT)
    pid = running(root_rt, box)
    root_rt.save(BOX, images, "--leave-running")
    assert root_rt.state(BOX) | {"pid": pid, "status": "running"} == root_rt.state(BOX)
    wait_beyond(box, counted(box)[-1] + 3)
    found = counted(box)
    assert found == list(range(1, len(found) + 1))


@pytest.mark.covers("restore --pid-file")
def test_it_comes_back_under_another_id_from_another_bundle(
    root_rt: Saver, root_bundle: MakeBundle, images: Path, place: Path
) -> None:
    box, other = root_bundle(COUNT), root_bundle(COUNT)
    running(root_rt, box)
    root_rt.save(BOX, images)
    last = counted(box)[-1]
    (box.rootfs / "count").rename(other.rootfs / "count")  # its files go where it goes
    moved = images.rename(place / "moved")
    pid_file = place / "pid"
    pid = root_rt.bring_back(f"{BOX}-b", moved, other.path, "--pid-file", str(pid_file))
    assert pid_file.read_text() == str(pid)
    wait_beyond(other, last + 3)
    assert not (box.rootfs / "count").exists()
    state = root_rt.state(f"{BOX}-b")
    assert (state["id"], state["bundle"], state["rootfs"]) == (f"{BOX}-b", str(other.path), str(other.rootfs))


def test_twenty_times_in_a_row_leave_nothing_behind(
    root_rt: Saver, root_bundle: MakeBundle, place: Path
) -> None:
    box = root_bundle(COUNT)
    ground = Ground(root_rt, BOX)
    running(root_rt, box)
    for turn in range(20 if os.environ.get("RT_LONG") == "1" else 3):
        images = place / f"images{turn}"
        root_rt.save(BOX, images)
        ground.clean()
        root_rt.bring_back(BOX, images, box.path)
        wait_beyond(box, counted(box)[-1])
    found = counted(box)
    assert found == list(range(1, len(found) + 1))
    root_rt.ok("delete", "--force", BOX)
    ground.clean()


def test_a_restored_container_takes_every_command(
    root_rt: Saver, root_bundle: MakeBundle, images: Path
) -> None:
    box = root_bundle(COUNT)
    running(root_rt, box)
    root_rt.save(BOX, images)
    root_rt.bring_back(BOX, images, box.path)
    assert [row["id"] for row in json.loads(root_rt.ok("list", "-f", "json"))] == [BOX]
    time_inside = ["exec", BOX, "sh", "-c", "readlink /proc/1/ns/time; readlink /proc/$$/ns/time"]
    assert len(set(root_rt.ok(*time_inside).split())) == 1, "further processes have its clocks"
    assert root_rt.ok("exec", BOX, "sh", "-c", "echo $$ in; cat /proc/1/comm").endswith(" in\nsh\n")
    assert len(json.loads(root_rt.ok("ps", "-f", "json", BOX))) >= 1
    root_rt.ok("pause", BOX)
    assert root_rt.state(BOX)["status"] == "paused"
    root_rt.ok("resume", BOX)
    root_rt.ok("update", "--pids-limit", "50", BOX)
    assert json.loads(root_rt.ok("events", "--stats", BOX))["data"]["pids"]["limit"] == 50
    root_rt.ok("kill", BOX, "KILL")
    assert root_rt.wait_for(BOX, "stopped")["pid"] == 0
    root_rt.ok("delete", BOX)


def test_a_paused_container_is_saved_and_comes_back_running(
    root_rt: Saver, root_bundle: MakeBundle, images: Path
) -> None:
    box = root_bundle(COUNT)
    running(root_rt, box)
    root_rt.ok("pause", BOX)
    last = counted(box)[-1]
    root_rt.save(BOX, images)
    root_rt.bring_back(BOX, images, box.path)
    wait_beyond(box, last + 3)


@pytest.mark.covers("restore --no-subreaper", "restore --config")
def test_in_the_foreground_it_has_the_caller_s_pipes_and_signals_and_gives_its_exit_code(
    root_rt: Saver, root_bundle: MakeBundle, images: Path
) -> None:
    script = (
        "trap 'echo caught; exit 7' TERM; echo up; read word; echo got $word; while :; do sleep 0.05; done"
    )
    box = root_bundle(script)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with root_rt.popen("run", "-b", str(box.path), BOX, **pipes) as first:
        assert first.stdout.readline() == b"up\n"
        root_rt.save(BOX, images)
        assert first.wait(PATIENCE) == 128 + 9
    words = ["restore", "--image-path", str(images), "-b", str(box.path), "-f", str(box.path / "config.json")]
    with root_rt.popen(*words, "--no-subreaper", BOX, **pipes) as second:
        second.stdin.write(b"word\n")
        second.stdin.flush()
        assert second.stdout.readline() == b"got word\n"
        second.send_signal(signal.SIGTERM)
        assert second.wait(PATIENCE) == 7
        assert (second.stdout.read(), second.stderr.read()) == (b"caught\n", b"")
    assert root_rt.ok("list", "-q") == ""


@pytest.mark.covers("checkpoint --work-path", "restore --work-path")
def test_logs_go_to_the_work_path(root_rt: Saver, root_bundle: MakeBundle, images: Path, place: Path) -> None:
    box = root_bundle(COUNT)
    running(root_rt, box)
    root_rt.save(BOX, images, "--work-path", str(place / "work"))
    assert (place / "work/dump.log").exists() and not (images / "dump.log").exists()
    root_rt.bring_back(BOX, images, box.path, "--work-path", str(place / "work"))
    assert (place / "work/restore.log").exists() and not (images / "restore.log").exists()


def test_hooks_run_as_a_restore_has_its_namespaces_and_as_the_saved_one_goes(
    root_rt: Saver, root_bundle: MakeBundle, images: Path, place: Path
) -> None:
    box = root_bundle(COUNT)
    hook = {"path": "/bin/sh", "env": ["PATH=/bin:/usr/bin"]}
    box.config["hooks"] = {
        kind: [{**hook, "args": ["sh", "-c", f"echo {kind} >> {place}/hooks; cat >> {place}/states"]}]
        for kind in (
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        )
    }
    del box.config["hooks"]["startContainer"], box.config["hooks"]["createContainer"]
    box.write()
    running(root_rt, box)
    root_rt.save(BOX, images)
    assert (place / "hooks").read_text().split() == ["prestart", "createRuntime", "poststart", "poststop"]
    (place / "states").write_text("")
    (place / "hooks").write_text("")
    pid = root_rt.bring_back(BOX, images, box.path)
    assert (place / "hooks").read_text().split() == ["prestart", "createRuntime"]
    state = json.JSONDecoder().raw_decode((place / "states").read_text())[0]
    assert (state["id"], state["pid"], state["status"]) == (BOX, pid, "creating")
