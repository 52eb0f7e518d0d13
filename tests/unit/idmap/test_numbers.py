"""Numbers from outside text are plain ASCII decimals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idmap.errors import IdmapError
from idmap.numbers import LAST_ID, parse


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "+1",
        "-1",
        "1_0",
        "0x10",
        "1.0",
        "\u0661",
        "²",
        "4294967295",
        "99999999999",
        "1\n",
        "\udc80",
        "1\0",
    ],
)
def test_anything_but_digits_in_range_is_refused(text: str) -> None:
    with pytest.raises(IdmapError) as caught:
        parse(text)
    assert caught.value.reason == "not-a-number"


@given(st.integers(0, LAST_ID))
def test_every_id_survives_its_own_spelling(number: int) -> None:
    assert parse(str(number)) == number
    assert parse(str(number).encode()) == number


def test_the_error_names_what_was_read() -> None:
    with pytest.raises(IdmapError, match="uid 'abc'"):
        parse("abc", "uid")


def test_huge_text_is_refused_quickly_and_shown_short() -> None:
    with pytest.raises(IdmapError) as caught:
        parse("9" * 100_000)
    assert len(caught.value.message) < 120
