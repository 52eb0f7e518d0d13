"""Grants: the files as people really write them, name services, and other providers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idmap import helpers, subid
from idmap.subid import granted, grants_of, malformed_lines, parse_file, provider, read, user_name

FILE = b"""# sub ids
alice:100000:65536
bob:165536:65536
1000:300000:1000

alice:400000:10
alicia:500000:10
"""


def test_a_user_is_found_by_name_and_by_number_in_the_files_order() -> None:
    assert grants_of(FILE, "alice", 1000) == [(100000, 65536, 2), (300000, 1000, 4), (400000, 10, 6)]


def test_a_user_without_a_name_is_found_by_number() -> None:
    assert grants_of(FILE, None, 1000) == [(300000, 1000, 4)]


def test_the_last_line_needs_no_newline_and_the_first_no_comment() -> None:
    assert grants_of(b"a:100:1\nb:200:2", "a", 5) == [(100, 1, 1)]
    assert grants_of(b"a:100:1\nb:200:2", "b", 5) == [(200, 2, 2)]


def test_a_name_that_is_the_number_is_counted_once() -> None:
    assert grants_of(b"1000:5:5\n", "1000", 1000) == [(5, 5, 1)]


@pytest.mark.parametrize(
    "line",
    [
        b"alice:100000",
        b"alice:100000:",
        b"alice::65536",
        b"alice:100000:65536:",
        b"alice:100000:65536\r",
        b"alice: 100000:65536",
        b"alice:-1:65536",
        b"alice:1_0:65536",
        b"alice:0100000:65536",
        b"alice:0x10:65536",
        b"alice:100000:0",
        b"alice:4294967290:65536",
        b"alice:99999999999:1",
        "alice:\u0661:1".encode(),
        b" alice:100000:65536",
    ],
)
def test_a_malformed_line_grants_nothing_and_is_known_by_number(line: bytes) -> None:
    data = b"bob:1:1\n" + line + b"\nalice:7:7\n"
    assert grants_of(data, "alice", 1000) == [(7, 7, 3)]
    assert parse_file(data) == [(b"bob", 1, 1, 1), (b"alice", 7, 7, 3)]
    assert malformed_lines(data, "alice", 1000) == [2]


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    everyone = parse_file(data)
    assert grants_of(data, "alice", 1000) == [g[1:] for g in everyone if g[0] in (b"alice", b"1000")]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["alice", "1000", "bob", "#x", ""]), st.integers(0, 10**6), st.integers(0, 99)
        )
    )
)
def test_the_search_finds_what_the_line_reader_finds(lines: list[tuple[str, int, int]]) -> None:
    data = "".join(f"{owner}:{start}:{count}\n" for owner, start, count in lines).encode()
    mine = [(s, c, n) for owner, s, c, n in parse_file(data) if owner in (b"alice", b"1000")]
    assert grants_of(data, "alice", 1000) == mine


def test_a_missing_file_grants_nothing(tmp_path: Path) -> None:
    assert read(str(tmp_path / "none"), "alice", 1000) == []


def test_a_file_is_read_through_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(FILE)
    (tmp_path / "link").symlink_to("real")
    assert len(read(str(tmp_path / "link"), "alice", 1000)) == 3


def test_names_come_from_the_third_field_only(tmp_path: Path) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_bytes(
        b"root:x:0:1000:root:/root:/bin/sh\n#c:x:1000:1::/:\nalice:x:1000:1000::/h:/bin/sh\nal2:x:1000:1::/:\n"
    )
    assert user_name(1000, str(passwd)) == "alice"
    assert user_name(0, str(passwd)) == "root"
    assert user_name(1, str(passwd)) is None
    assert user_name(1, str(tmp_path / "none")) is None


def test_a_name_that_is_not_utf8_finds_its_grant(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_bytes(b"\xe9va:x:1000:1000::/h:/bin/sh\n")
    name = user_name(1000, str(tmp_path / "passwd"))
    assert grants_of(b"\xe9va:100000:5\n", name, 1) == [(100000, 5, 1)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"", "files"),
        (b"passwd: files sss\n", "files"),
        (b"subid: files\n", "files"),
        (b"subid:\tsss\n", "sss"),
        (b"SubID: sss\n", "sss"),
        (b"subid:\n", "files"),
        (b"subid: # none\n", "files"),
        (b"# subid: sss\n", "files"),
    ],
)
def test_the_provider_is_the_first_word_of_the_subid_line(text: bytes, name: str) -> None:
    assert provider(text) == name


def tree(root: Path, nsswitch: str = "") -> str:
    etc = root / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("alice:x:1000:1000::/home/alice:/bin/sh\n")
    (etc / "subuid").write_text("alice:100000:65536\n")
    (etc / "subgid").write_text("1000:200000:65536\n")
    (etc / "nsswitch.conf").write_text(nsswitch)
    return str(root)


def test_both_kinds_are_read_below_a_given_root(tmp_path: Path) -> None:
    root = tree(tmp_path)
    assert granted("uid", 1000, root=root) == [(100000, 65536, 1)]
    assert granted("gid", 1000, root=root) == [(200000, 65536, 1)]


def fake_getsubids(directory: Path, script: str) -> None:
    program = directory / "getsubids"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_another_provider_is_asked_with_getsubids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, "subid: sss\n")
    fake_getsubids(tmp_path, 'case "$1" in -g) echo "0: $2 7000 70";; *) echo "0: $1 8000 80";; esac')
    monkeypatch.setenv("PATH", str(tmp_path))
    assert granted("uid", 1000, "alice", root) == [(8000, 80, 1)]
    assert granted("gid", 1000, "alice", root) == [(7000, 70, 1)]


def test_a_provider_that_fails_grants_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, "subid: sss\n")
    fake_getsubids(tmp_path, "echo 0: alice 1 1; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert granted("uid", 1000, "alice", root) == []


def test_files_count_when_getsubids_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, "subid: sss\n")
    monkeypatch.setattr(helpers, "find_helper", lambda name: None)
    assert granted("uid", 1000, "alice", root) == [(100000, 65536, 1)]


def test_a_name_like_an_option_is_never_an_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, "subid: sss\n")
    fake_getsubids(tmp_path, f"touch {tmp_path}/ran")
    monkeypatch.setenv("PATH", str(tmp_path))
    granted("uid", 1000, "-g", root)
    assert not (tmp_path / "ran").exists()


def test_a_user_of_this_machine_has_a_login_name() -> None:
    assert subid.login_name(0) == "root"
    assert subid.login_name(4294967294) is None or os.path.exists("/etc/nsswitch.conf")
