"""Amounts as people type them on the command line: bytes ("64m"), durations ("1m30s"), signed numbers.

Pure. The forms are those that clients of Go's runtimes send: docker/go-units' sizes, of which 1024 is the
base, and Go's time.ParseDuration. Whatever is not one of them is refused, never guessed at.
"""

from __future__ import annotations

from rootless_rt.errors import RtError
from rootless_rt.spec.jsonio import quote
from rootless_rt.spec.names import decimal

_BINARY = "kmgtp"
_MOST_BYTES = (1 << 63) - 1
_DIGITS = 20  # of the part before or behind a point
# unit -> nanoseconds; the micro sign and the Greek letter look alike
_UNITS = {"ns": 1, "us": 10**3, "\u00b5s": 10**3, "\u03bcs": 10**3, "ms": 10**6, "s": 10**9}
_UNITS |= {"m": 60 * 10**9, "h": 3600 * 10**9}
_MOST_NANOSECONDS = (1 << 63) - 1


def whole(text: str) -> int:
    """A decimal number, perhaps negative. Raises RtError, without saying of what."""
    number = decimal(text.removeprefix("-"))
    if number is None:
        raise RtError(f"expected a whole number, got {quote(text)}")
    return -number if text.startswith("-") else number


def size(text: str) -> int:
    """Bytes: "67108864", "64m", "1.5 GiB" (k, m, g, t, p, of 1024 each, b and ib add nothing); "-1" is -1.

    Raises RtError, without saying of what.
    """
    if text == "-1":
        return -1
    end = len(text)
    while end and text[end - 1] not in "0123456789. ":
        end -= 1
    unit = text[end:].lower()
    digits = text[:end].removesuffix(" ") if unit else text
    if unit[:1] in _BINARY and unit[1:] in ("", "b", "ib") and unit:
        factor = 1 << 10 * (_BINARY.index(unit[0]) + 1)
    else:
        factor = 1 if unit in ("", "b") else 0
    number = _product(digits, factor)
    if number is None or not factor:
        raise RtError(f"expected bytes, such as 67108864 or 64m, or -1 for no limit, got {quote(text)}")
    if number > _MOST_BYTES:
        raise RtError(f"{quote(text)} is more bytes than the kernel counts")
    return number


def duration(text: str) -> int:
    """Nanoseconds: "5s", "1m30s", "1.5h", "500ms" (ns, us, ms, s, m, h); "0" is none.

    Raises RtError, without saying of what.
    """
    total = 0 if text in ("0", "") else _sum(text)
    if total is None or not text:
        raise RtError(f"expected a duration, such as 5s, 500ms or 1m30s, got {quote(text)}")
    if total > _MOST_NANOSECONDS:
        raise RtError(f"{quote(text)} is longer than can be counted")
    return total


def _sum(text: str) -> int | None:
    total = place = 0
    while place < len(text):
        start = place
        while place < len(text) and text[place] in "0123456789.":
            place += 1
        digits, start = text[start:place], place
        while place < len(text) and text[place] not in "0123456789.":
            place += 1
        factor = _UNITS.get(text[start:place])
        number = _product(digits, factor) if factor else None
        if number is None:
            return None
        total += number
    return total


def _product(digits: str, factor: int) -> int | None:
    """A decimal number, perhaps with a point, times `factor`, cut off; None where it is no such number."""
    before, _, behind = digits.partition(".")
    if len(behind) > _DIGITS or not (before or behind):
        return None
    number, part = decimal(before or "0"), decimal(behind or "0")
    if number is None or part is None:
        return None
    scale: int = 10 ** len(behind)
    return number * factor + part * factor // scale
