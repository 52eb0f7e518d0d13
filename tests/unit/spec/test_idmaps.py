"""Id mappings of mounts: the fields, and crun's way of writing them as an option."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless_rt.errors import SpecError
from rootless_rt.spec.idmaps import MountIdmap, idmap_of


def asked(*options: str, **fields: Any) -> MountIdmap | None:
    return idmap_of({"destination": "/m", "options": ["bind", *options], **fields}, "mounts[4]")


def lines(*extents: tuple[int, int, int]) -> list[dict[str, int]]:
    return [{"containerID": a, "hostID": b, "size": n} for a, b, n in extents]


def test_a_mount_without_a_word_of_it_has_none() -> None:
    assert asked() is None
    assert asked("ro", uidMappings=[], gidMappings=[]) is None


@pytest.mark.parametrize(("word", "recursive"), [("idmap", False), ("ridmap", True)])
def test_the_word_alone_takes_the_container_s_map(word: str, recursive: bool) -> None:
    found = asked(word)
    assert found is not None and (found.uids, found.gids, found.recursive) == (None, None, recursive)


def test_the_fields_need_no_word() -> None:
    found = asked(uidMappings=lines((0, 1000, 1)), gidMappings=lines((5, 6, 7)))
    assert found is not None
    assert found.uids == [((0, 1000, 1), False)] and found.gids == [((5, 6, 7), False)]
    assert not found.recursive


def test_the_option_lists_ranges_of_the_runtime_s_or_of_the_container_s_ids() -> None:
    found = asked("idmap=uids=0-1000-1#1-100000-65536;gids=@3-4-5")
    assert found is not None
    assert found.uids == [((0, 1000, 1), False), ((1, 100000, 65536), False)]
    assert found.gids == [((3, 4, 5), True)]
    only = asked("ridmap=uids=0-0-1")
    assert only is not None and only.gids is None and only.recursive


def test_the_fields_win_over_the_option() -> None:
    found = asked("idmap=uids=0-9-1", uidMappings=lines((1, 2, 3)), gidMappings=lines((1, 2, 3)))
    assert found is not None and found.uids == [((1, 2, 3), False)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "uids",
        "uids=",
        "uids=0-0",
        "uids=0-0-1-2",
        "uids=0-0-0",
        "uids=-1-0-1",
        "uids=1_0-0-1",
        "uids= 1-0-1",
        "uids=+1-0-1",
        "uids=²-0-1",
        "uids=4294967295-0-1",
        "uids=0-4294967294-2",
        "uids=99999999999999999999999-0-1",
        "uids=0-0-1,1-1-1",
        "uids=@@0-0-1",
        "uids=0-0-1#",
        "uids=0-0-1;uids=1-1-1",
        "pids=0-0-1",
        "uids=0-0-1;",
    ],
)
def test_what_is_no_list_of_ranges_is_an_error_with_its_path(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        asked("ro", f"idmap={text}")
    assert caught.value.path == "mounts[4].options[2]"


@pytest.mark.parametrize("field", ["uidMappings", "gidMappings"])
def test_one_field_alone_is_an_error_that_names_the_other(field: str) -> None:
    with pytest.raises(SpecError) as caught:
        asked(**{field: lines((0, 0, 1))})
    assert caught.value.path != f"mounts[4].{field}" and field in caught.value.message


@given(st.text(alphabet="uids=g0123456789-#;@ \n²", max_size=30))
def test_no_text_is_more_than_refused(text: str) -> None:
    try:
        asked(f"idmap={text}")
    except SpecError:
        pass
