"""Races against what rt does in the rootfs for tmpcopyup and for symlinks (the class of CVE-2018-15664).

The image's user exchanges files for links, FIFOs and deep trees while the container is made: nothing of the
host is read into the container, written, covered or given away, and nothing hangs.
"""

from __future__ import annotations

import os
import shutil

import pytest
from conftest import MakeBundle
from lab.attack import ROUNDS, TEXT, Canary, exchange, racing
from lab.inside import bind, mount, with_mounts
from lab.runtime import Runtime


@pytest.mark.covers("mounts[].options tmpcopyup")
@pytest.mark.parametrize("target", ["{canary}", "../../../../../../../..{canary}", "/proc/self/root{canary}"])
@pytest.mark.parametrize("kind", ["file", "directory", "itself"])
def test_a_link_exchanged_while_it_is_copied_brings_nothing_of_the_host(
    kind: str, target: str, rt: Runtime, bundle: MakeBundle, canary: Canary
) -> None:
    made = bundle("cat /data/* /data/*/* 2>/dev/null; exit 0")
    data = made.rootfs / "data"
    (data / "sub").mkdir(parents=True)
    for number in range(40):
        (data / f"file{number}").write_text("inside\n")
    real = {"file": data / "file20", "directory": data / "sub", "itself": data}[kind]
    link = made.rootfs / "link"
    link.symlink_to(target.format(canary=canary.file if kind == "file" else canary.path))
    rt.user.owns(made.rootfs)
    with_mounts(made, mount("/data", "tmpfs", "tmpfs", "tmpcopyup"))
    with racing(lambda: exchange(real, link)):
        for number in range(ROUNDS):
            done = rt("run", "--bundle", str(made.path), f"c{number}")
            assert TEXT not in done.stdout and done.returncode in (0, 1), done
            assert "Traceback" not in done.stderr
    canary.check()


@pytest.mark.covers("mounts[].options tmpcopyup")
def test_a_fifo_or_a_growing_file_does_not_hold_the_copy_up(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle("ls /data | wc -l")
    data = made.rootfs / "data"
    data.mkdir()
    (data / "file").write_text("x")
    os.mkfifo(made.rootfs / "fifo")
    growing = data / "growing"
    growing.write_bytes(b"x" * 65536)
    rt.user.owns(made.rootfs)
    with_mounts(made, mount("/data", "tmpfs", "tmpfs", "tmpcopyup", "size=16m"))

    def step() -> None:
        exchange(data / "file", made.rootfs / "fifo")
        if growing.stat().st_size < 8 << 20:
            with growing.open("ab") as file:
                file.write(b"x" * 65536)

    with racing(step):
        for number in range(ROUNDS):
            done = rt("run", "--bundle", str(made.path), f"c{number}")
            assert (done.returncode, done.stdout) == (0, "2\n"), done


@pytest.mark.covers("mounts[].options tmpcopyup")
def test_directories_moved_away_while_they_are_copied_lead_nowhere(
    rt: Runtime, bundle: MakeBundle, canary: Canary
) -> None:
    """A directory that is being copied is moved out of the rootfs, beside the canary."""
    made = bundle("cat /data/*/*/* 2>/dev/null; exit 0")
    inner = made.rootfs / "data/one/two"
    inner.mkdir(parents=True)
    for number in range(40):
        (inner / f"file{number}").write_text("inside\n")
    outside = canary.path.parent / "away"
    rt.user.owns(made.rootfs)
    with_mounts(made, mount("/data", "tmpfs", "tmpfs", "tmpcopyup"))

    def step() -> None:
        os.rename(inner, outside)
        os.rename(outside, inner)

    with racing(step):
        for number in range(ROUNDS):
            done = rt("run", "--bundle", str(made.path), f"c{number}")
            assert TEXT not in done.stdout and done.returncode in (0, 1), done
    canary.check()
    shutil.rmtree(inner)


@pytest.mark.covers("mounts[].options dest-nofollow", "mounts[].options copy-symlink")
@pytest.mark.parametrize("word", ["dest-nofollow", "copy-symlink"])
@pytest.mark.parametrize("where", ["etc/place", "etc"])
def test_a_link_exchanged_at_a_destination_leads_nowhere(
    where: str, word: str, rt: Runtime, bundle: MakeBundle, canary: Canary
) -> None:
    made = bundle(f"cat {canary.path}/file 2>/dev/null; exit 0")
    real, link = made.rootfs / where, made.rootfs / "link"
    if where == "etc/place":
        real.touch()
    link.symlink_to(canary.file if where == "etc/place" else canary.path)
    source = made.path / "source"
    if word == "copy-symlink":
        source.symlink_to("config.json")
    else:
        source.write_text("source\n")
    rt.user.owns(made.path)
    with_mounts(made, bind("/etc/place", source, word))
    with racing(lambda: exchange(real, link)):
        for number in range(ROUNDS):
            done = rt("run", "--bundle", str(made.path), f"c{number}")
            assert TEXT not in done.stdout and done.returncode in (0, 1), done
            canary.check()
