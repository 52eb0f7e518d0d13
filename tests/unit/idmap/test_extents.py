"""The algebra of map lines, by example and by property."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idmap.errors import IdmapError
from idmap.extents import (
    check,
    format_map,
    invert,
    merge,
    parse_map,
    split,
    to_inside,
    to_outside,
)
from idmap.numbers import LAST_ID

Extent = tuple[int, int, int]


@st.composite
def maps(draw: st.DrawFn, size: int = 8) -> list[Extent]:
    """Maps that the kernel could take: lines disjoint on both sides, some of them adjacent, in any order."""
    counts = draw(st.lists(st.integers(1, 50), min_size=1, max_size=size))
    gaps = st.lists(st.integers(0, 5), min_size=len(counts), max_size=len(counts))
    order = draw(st.permutations(range(len(counts)))) if draw(st.booleans()) else list(range(len(counts)))
    inside, outside = [0] * len(counts), [0] * len(counts)
    at = 0
    for index, gap in enumerate(draw(gaps)):
        inside[index] = at + gap
        at = inside[index] + counts[index]
    at = 0
    for index, gap in zip(order, draw(gaps), strict=True):
        outside[index] = at + gap
        at = outside[index] + counts[index]
    return draw(st.permutations(list(zip(inside, outside, counts, strict=True))))


def table(extents: list[Extent]) -> dict[int, int]:
    return {inside + i: outside + i for inside, outside, count in extents for i in range(count)}


@given(maps())
def test_a_map_of_disjoint_lines_passes(extents: list[Extent]) -> None:
    check(extents)


@given(maps())
def test_merging_keeps_every_id_and_never_adds_a_line(extents: list[Extent]) -> None:
    merged = merge(extents)
    assert table(merged) == table(extents)
    assert len(merged) <= len(extents)
    assert merge(merged) == merged
    check(merged)


@given(maps())
def test_merged_lines_have_no_neighbours_left(extents: list[Extent]) -> None:
    merged = merge(extents)
    ends = {(inside + count, outside + count) for inside, outside, count in merged}
    assert not ends & {(inside, outside) for inside, outside, _ in merged}


@given(maps(), maps())
def test_splitting_keeps_every_id_and_crosses_no_line_of_the_parent(
    extents: list[Extent], parent: list[Extent]
) -> None:
    exists = table(parent)
    if not set(table(extents).values()) <= set(exists):
        with pytest.raises(IdmapError) as caught:
            split(extents, parent)
        assert caught.value.reason == "not-in-parent"
        return
    pieces = split(extents, parent)
    assert table(pieces) == table(extents)
    for _, outside, count in pieces:
        assert any(first <= outside and outside + count <= first + length for first, _, length in parent)


@given(maps())
def test_splitting_a_parents_own_ids_always_works(parent: list[Extent]) -> None:
    whole = [(first, first, count) for first, _, count in merge([(i, i, c) for i, _, c in parent])]
    assert table(split(whole, parent)) == {i: i for i in table(parent)}


@given(maps(), st.integers(0, 500))
def test_translation_goes_both_ways(extents: list[Extent], number: int) -> None:
    there = table(extents)
    assert to_outside(extents, number) == there.get(number)
    assert to_inside(extents, number) == {b: a for a, b in there.items()}.get(number)
    assert to_inside(extents, number) == to_outside(invert(extents), number)


@given(maps())
def test_inverting_twice_gives_the_map_back(extents: list[Extent]) -> None:
    assert invert(invert(extents)) == extents


@given(maps())
def test_text_survives_a_round_trip(extents: list[Extent]) -> None:
    assert parse_map(format_map(extents)) == extents


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 10)), min_size=1, max_size=6)
)
def test_overlap_is_found_exactly_when_an_id_comes_twice(extents: list[Extent]) -> None:
    inside = [i + n for i, _, count in extents for n in range(count)]
    outside = [o + n for _, o, count in extents for n in range(count)]
    twice = len(set(inside)) < len(inside) or len(set(outside)) < len(outside)
    if twice:
        with pytest.raises(IdmapError) as caught:
            check(extents)
        assert caught.value.reason == "overlap"
    else:
        check(extents)


def test_overlapping_ranges_name_both_lines() -> None:
    with pytest.raises(IdmapError) as caught:
        check([(0, 1000, 1), (10, 100000, 100), (200, 100050, 10)], "gid")
    assert caught.value.message == (
        "gid map: line 2 (10:100000:100) and line 3 (200:100050:10) overlap outside, at 100050"
    )


def test_a_line_within_an_earlier_longer_one_is_found() -> None:
    with pytest.raises(IdmapError, match=r"line 1 .* and line 3 .* overlap inside, at 50"):
        check([(0, 1000, 100), (200, 5000, 1), (50, 7000, 1)])


@pytest.mark.parametrize(
    "extent",
    [(0, 0, 0), (-1, 0, 1), (0, -1, 1), (LAST_ID, 0, 2), (0, LAST_ID, 2), (LAST_ID + 1, 0, 1), (0, 1, -5)],
)
def test_a_line_out_of_range_is_named(extent: Extent) -> None:
    with pytest.raises(IdmapError, match="line 2") as caught:
        check([(5, 5, 1), extent])
    assert caught.value.reason == "bad-extent"


def test_the_last_id_can_be_mapped() -> None:
    check([(LAST_ID, LAST_ID, 1)])
    check([(0, 0, LAST_ID + 1)])


def test_an_empty_map_is_refused() -> None:
    with pytest.raises(IdmapError) as caught:
        check([])
    assert caught.value.reason == "empty-map"


def test_ids_missing_in_the_parent_are_named_with_what_there_is() -> None:
    with pytest.raises(IdmapError) as caught:
        split([(0, 0, 70000)], [(0, 1000, 1), (1, 100000, 65536)], "gid")
    assert caught.value.message == (
        "gid map: line 1 (0:0:70000): gid 65537 does not exist in this user namespace"
    )
    assert caught.value.hint == "this namespace has the gids 0, 1-65536: map only those"


def test_lines_adjacent_on_one_side_only_are_not_merged() -> None:
    assert merge([(0, 1000, 1), (1, 5000, 1)]) == [(0, 1000, 1), (1, 5000, 1)]
    assert merge([(0, 1000, 1), (5, 1001, 1)]) == [(0, 1000, 1), (5, 1001, 1)]


@pytest.mark.parametrize("text", [b"0 0", b"0 0 0 0", b"a b c", b"0 -1 1", b"0 0 1\n\n"])
def test_a_map_file_that_is_not_one_is_refused(text: bytes) -> None:
    with pytest.raises(IdmapError):
        parse_map(text)


def test_the_initial_namespaces_map_is_read() -> None:
    assert parse_map(b"         0          0 4294967295\n") == [(0, 0, 4294967295)]
    assert parse_map(b"") == []
