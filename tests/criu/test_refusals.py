"""What cannot be saved or restored is refused in one line with the reason, and nothing is left half done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.criu import TICK, Saver, goes_on, unmount
from lab.leftovers import Ground
from lab.waiting import PATIENCE, until

BOX = f"refused{os.getpid()}"
WAIT = "while :; do sleep 0.05; done"


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done
    lines = done.stderr.splitlines()
    assert lines[0].startswith("rt: ") and len(lines) <= 2, done.stderr
    assert len(lines) == 1 or lines[1].startswith("hint: ")
    return lines[0]


@pytest.fixture
def saved(root_rt: Saver, root_bundle: MakeBundle, images: Path) -> Bundle:
    """The bundle of a container that was saved to `images`."""
    box = root_bundle(WAIT)
    root_rt.start(BOX, box.path)
    root_rt.save(BOX, images)
    return box


def restore(rt: Saver, images: Path, box: Bundle, *options: str) -> str:
    """The error of a restore, after which nothing is left."""
    ground = Ground(rt, BOX)
    words = ["restore", "--detach", "--image-path", str(images), "--bundle", str(box.path), *options]
    line = one_line(rt(*words, BOX))
    assert rt.ok("list", "-q") == ""
    ground.clean()
    return line


def opened_to_others(images: Path) -> None:
    images.chmod(0o777)


def of_another_user(images: Path) -> None:
    os.chown(images, 12345, 12345)


def with_a_file_of_another_user(images: Path) -> None:
    os.chown(images / "pstree.img", 12345, 12345)


def with_a_file_that_others_write(images: Path) -> None:
    (images / "core-1.img").chmod(0o622)


def built_on_one_that_others_write(images: Path) -> None:
    below = images.parent / "first"
    below.mkdir()
    below.chmod(0o777)
    (images / "parent").symlink_to("../first")


def built_on_itself(images: Path) -> None:
    (images / "parent").symlink_to(".")


def empty(images: Path) -> None:
    shutil.rmtree(images)
    images.mkdir(mode=0o700)


def half(images: Path) -> None:
    (images / "rt.json").unlink()
    (images / "descriptors.json").unlink()


def gone(images: Path) -> None:
    shutil.rmtree(images)


def torn(images: Path) -> None:
    (images / "rt.json").write_text("{")


def odd(images: Path) -> None:
    (images / "rt.json").write_text('{"version": 1, "points": [7]}')


def of_the_future(images: Path) -> None:
    record = json.loads((images / "rt.json").read_text())
    (images / "rt.json").write_text(json.dumps({**record, "version": 99}))


def without_memory(images: Path) -> None:
    for path in images.glob("pagemap-*.img"):
        path.unlink()


def cut_short(images: Path) -> None:
    os.truncate(images / "pages-1.img", 4096)


def of_another_make(images: Path) -> None:
    # With no record of rt, as runc leaves it: CRIU itself finds what is wrong, before its work proper.
    (images / "rt.json").unlink()
    os.truncate(images / "inventory.img", 0)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (opened_to_others, "can be written by other users"),
        (of_another_user, "belongs to uid 12345"),
        (with_a_file_of_another_user, "images/pstree.img belongs to uid 12345"),
        (with_a_file_that_others_write, "images/core-1.img can be written by other users"),
        (built_on_one_that_others_write, "images/parent: can be written by other users"),
        (built_on_itself, "more than 100 checkpoints build on each other"),
        (empty, "there is no checkpoint in it"),
        (half, "the checkpoint is not complete"),
        (gone, "no such file or directory"),
        (torn, "rt.json is damaged"),
        (odd, "rt.json is damaged"),
        (of_the_future, "of another version of rt: 99"),
        (without_memory, "images/pagemap-1.img is cut short: 0 of "),
        (cut_short, "images/pages-1.img is cut short: 4096 of "),
        (of_another_make, "criu cannot restore it: Unexpected EOF"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_directory_that_holds_no_sound_checkpoint_is_refused(
    root_rt: Saver, saved: Bundle, images: Path, spoil: Callable[[Path], None], problem: str
) -> None:
    spoil(images)
    assert problem in restore(root_rt, images, saved)


def test_a_checkpoint_of_another_bundle_is_refused(
    root_rt: Saver, root_bundle: MakeBundle, images: Path, place: Path
) -> None:
    box = root_bundle(WAIT)
    (place / "data").mkdir()
    mount = {"destination": "/data", "type": "bind", "source": str(place / "data"), "options": ["bind"]}
    box.config["mounts"].append(mount)
    box.write()
    root_rt.start(BOX, box.path)
    root_rt.save(BOX, images)
    box.config["mounts"].pop()
    box.write()
    assert "its config has no mount at /data" in restore(root_rt, images, box)
    box.config["mounts"].append({**mount, "source": str(place / "nowhere")})
    box.write()
    assert f"the mount at /data was of {place}/nowhere, which does not exist" in restore(root_rt, images, box)
    box.config["mounts"][-1]["source"] = str(place / "data")
    kept = box.config["linux"]["namespaces"]
    box.config["linux"]["namespaces"] = [item for item in kept if item["type"] != "ipc"]
    box.config["mounts"] = [item for item in box.config["mounts"] if item["type"] != "mqueue"]
    box.write()
    assert "linux.namespaces differ: ipc" in restore(root_rt, images, box)


def test_a_changed_bundle_is_refused(root_rt: Saver, saved: Bundle, images: Path, place: Path) -> None:
    (saved.rootfs / "bin/busybox").write_bytes(b"another program")
    assert "criu cannot restore it: " in restore(root_rt, images, saved)
    (saved.path / "config.json").unlink()
    assert "is not a bundle" in restore(root_rt, images, saved)


def test_a_link_in_the_place_of_a_mount_leads_nobody_out(
    root_rt: Saver, saved: Bundle, images: Path, place: Path
) -> None:
    (place / "outside").mkdir()
    (saved.rootfs / "proc").rmdir()
    (saved.rootfs / "proc").symlink_to(place / "outside")
    assert "the mount at /proc: /proc is not the place for a mount" in restore(root_rt, images, saved)


def test_missing_mount_points_are_made(root_rt: Saver, saved: Bundle, images: Path) -> None:
    for name in ("proc", "sys", "dev"):
        (saved.rootfs / name).rmdir()
    root_rt.bring_back(BOX, images, saved.path)
    assert root_rt.state(BOX)["status"] == "running"


def test_an_id_that_is_taken_is_refused(root_rt: Saver, saved: Bundle, images: Path) -> None:
    root_rt.bring_back(BOX, images, saved.path)
    words = ["restore", "-d", "--image-path", str(images), "-b", str(saved.path)]
    assert "container with given ID already exists" in one_line(root_rt(*words, BOX))
    assert root_rt.state(BOX)["status"] == "running"


def test_what_does_not_run_is_not_saved(root_rt: Saver, root_bundle: MakeBundle, images: Path) -> None:
    box = root_bundle(WAIT)
    words = ["checkpoint", "--image-path", str(images)]
    assert "does not exist" in one_line(root_rt(*words, BOX))
    root_rt.quiet("create", "-b", str(box.path), BOX)
    assert f'cannot checkpoint container "{BOX}": it is created' in one_line(root_rt(*words, BOX))
    root_rt.ok("start", BOX)
    root_rt.ok("kill", BOX, "KILL")
    root_rt.wait_for(BOX, "stopped")
    assert f'cannot checkpoint container "{BOX}": it is stopped' in one_line(root_rt(*words, BOX))
    assert not images.exists()


def test_a_place_that_cannot_take_images_is_refused_and_the_container_goes_on(
    root_rt: Saver, root_bundle: MakeBundle, images: Path, place: Path
) -> None:
    box = root_bundle(WAIT)
    root_rt.start(BOX, box.path)
    (place / "file").write_text("")
    for path, problem in (
        (place / "file", "is not a directory"),
        (place / "file/below", "cannot be made"),
        (Path("/proc/images"), "cannot be made"),
    ):
        assert problem in one_line(root_rt("checkpoint", "--image-path", str(path), BOX))
    line = one_line(root_rt("checkpoint", "--image-path", str(images), "--parent-path", "/first", BOX))
    assert "--parent-path must be relative" in line
    (place / "first").mkdir(mode=0o700)
    os.chown(place / "first", 12345, 12345)
    parent = ["--image-path", str(images), "--parent-path", "../first"]
    try_it = root_rt("checkpoint", *parent, BOX)
    if "CONFIG_MEM_SOFT_DIRTY" not in try_it.stderr:
        assert f"--parent-path {images}/../first: belongs to uid 12345" in one_line(try_it)
    assert not images.exists() and root_rt.state(BOX)["status"] == "running"
    root_rt.save(BOX, images)


def test_a_full_disk_leaves_the_container_as_it_was(
    root_rt: Saver, root_bundle: MakeBundle, images: Path, place: Path
) -> None:
    box = root_bundle(TICK)
    root_rt.start(BOX, box.path)
    for size, problem in (
        ("64k", "criu cannot checkpoint it: "),
        ("4k", f"cannot write {images}/descriptors"),
    ):
        with mounted(images, f"size={size},mode=700"):
            if size == "4k":
                (images / "fill").write_bytes(bytes(4096))
            done = root_rt("checkpoint", "--image-path", str(images), BOX)
            assert problem in one_line(done) and "hint: " in done.stderr
            assert {path.name for path in images.iterdir()} <= {"fill", "dump.log"}
        goes_on(box)


def test_images_that_cannot_be_written_need_another_place_for_the_log(
    root_rt: Saver, saved: Bundle, images: Path, place: Path
) -> None:
    copy = place / "copy"
    with mounted(copy, "mode=700"):
        for path in images.iterdir():
            shutil.copy2(path, copy)
        subprocess.run(["mount", "-o", "remount,ro", copy], check=True)
        assert f"--image-path {copy}: is not writable, for the log" in restore(root_rt, copy, saved)
        root_rt.bring_back(BOX, copy, saved.path, "--work-path", str(place / "work"))
        root_rt.ok("delete", "--force", BOX)


@contextmanager
def mounted(path: Path, options: str) -> Iterator[None]:
    """A tmpfs there."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield
    finally:
        unmount(path)
        path.rmdir()


