"""The few functions of os.path that the hot path has of its own: the same answers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab.tree import TREE

from rootless_rt import paths

PATHS = st.text(alphabet="ab./", max_size=12)


@given(PATHS)
def test_paths_are_taken_apart_as_by_os_path(path: str) -> None:
    assert paths.dirname(path) == os.path.dirname(path)
    assert paths.basename(path) == os.path.basename(path)


@given(PATHS)
def test_paths_are_made_normal_as_by_os_path_but_for_two_leading_slashes(path: str) -> None:
    wanted = os.path.normpath(path)
    assert paths.normal(path) == (wanted[1:] if wanted.startswith("//") else wanted)


@given(PATHS)
def test_relative_paths_begin_at_the_working_directory(path: str) -> None:
    wanted = os.path.abspath(path)
    assert paths.absolute(path) == (wanted[1:] if wanted.startswith("//") else wanted)


def test_what_is_there_is_found(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to("gone")
    assert paths.exists(f"{tmp_path}/file") and not paths.is_directory(f"{tmp_path}/file")
    assert paths.is_directory(str(tmp_path)) and not paths.exists(f"{tmp_path}/nowhere")
    assert not paths.exists("a\0b") and not paths.is_directory("a\0b")


def test_directories_are_made_with_those_above_and_only_the_last_gets_the_mode(tmp_path) -> None:
    paths.make_directories(f"{tmp_path}/a/b//c", 0o700)
    paths.make_directories(f"{tmp_path}/a/b/c", 0o755)
    assert (tmp_path / "a/b/c").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a").stat().st_mode & 0o700 == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        paths.make_directories(f"{tmp_path}/file", 0o700)


def test_the_environment_is_that_of_os_where_it_is_loaded(monkeypatch) -> None:
    monkeypatch.setenv("RT_TEST", "1")
    assert paths.environment()["RT_TEST"] == "1"


def test_any_bytes_of_the_environment_come_through_without_os() -> None:
    code = (
        "import sys; sys.path.append(sys.argv[1]); from rootless_rt import paths; import posix;"
        "posix.write(1, paths.fsencode(paths.environment()['X'])); sys.exit('os' in sys.modules)"
    )
    argv = [sys.executable, "-I", "-S", "-c", code, str(TREE)]
    done = subprocess.run(argv, env={b"X": b"\xff=\xc3"}, capture_output=True, check=True)
    assert done.stdout == b"\xff=\xc3"
