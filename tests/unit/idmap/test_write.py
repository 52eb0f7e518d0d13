"""Which way a map takes, with scripts in the place of newuidmap and newgidmap (tests/user: real ones)."""

from __future__ import annotations

import os
import posix
from pathlib import Path

import pytest

from idmap import userns, write
from idmap.errors import IdmapError
from idmap.extents import IDENTITY
from idmap.write import write_maps

Extent = tuple[int, int, int]
FULL: list[Extent] = [(0, 4242, 1), (1, 100000, 65536)]
GONE = 2**22 + 1  # above the largest pid_max


@pytest.fixture(autouse=True)
def initial_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userns, "own_map", lambda kind, proc="": [IDENTITY])


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with helpers that note their arguments and succeed."""
    for name in ("newuidmap", "newgidmap"):
        tool(tmp_path, name, "")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def tool(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\necho "$@" > {directory}/{name}.args\n{text}\n')
    path.chmod(0o755)


def write_full(uids: list[Extent] = FULL, gids: list[Extent] = FULL, pid: int = GONE) -> str:
    return write_maps(pid, uids, gids, euid=4242, egid=4242, privileged=False, name="alice")


def test_both_helpers_get_the_pid_and_the_map(tools: Path) -> None:
    assert write_full() == "helpers"
    assert (tools / "newuidmap.args").read_text() == f"{GONE} 0 4242 1 1 100000 65536\n"
    assert (tools / "newgidmap.args").read_text() == f"{GONE} 0 4242 1 1 100000 65536\n"


def test_both_helpers_run_at_once(tools: Path) -> None:
    # Each waits for the other to have started: in turn, the first would fail.
    for name, other in (("newuidmap", "newgidmap"), ("newgidmap", "newuidmap")):
        tool(
            tools,
            name,
            f"for i in $(seq 3000); do test -e {tools}/{other}.args && exit 0; sleep 0.02; done; exit 1",
        )
    assert write_full() == "helpers"


def test_adjacent_lines_reach_the_helper_as_one(tools: Path) -> None:
    write_full(uids=[(i, 100000 + i, 1) for i in range(1000)])
    assert (tools / "newuidmap.args").read_text() == f"{GONE} 0 100000 1000\n"


def test_maps_are_cut_at_the_lines_of_the_own_namespace(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userns, "own_map", lambda kind, proc="": [(0, 1000, 1), (1, 100000, 65536)])
    write_full(uids=[(0, 0, 100)], gids=[(0, 1, 5)])
    assert (tools / "newuidmap.args").read_text() == f"{GONE} 0 0 1 1 1 99\n"


def test_an_id_that_the_own_namespace_lacks_names_the_callers_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userns, "own_map", lambda kind, proc="": [(0, 1000, 1)])
    with pytest.raises(IdmapError, match=r"uid map: line 2 \(1:1:1\): uid 1 does not exist"):
        write_full(uids=[(9, 0, 1), (1, 1, 1)])


def test_three_hundred_lines_reach_the_helper(tools: Path) -> None:
    write_full(uids=[(i, 2 * i, 1) for i in range(300)])
    assert len((tools / "newuidmap.args").read_text().split()) == 901


def test_more_lines_than_the_kernel_takes_are_refused_before_anything_runs(tools: Path) -> None:
    with pytest.raises(IdmapError) as caught:
        write_full(gids=[(i, 2 * i, 1) for i in range(341)])
    assert caught.value.reason == "too-many-extents"
    assert "gid map: 341 lines" in caught.value.message
    assert "at most 340 lines" in caught.value.message
    assert not list(tools.glob("*.args"))


def test_lines_longer_than_the_kernels_page_are_refused(tools: Path) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    lines = [(4000000000 + 2 * i, 3000000000 + 3 * i, 1) for i in range(min(340, page // 24 + 1))]
    if sum(len(f"{a} {b} {c}\n") for a, b, c in lines) < page:
        pytest.skip("a page holds any 340 lines here")
    with pytest.raises(IdmapError) as caught:
        write_full(uids=lines)
    assert caught.value.reason == "too-many-extents"


def test_when_both_fail_both_have_ended_and_the_uid_one_is_told(tools: Path) -> None:
    pid = os.getpid()
    tool(tools, "newuidmap", "echo newuidmap: uids >&2; exit 1")
    tool(tools, "newgidmap", f"sleep 0.3; touch {tools}/done; echo newgidmap: gids >&2; exit 1")
    with pytest.raises(IdmapError) as caught:
        write_full(pid=pid)
    assert (tools / "done").exists()
    assert "gid" not in caught.value.message
    # The script is no setuid program: the evidence says so, whatever it said.
    assert caught.value.reason == "helper-not-setuid"
    assert f"{tools}/newuidmap" in caught.value.message


def test_a_failing_group_helper_is_told_when_the_other_succeeds(tools: Path) -> None:
    tool(tools, "newgidmap", "exit 1")
    with pytest.raises(IdmapError, match="newgidmap"):
        write_full(pid=os.getpid())


def test_a_helper_for_a_process_that_is_gone_says_so(tools: Path) -> None:
    tool(tools, "newuidmap", "exit 1")
    with pytest.raises(IdmapError) as caught:
        write_full()
    assert caught.value.reason == "target-gone"


def test_a_helper_that_is_no_program_is_an_error_after_the_other_ended(tools: Path) -> None:
    (tools / "newuidmap").write_bytes(b"\x7fELF nonsense")
    with pytest.raises(IdmapError):
        write_full(pid=os.getpid())
    assert (tools / "newgidmap.args").exists()


def test_a_missing_helper_is_told_before_the_other_runs(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idmap.helpers.SYSTEM_DIRS", ())
    (tools / "newgidmap").unlink()
    with pytest.raises(IdmapError) as caught:
        write_full()
    assert caught.value.reason == "helper-missing"
    assert "newgidmap" in caught.value.message
    assert not (tools / "newuidmap.args").exists()


def test_overlaps_are_told_before_anything_runs(tools: Path) -> None:
    with pytest.raises(IdmapError) as caught:
        write_full(uids=[(0, 4242, 2), (1, 100000, 5)])
    assert caught.value.reason == "overlap"
    assert not list(tools.glob("*.args"))


def test_no_descriptor_is_left_by_either_way(tools: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    write_full()
    tool(tools, "newuidmap", "exit 1")
    with pytest.raises(IdmapError):
        write_full(pid=os.getpid())
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """Direct writes are noted instead of made."""
    noted: list[tuple[str, bytes]] = []

    def note(process: int, file: str, text: bytes) -> int:
        noted.append((file, text))
        return 0

    monkeypatch.setattr(write, "_put", note)
    return noted


def test_the_own_ids_alone_are_written_directly_after_denying_setgroups(
    puts: list[tuple[str, bytes]],
) -> None:
    own = [(0, 4242, 1)]
    assert write_maps(os.getpid(), own, own, euid=4242, egid=4242, privileged=False) == "direct"
    assert puts == [("setgroups", b"deny"), ("uid_map", b"0 4242 1\n"), ("gid_map", b"0 4242 1\n")]


def test_a_privileged_writer_writes_any_map_and_leaves_setgroups(puts: list[tuple[str, bytes]]) -> None:
    many = [(i, 2 * i, 1) for i in range(300)]
    assert write_maps(os.getpid(), many, FULL, euid=0, egid=0, privileged=True) == "direct"
    assert [file for file, _ in puts] == ["uid_map", "gid_map"]
    assert puts[0][1].count(b"\n") == 300


def test_a_privileged_writer_denies_setgroups_when_asked(puts: list[tuple[str, bytes]]) -> None:
    write_maps(os.getpid(), FULL, FULL, euid=0, egid=0, privileged=True, setgroups="deny")
    assert puts[0] == ("setgroups", b"deny")


def test_one_own_and_one_granted_map_take_each_their_way(tools: Path, puts: list[tuple[str, bytes]]) -> None:
    assert write_full(gids=[(0, 4242, 1)], pid=os.getpid()) == "helpers"
    assert puts == [("setgroups", b"deny"), ("gid_map", b"0 4242 1\n")]
    assert (tools / "newuidmap.args").exists()
    assert not (tools / "newgidmap.args").exists()


def test_setgroups_is_denied_before_the_helpers_when_asked(
    tools: Path, puts: list[tuple[str, bytes]]
) -> None:
    write_maps(os.getpid(), FULL, FULL, euid=4242, egid=4242, privileged=False, setgroups="deny")
    assert puts == [("setgroups", b"deny")]


def test_setgroups_cannot_be_allowed_with_only_the_own_group(puts: list[tuple[str, bytes]]) -> None:
    own = [(0, 4242, 1)]
    with pytest.raises(IdmapError) as caught:
        write_maps(os.getpid(), own, own, euid=4242, egid=4242, privileged=False, setgroups="allow")
    assert caught.value.reason == "setgroups-denied"
    assert puts == []


def test_a_single_id_that_is_not_the_own_needs_the_helper(tools: Path) -> None:
    assert write_full(uids=[(0, 4243, 1)]) == "helpers"


def test_a_process_that_is_gone_is_told_by_the_direct_way() -> None:
    own = [(0, 4242, 1)]
    with pytest.raises(IdmapError) as caught:
        write_maps(GONE, own, own, euid=4242, egid=4242, privileged=False)
    assert caught.value.reason == "target-gone"


def test_a_refused_direct_write_gets_a_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [(0, 4242, 1)]
    monkeypatch.setattr(write, "_put", lambda process, file, text: 0 if file == "setgroups" else 1)
    with pytest.raises(IdmapError) as caught:
        write_maps(os.getpid(), own, own, euid=4242, egid=4242, privileged=False)
    # This process is in its namespace since long, with a map.
    assert caught.value.reason == "already-mapped"


def test_a_proc_of_another_pid_namespace_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [(0, 4242, 1)]
    monkeypatch.setattr(posix, "readlink", lambda path, dir_fd=None: "1")
    with pytest.raises(IdmapError) as caught:
        write_maps(os.getpid(), own, own, euid=4242, egid=4242, privileged=False)
    assert caught.value.reason == "proc-mismatch"