def test_a_checkpoint_that_fails_leaves_its_log_alone(
    root_rt: Saver, root_bundle: MakeBundle, images: Path
) -> None:
    box = root_bundle("echo kept > /one; ln /one /two; exec 9</one; rm /one; touch /ready; " + WAIT)
    root_rt.start(BOX, box.path)
    until((box.rootfs / "ready").exists, "it begins")
    assert "link-remap" in one_line(root_rt("checkpoint", "--image-path", str(images), BOX))
    assert os.listdir(images) == ["dump.log"]


def test_what_a_process_has_in_memory_is_for_the_owner_alone(
    root_rt: Saver, root_bundle: MakeBundle, images: Path
) -> None:
    box = root_bundle(WAIT)
    root_rt.start(BOX, box.path)
    images.mkdir(mode=0o755)
    root_rt.save(BOX, images)
    assert {oct(path.stat().st_mode & 0o777) for path in images.iterdir()} == {"0o600"}


@pytest.mark.skipif(os.environ.get("RT_LONG") != "1", reason="takes half a minute: RT_LONG=1")
def test_a_program_that_never_answers_is_ended(
    root_rt: Saver, root_bundle: MakeBundle, images: Path, place: Path
) -> None:
    box = root_bundle(WAIT)
    root_rt.start(BOX, box.path)
    (place / "silent").write_text("#!/bin/sh\nexec sleep 1000\n")
    (place / "silent").chmod(0o755)
    root_rt.criu = place / "silent"
    assert "does not answer in" in one_line(root_rt("checkpoint", "--image-path", str(images), BOX))
    assert not images.exists() and root_rt.state(BOX)["status"] == "running"


