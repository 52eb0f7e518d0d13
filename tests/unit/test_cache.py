"""A directory of the user's cache stays small."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless_rt.host import cache


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    tmp_path.chmod(0o700)
    found, complaint = cache.open_directory(str(tmp_path))
    assert complaint == ""
    yield found
    os.close(found)


def fill(directory: int, folder: Path) -> None:
    """As many files as there may be, "0" the oldest."""
    for number in range(cache.MOST):
        cache.store(directory, f"{number}", b"x")
        os.utime(folder / f"{number}", (1 + number, 1 + number))


def test_the_oldest_make_room_and_so_do_the_remains_of_those_that_were_killed(
    directory: int, tmp_path: Path
) -> None:
    fill(directory, tmp_path)
    remains = tmp_path / ".killed.0123"
    remains.write_bytes(b"x")
    os.utime(remains, (0, 0))
    cache.store(directory, "new", b"y")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"new", *(f"{number}" for number in range(1, cache.MOST))}


def test_what_is_written_again_is_young_again(directory: int, tmp_path: Path) -> None:
    fill(directory, tmp_path)
    cache.store(directory, "0", b"z")
    cache.store(directory, "new", b"y")
    assert (tmp_path / "0").read_bytes() == b"z" and not (tmp_path / "1").exists()
    assert len(list(tmp_path.iterdir())) == cache.MOST


def test_what_cannot_be_removed_is_no_error(directory: int, tmp_path: Path) -> None:
    for number in range(cache.MOST):
        (tmp_path / f"{number}").mkdir()
    cache.store(directory, "new", b"y")
    assert (tmp_path / "new").read_bytes() == b"y"
