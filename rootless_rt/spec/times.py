"""The one form of time in state and lists: RFC 3339 with nanoseconds, UTC (as Go's RFC3339Nano)."""

from __future__ import annotations

import time


def rfc3339(seconds: int, nanoseconds: int = 0) -> str:
    """A time since the epoch as text; trailing zeros of the fraction are left out, as Go does."""
    year, month, day, hour, minute, second = time.gmtime(seconds)[:6]
    fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".") if nanoseconds else ""
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}{fraction}Z"


def now() -> str:
    """This moment."""
    return rfc3339(*divmod(time.time_ns(), 1_000_000_000))
