"""Every cause of lab.simulators, met by an ordinary user: one line that names it, one hint, and its id."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.filters import behind_filter, denying
from lab.refusals import named, problem, processes
from lab.runtime import Runtime
from lab.simulators import ROWS, InSession, Rig, Row, closed_source
from lab.waiting import until


@pytest.mark.covers("--degrade", "explain")
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_cause_is_told_in_a_line_with_its_fix_and_its_id(rig: Rig, row: Row) -> None:
    rt = row.stage(rig)
    before = processes(rt.user)
    done = rt("run", "--bundle", str(rig.box.path), "c")
    if row.runs:
        assert done.returncode == 0, (done.stdout, done.stderr)
        line, hint = _warning(done.stderr, row)
        assert row.seen in line and row.fix in hint, done.stderr
        done = rt("--degrade=strict", "run", "--bundle", str(rig.box.path), "c")
    line, hint = problem(done)
    assert row.seen in line or row.runs, done.stderr
    assert row.fix in hint or row.runs, done.stderr
    assert named(done.stderr) == [row.id], done.stderr
    assert list(rt.root.iterdir()) == []
    until(lambda: processes(rt.user) <= before, lambda: f"none is left: {processes(rt.user) - before}")
    assert rt.ok("explain", row.id).startswith(f"{row.id}: ")


def _warning(stderr: str, row: Row) -> tuple[str, str]:
    """The line and the hint of a warning, which is there once."""
    lines = stderr.splitlines()
    found = [index for index, line in enumerate(lines) if row.seen in line]
    assert len(found) == 1 and lines[found[0]].startswith("rt: warning: "), stderr
    hint = lines[found[0] + 1]
    assert hint.startswith("hint: ") and hint.endswith(f"rt explain {row.id}" + ")" * ("(" in hint)), stderr
    return lines[found[0]], hint


def test_a_hidden_clone3_is_replaced_by_clone(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    hidden = behind_filter(rt, place, denying("clone3", with_errno=errno.ENOSYS))
    assert hidden.ok("run", "--bundle", str(bundle("echo fine").path), "c") == "fine\n"
    hidden.ok("create", "--bundle", str(bundle(["/bin/sleep", "100"]).path), "d")
    hidden.ok("start", "d")
    assert hidden.ok("exec", "d", "echo", "inside") == "inside\n"


def test_mount_itself_is_not_needed(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    without = behind_filter(rt, place, denying("mount"))
    assert without.ok("run", "--bundle", str(bundle("echo fine").path), "c") == "fine\n"


def test_who_may_not_search_the_directory_is_named(rig: Rig) -> None:
    line, _ = problem(closed_source(rig)("run", "--bundle", str(rig.box.path), "c"))
    assert f"cannot be searched by {rig.alice.name} (uid {rig.alice.uid})" in line
    assert line.startswith("mounts[") and f"{rig.place}/above/inside" in line


@pytest.mark.parametrize("mode", [0o000, 0o200])
def test_a_config_that_cannot_be_read_is_named_with_its_mode(rig: Rig, mode: int) -> None:
    if rig.alice.uid == 0:
        pytest.skip("needs an ordinary user")
    (rig.box.path / "config.json").chmod(mode)
    done = rig.rt("run", "--bundle", str(rig.box.path), "c")
    line, hint = problem(done)
    assert f"config.json ({mode:04o} {rig.alice.name}:" in line and "setfacl" in hint
    assert named(done.stderr) == ["RT-BUNDLE-PATH"]


# Without a session of one's own


@pytest.fixture
def plain(rig: Rig) -> Iterator[Rig]:
    yield rig
    for runtime in ("", "/root"):
        InSession(rig, runtime)("delete", "--force", "plain")


def test_without_a_runtime_directory_containers_run_all_the_same(plain: Rig) -> None:
    rt = InSession(plain, "")
    assert rt.ok("run", "--bundle", str(plain.box.run("echo fine").path), "plain") == "fine\n"


def test_a_runtime_directory_of_somebody_else_is_told_and_not_used(plain: Rig) -> None:
    rt = InSession(plain, "/root")
    done = rt("run", "--bundle", str(plain.box.run("echo fine").path), "plain")
    assert (done.returncode, done.stdout) == (0, "fine\n")
    line, hint = done.stderr.splitlines()
    assert line.startswith("rt: warning: XDG_RUNTIME_DIR /root belongs to uid 0, not to you: containers are")
    assert hint.startswith("hint: ") and named(done.stderr) == ["RT-SESSION-RUNTIME-DIR"]
    assert not os.path.exists("/root/rt")
