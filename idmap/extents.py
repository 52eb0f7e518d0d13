"""The algebra of map lines: pure functions on lists of `(inside, outside, count)`.

Knows the kernel's rules for /proc/PID/uid_map and gid_map (user_namespaces(7)); opens nothing.
"""

from __future__ import annotations

from idmap.errors import IdmapError
from idmap.numbers import LAST_ID, MAX_COUNT, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Extent = tuple[int, int, int]

MAX_EXTENTS = 340  # UID_GID_MAP_MAX_EXTENTS of the kernel since 4.15
IDENTITY = (0, 0, MAX_COUNT)  # the map of the initial user namespace


def show(extent: Extent) -> str:
    """One extent as people write it.

    >>> show((0, 100000, 65536))
    '0:100000:65536'
    """
    return f"{extent[0]}:{extent[1]}:{extent[2]}"


def check(extents: Sequence[Extent], kind: str = "uid") -> None:
    """Raise IdmapError unless the kernel could take these lines: some, in range, none overlapping another.

    `kind` ("uid" or "gid") serves the messages; lines are counted from 1. Reasons: `empty-map`, `bad-extent`,
    `overlap`.

    >>> check([(0, 1000, 1), (1, 100000, 65536)])
    >>> check([(0, 1000, 2), (1, 100000, 65536)])
    Traceback (most recent call last):
    idmap.errors.IdmapError: uid map: line 1 (0:1000:2) and line 2 (1:100000:65536) overlap inside, at 1
    """
    if not extents:
        raise IdmapError(f"{kind} map: no lines", reason="empty-map")
    for number, (inside, outside, count) in enumerate(extents, 1):
        if inside < 0 or outside < 0 or count < 1 or max(inside, outside) + count - 1 > LAST_ID:
            raise IdmapError(
                f"{kind} map: line {number} ({show((inside, outside, count))}) must count at least one id, "
                f"none above {LAST_ID}",
                reason="bad-extent",
            )
    if len(extents) == 1:
        return
    for side, word in ((0, "inside"), (1, "outside")):
        order = sorted(range(len(extents)), key=lambda index: extents[index][side])
        reach = order[0]  # the line, of those met so far, that reaches furthest
        for index in order[1:]:
            if extents[reach][side] + extents[reach][2] > extents[index][side]:
                first, second = sorted((reach, index))
                raise IdmapError(
                    f"{kind} map: line {first + 1} ({show(extents[first])}) and line {second + 1} "
                    f"({show(extents[second])}) overlap {word}, at {extents[index][side]}",
                    reason="overlap",
                )
            reach = index


def merge(extents: Sequence[Extent]) -> list[Extent]:
    """The same map in as few lines as possible, in the order of the inside ids.

    >>> merge([(1, 100000, 9), (10, 100009, 5), (0, 1000, 1)])
    [(0, 1000, 1), (1, 100000, 14)]
    """
    merged: list[Extent] = []
    for extent in sorted(extents):
        if merged:
            inside, outside, count = merged[-1]
            if inside + count == extent[0] and outside + count == extent[1]:
                merged[-1] = (inside, outside, count + extent[2])
                continue
        merged.append(extent)
    return merged


def split(extents: Sequence[Extent], parent: Sequence[Extent], kind: str = "uid") -> list[Extent]:
    """The same map cut where the parent's lines end: the kernel takes no line that spans two lines of the
    parent.

    `parent` is the map of the namespace in which the outside ids are meant, as its processes read it; only
    its inside ids count. An outside id that the parent does not have raises `not-in-parent`, with the line.

    >>> split([(0, 0, 10)], [(0, 1000, 1), (1, 100000, 65536)])
    [(0, 0, 1), (1, 1, 9)]
    >>> split([(0, 70000, 1)], [(0, 1000, 1), (1, 100000, 65536)])
    Traceback (most recent call last):
    idmap.errors.IdmapError: uid map: line 1 (0:70000:1): uid 70000 does not exist in this user namespace
    """
    pieces: list[Extent] = []
    ordered = sorted(parent)
    for number, (inside, outside, count) in enumerate(extents, 1):
        at, end = outside, outside + count
        for start, _, length in ordered:
            if start <= at < start + length:
                take = min(end, start + length) - at
                pieces.append((inside + at - outside, at, take))
                at += take
                if at == end:
                    break
        if at < end:
            raise IdmapError(
                f"{kind} map: line {number} ({show((inside, outside, count))}): "
                f"{kind} {at} does not exist in this user namespace",
                reason="not-in-parent",
                hint=f"this namespace has the {kind}s {_spans(ordered)}: map only those",
            )
    return pieces


def _spans(parent: Sequence[Extent]) -> str:
    spans = [f"{start}-{start + length - 1}" if length > 1 else f"{start}" for start, _, length in parent[:6]]
    return (", ".join(spans) or "(none)") + (" …" if len(parent) > 6 else "")


def to_outside(extents: Sequence[Extent], number: int) -> int | None:
    """The id outside of the id `number` inside; None when it is not mapped.

    >>> to_outside([(0, 1000, 1), (1, 100000, 65536)], 33)
    100032
    """
    for inside, outside, count in extents:
        if inside <= number < inside + count:
            return outside + number - inside
    return None


def to_inside(extents: Sequence[Extent], number: int) -> int | None:
    """The id inside of the id `number` outside; None when it is not mapped.

    >>> to_inside([(0, 1000, 1), (1, 100000, 65536)], 100032)
    33
    """
    for inside, outside, count in extents:
        if outside <= number < outside + count:
            return inside + number - outside
    return None


def invert(extents: Sequence[Extent]) -> list[Extent]:
    """The map in the other direction.

    >>> invert([(0, 1000, 1)])
    [(1000, 0, 1)]
    """
    return [(outside, inside, count) for inside, outside, count in extents]


def parse_map(text: bytes) -> list[Extent]:
    """The extents in the text of a /proc/PID/uid_map or gid_map; raises `not-a-number` or `bad-extent`.

    >>> parse_map(b"         0       1000          1\\n")
    [(0, 1000, 1)]
    """
    extents: list[Extent] = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) != 3:
            shown = line[:40].decode("utf-8", "backslashreplace")
            raise IdmapError(f"map line {shown!r} does not have three numbers", reason="bad-extent")
        inside, outside, count = fields
        extents.append((parse(inside), parse(outside), parse(count, "count", MAX_COUNT)))
    return extents


def format_map(extents: Sequence[Extent]) -> bytes:
    """The text that the kernel's map files take, in as few bytes as it can be said.

    >>> format_map([(0, 1000, 1), (1, 100000, 65536)])
    b'0 1000 1\\n1 100000 65536\\n'
    """
    return "".join([f"{inside} {outside} {count}\n" for inside, outside, count in extents]).encode()
