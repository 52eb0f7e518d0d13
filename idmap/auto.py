"""Ready-made maps from what a user has, and a free range for one who has none. Pure: opens nothing."""

from __future__ import annotations

from idmap.numbers import LAST_ID
from idmap.subid import parse_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from idmap.extents import Extent
    from idmap.subid import SubRange

FIRST_PROPOSED = 100000  # SUB_UID_MIN and SUB_GID_MIN of login.defs(5)
RANGE_SIZE = 65536  # SUB_UID_COUNT and SUB_GID_COUNT; all ids that images use, up to nobody and nogroup


def single(own: int, inside: int = 0) -> list[Extent]:
    """The map that needs no grant and no helper: the own id, as `inside`.

    >>> single(1000)
    [(0, 1000, 1)]
    """
    return [(inside, own, 1)]


def full(own: int, ranges: Sequence[SubRange], inside: int = 0) -> list[Extent]:
    """The own id as `inside`, and the granted ranges, in their order, as all other ids from 0 up.

    Ids that are granted twice, or that are the own id, are used once. With `inside` 0 the container's root is
    the user; with `inside` = `own` the user keeps the id ("keep-id").

    >>> full(1000, [(100000, 65536, 1)])
    [(0, 1000, 1), (1, 100000, 65536)]
    >>> full(1000, [(100000, 65536, 1)], inside=1000)
    [(0, 100000, 1000), (1000, 1000, 1), (1001, 101000, 64536)]
    """
    extents = [(inside, own, 1)]
    at = 0
    used = [(own, 1)]
    for start, count, _ in ranges:
        for first, length in _without(start, count, used):
            while length and at <= LAST_ID:
                if at == inside:
                    at += 1
                    continue
                room = (inside if at < inside else LAST_ID + 1) - at
                take = min(length, room)
                extents.append((at, first, take))
                at, first, length = at + take, first + take, length - take
        used.append((start, count))
    return sorted(extents)


def _without(start: int, count: int, used: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts of a range that none of the `used` ranges has, as (start, count)."""
    left: list[tuple[int, int]] = []
    at, end = start, start + count
    for first, length in sorted(used):
        if first + length <= at or first >= end:
            continue
        if first > at:
            left.append((at, first - at))
        at = max(at, first + length)
    if at < end:
        left.append((at, end - at))
    return left


def propose_range(
    files: Iterable[bytes], taken: Iterable[tuple[int, int]] = (), count: int = RANGE_SIZE
) -> tuple[int, int] | None:
    """The lowest `(start, count)` from 100000 up that no line of the subuid/subgid `files` (their bytes)
    grants to anybody and that meets no `(start, count)` of `taken`, such as ids of accounts; None when there
    is no room.

    >>> propose_range([b"alice:100000:65536\\n", b"bob:165536:65536\\n"])
    (231072, 65536)
    """
    ranges = [(start, length) for data in files for _, start, length, _ in parse_file(data)]
    at = FIRST_PROPOSED
    for start, length in sorted([*ranges, *taken]):
        if start >= at + count:
            break
        at = max(at, start + length)
    return (at, count) if at + count - 1 <= LAST_ID else None
