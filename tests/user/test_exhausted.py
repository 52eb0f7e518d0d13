"""Where something has run out: disk, descriptors, memory, processes. A clear error, and no remains."""

from __future__ import annotations

import pytest
from conftest import MakeBundle
from lab.leftovers import Ground
from lab.runtime import Runtime
from lab.wrapped import after, with_mounts


def one_line(said: str) -> str:
    """The error of a command: one line and at most one hint, and no traceback."""
    first, *hints = said.splitlines()
    assert first.startswith("rt: ") and len(hints) <= 1 and "Traceback" not in said, said
    assert "internal error" not in first, said
    return first


@pytest.mark.parametrize("command", ["create", "run"])
@pytest.mark.parametrize("size", ["4k", "8k", "12k"])
def test_a_full_disk_below_the_state(command: str, size: str, rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle("true")
    made.config["annotations"] = {"note": "x" * 20000}  # the saved config alone is too much
    made.write()
    ground = Ground(rt, "full")
    full = with_mounts(
        rt, f'mount -t tmpfs -o mode=700,uid={rt.user.uid},gid={rt.user.gid},size={size} full "{rt.root}"'
    )
    done = full(command, "--bundle", str(made.path), "full")
    assert done.returncode == 1
    assert "no space left" in one_line(done.stderr)
    ground.clean()


@pytest.mark.parametrize("count", [5, 8, 12, 16, 20])
def test_too_few_descriptors(count: int, rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle("true")
    ground = Ground(rt, "few")
    done = after(rt, f"ulimit -n {count}")("run", "--bundle", str(made.path), "few")
    if done.returncode:
        said = one_line(done.stderr)
        assert "too many open files" in said or "no file descriptors" in said, done.stderr
    ground.clean()


@pytest.mark.parametrize("megabytes", [12, 16, 20, 24, 32, 48])
def test_too_little_memory(megabytes: int, rt: Runtime, bundle: MakeBundle) -> None:
    """Some fail before Python has begun: those are the kernel's and the loader's words."""
    made = bundle("true")
    ground = Ground(rt, "little")
    done = after(rt, f"ulimit -v {megabytes * 1024}")("run", "--bundle", str(made.path), "little")
    assert done.returncode == 0 or "rt: internal error" not in done.stderr, done.stderr
    ground.clean()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_processes(count: int, rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle("true")
    ground = Ground(rt, "alone")
    done = after(rt, f"prlimit --pid $$ --nproc={count}")("run", "--bundle", str(made.path), "alone")
    if done.returncode:
        assert "resource temporarily unavailable" in one_line(done.stderr)
    ground.clean()


def test_too_little_room_for_what_a_program_writes_to_its_log(rt: Runtime, bundle: MakeBundle) -> None:
    done = rt("--log", "/dev/full", "run", "--bundle", str(bundle(["/no/such"]).path), "logged")
    assert done.returncode == 1 and "no such file or directory" in done.stderr
