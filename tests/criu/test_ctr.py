"""containerd's `ctr` saves tasks with rt, and starts containers from what was saved."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.containerd import Containerd
from lab.engines import RUNTIMES
from lab.runtime import RT
from lab.waiting import PATIENCE, until
from lab.ward import PATH, Ward


@pytest.fixture
def ctr(criu: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Containerd]:
    """containerd with an `rt` that knows where criu is."""
    if shutil.which("containerd", path=PATH) is None:
        pytest.skip("needs containerd: apt install containerd")
    ward = Ward()
    try:
        wrapper = ward.base / "rt-criu"
        wrapper.write_text(f'#!/bin/sh\nexec {RT} --criu {criu} "$@"\n')
        wrapper.chmod(0o755)
        monkeypatch.setitem(RUNTIMES, "rt", str(wrapper))
        yield Containerd(ward).on("rt")
    finally:
        ward.close()


def counted(path: Path, beyond: int) -> int:
    def last() -> int:
        lines = path.read_text().split() if path.exists() else []
        return int(lines[-1]) if lines else -1

    until(lambda: last() > beyond, f"it counts beyond {beyond}")
    return last()


def test_a_container_is_saved_and_restored_with_its_task(ctr: Containerd) -> None:
    data = ctr.ward.base / "data"
    data.mkdir()
    script = "n=0; while :; do n=$((n + 1)); echo $n >> /data/count; sleep 0.02; done"
    mount = ("--mount", f"type=bind,src={data},dst=/data,options=rbind:rw")
    name = ctr.start("sh", "-c", script, options=mount)
    counted(data / "count", 3)
    saved = "docker.io/library/saved:1"
    ctr.ok("container", "checkpoint", "--task", "--rw", "--image", name, saved)
    ctr("task", "kill", "--signal", "SIGKILL", name)
    until(lambda: ctr.status(name) in ("STOPPED", ""), "the end of the task")
    ctr.remove(name)
    last = counted(data / "count", 0)
    other = ctr.name()
    with ctr.popen("container", "restore", "--rw", "--live", other, saved) as restoring:
        assert counted(data / "count", last + 3) > last
        assert ctr.status(other) == "RUNNING"
        ctr.ok("task", "kill", "--signal", "SIGKILL", other)
        restoring.wait(PATIENCE)
    ctr.remove(other)


def test_a_task_ends_with_its_checkpoint_when_asked_to(ctr: Containerd) -> None:
    name = ctr.start("sh", "-c", "while :; do sleep 0.05; done")
    images = ctr.ward.base / "images"
    images.mkdir(mode=0o700)
    ctr.ok("task", "checkpoint", "--exit", "--image-path", str(images), name)
    until(lambda: ctr.status(name) in ("STOPPED", ""), "the end of the task")
    assert (images / "inventory.img").exists() and (images / "rt.json").exists()
    ctr.remove(name)
