"""The one form of time."""

from __future__ import annotations

import pytest

from rootless_rt.spec.times import rfc3339


@pytest.mark.parametrize(
    ("seconds", "nanoseconds", "wanted"),
    [
        (0, 0, "1970-01-01T00:00:00Z"),
        (0, 500_000_000, "1970-01-01T00:00:00.5Z"),
        (1767323045, 123456789, "2026-01-02T03:04:05.123456789Z"),
        (1767323045, 120, "2026-01-02T03:04:05.00000012Z"),
        (1767323045, 1_000_000, "2026-01-02T03:04:05.001Z"),
    ],
)
def test_a_time_is_written_without_the_last_zeros_of_its_fraction(
    seconds: int, nanoseconds: int, wanted: str
) -> None:
    assert rfc3339(seconds, nanoseconds) == wanted
