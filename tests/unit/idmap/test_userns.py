"""The own map, read from a given directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from idmap.userns import in_user_namespace, own_map


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("         0          0 4294967295\n", False),
        ("         0       1000          1\n", True),
        ("         0       1000          1\n         1     100000      65536\n", True),
        ("", True),
    ],
)
def test_any_map_but_the_whole_identity_is_a_user_namespace(tmp_path: Path, text: str, inside: bool) -> None:
    (tmp_path / "uid_map").write_text(text)
    assert in_user_namespace(str(tmp_path)) is inside


def test_long_maps_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "gid_map").write_text("".join(f"{i:10} {2 * i:10} {1:10}\n" for i in range(340)))
    assert len(own_map("gid", str(tmp_path))) == 340


def test_the_own_map_can_be_read_here() -> None:
    assert own_map("uid")
    assert own_map("gid")
