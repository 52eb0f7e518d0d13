"""Ready-made maps and proposed ranges."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from idmap.auto import full, propose_range, single
from idmap.extents import check, merge, to_inside, to_outside
from idmap.numbers import LAST_ID
from idmap.subid import parse_file

ranges = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60), st.just(1)), max_size=6)


def test_the_own_id_alone() -> None:
    assert single(1000) == [(0, 1000, 1)]
    assert single(1000, 1000) == [(1000, 1000, 1)]


def test_several_ranges_follow_each_other_inside() -> None:
    assert full(1000, [(100000, 10, 1), (300000, 5, 2)]) == [(0, 1000, 1), (1, 100000, 10), (11, 300000, 5)]


def test_no_ranges_leave_the_own_id() -> None:
    assert full(1000, []) == [(0, 1000, 1)]


def test_the_own_id_can_be_kept_with_few_ids_before_it() -> None:
    assert full(1000, [(100000, 10, 1)], inside=1000) == [(0, 100000, 10), (1000, 1000, 1)]


def test_ids_granted_twice_are_mapped_once() -> None:
    extents = full(1000, [(100000, 10, 1), (100005, 10, 2)])
    assert merge(extents) == [(0, 1000, 1), (1, 100000, 15)]


def test_the_own_id_within_a_range_is_mapped_once() -> None:
    assert full(1000, [(999, 3, 1)]) == [(0, 1000, 1), (1, 999, 1), (2, 1001, 1)]


@given(st.integers(0, 300), ranges, st.integers(0, 100))
def test_full_maps_are_valid_and_use_every_granted_id_once(
    own: int, grants: list[tuple[int, int, int]], inside: int
) -> None:
    extents = full(own, grants, inside)
    check(extents)
    ids = {own} | {start + i for start, count, _ in grants for i in range(count)}
    assert sum(count for _, _, count in extents) == len(ids)
    assert all(to_inside(extents, number) is not None for number in ids)
    assert to_outside(extents, inside) == own


@given(st.integers(0, 300), ranges, st.integers(0, 100))
def test_full_maps_leave_no_hole_but_before_the_own_id(
    own: int, grants: list[tuple[int, int, int]], inside: int
) -> None:
    mapped = sorted(i + n for i, _, count in full(own, grants, inside) for n in range(count))
    others = [n for n in mapped if n != inside]
    assert others == [n for n in range(len(others) + 1) if n != inside][: len(others)]


def test_a_proposal_begins_where_useradd_begins() -> None:
    assert propose_range([]) == (100000, 65536)


def test_a_proposal_takes_the_first_gap_that_is_large_enough() -> None:
    assert propose_range([b"a:100000:65536\nb:165600:65536\n", b"c:300000:65536\n"]) == (231136, 65536)


def test_a_proposal_avoids_accounts() -> None:
    assert propose_range([], [(120000, 1)]) == (120001, 65536)


def test_there_may_be_no_room() -> None:
    assert propose_range([f"a:100000:{LAST_ID - 100000 - 5}\n".encode()]) is None


@given(st.lists(st.tuples(st.integers(90000, 10**6), st.integers(1, 10**5)), max_size=8))
def test_a_proposal_overlaps_nobody(taken: list[tuple[int, int]]) -> None:
    data = "".join(f"u{n}:{start}:{count}\n" for n, (start, count) in enumerate(taken)).encode()
    proposed = propose_range([data])
    assert proposed is not None
    start, count = proposed
    assert start >= 100000 and count == 65536
    assert all(first + length <= start or start + count <= first for _, first, length, _ in parse_file(data))