def test_a_process_that_exec_added_is_not_saved_and_that_is_said(
    root_rt: Saver, root_bundle: MakeBundle, images: Path
) -> None:
    box = root_bundle("sleep 4710 & " + WAIT)
    root_rt.start(BOX, box.path)
    root_rt.quiet("exec", "--detach", "--pid-file", str(images.parent / "pid"), BOX, "sleep", "4711")
    added = (images.parent / "pid").read_text()
    done = root_rt("checkpoint", "--image-path", str(images), BOX)
    assert done.returncode == 0
    assert done.stderr == f"rt: warning: processes that `exec` has added are not saved: {added}\n"
    root_rt.bring_back(BOX, images, box.path)
    until(lambda: "sleep 4710" in root_rt.ok("ps", BOX), "what was there from the start is there again")
    assert "sleep 4711" not in root_rt.ok("ps", BOX)


def test_an_overlay_that_would_be_lost_is_refused(
    root_rt: Saver, root_bundle: MakeBundle, images: Path
) -> None:
    box = root_bundle(WAIT)
    root_rt.start(BOX, box.path, "--overlay")
    assert "on an overlay that rt made" in one_line(root_rt("checkpoint", "--image-path", str(images), BOX))
    assert not images.exists()


def test_a_hook_that_fails_ends_the_restore(root_rt: Saver, saved: Bundle, images: Path) -> None:
    saved.config["hooks"] = {"prestart": [{"path": "/bin/false"}]}
    saved.write()
    assert "prestart" in restore(root_rt, images, saved)


def test_a_signal_ends_a_restore_with_nothing_left(
    root_rt: Saver, saved: Bundle, images: Path, place: Path
) -> None:
    args = ["sh", "-c", f"touch {place}/hook; exec sleep 1000"]
    saved.config["hooks"] = {"prestart": [{"path": "/bin/sh", "args": args, "env": ["PATH=/bin"]}]}
    saved.write()
    ground = Ground(root_rt, BOX)
    words = ["restore", "--detach", "--image-path", str(images), "--bundle", str(saved.path), BOX]
    with root_rt.popen(*words) as process:
        until((place / "hook").exists, "the hook runs")
        process.terminate()
        assert process.wait(PATIENCE) == 128 + 15
    assert root_rt.ok("list", "-q") == ""
    ground.clean()
