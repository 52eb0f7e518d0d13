"""JSON in and out: every wrong document is one RtError line, every printed one is what Go would print."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless_rt.errors import RtError
from rootless_rt.spec.jsonio import dumps, parse, quote

SYNTAX_ERRORS = [
    (b"", "line 1 column 1: the document ends too early"),
    (b" \n ", "line 2 column 2: the document ends too early"),
    (b'{\n\t"a": ,\n}', "line 2 column 7: expected a value"),
    (b'{"a":1', "line 1 column 7: the document ends too early"),
    (b'{"a":', "line 1 column 6: the document ends too early"),
    (b"nul", "line 1 column 1: expected a value"),
    (b"[1,]", "line 1 column "),
    (b"{} x", "line 1 column 4: text after the end of the document"),
    (b"{}{}", "line 1 column 3: text after the end of the document"),
    (b'["\x01"]', "line 1 column 3: invalid control character"),
    (b'{"NaN": NaN}', "line 1 column 9: NaN is not JSON"),
    (b'["a\\"NaN", Infinity]', "line 1 column 12: Infinity is not JSON"),
    (b"[-Infinity]", "line 1 column 2: -Infinity is not JSON"),
    (b"\xef\xbb\xbf{}", "byte order mark"),
    (b'{"a":\n "\xff"}', "line 2 column 3: not valid UTF-8"),
    (b"{\x00}", "line 1 column 2"),
    (b"[1" + b"0" * 5000 + b"]", "line 1 column 2: the number has too many digits"),
    (b"[" * 200_000, "nested too deeply"),
    (b'{"a":' * 200_000, "nested too deeply"),
    ("\ufeff".encode("utf-16"), "not valid UTF-8"),
]


@pytest.mark.parametrize(("document", "problem"), SYNTAX_ERRORS, ids=lambda value: repr(value)[:30])
def test_a_syntax_error_is_one_line_with_its_place(document: bytes, problem: str) -> None:
    with pytest.raises(RtError) as caught:
        parse(document, "config.json")
    assert caught.value.message.startswith("config.json: ")
    assert problem in caught.value.message
    assert "\n" not in caught.value.message


def test_of_a_repeated_key_the_last_value_counts() -> None:
    assert parse(b'{"a": 1, "a": 2}', "x") == {"a": 2}


@given(st.binary())
def test_any_bytes_parse_or_raise_an_rt_error(data: bytes) -> None:
    try:
        parse(data, "x")
    except RtError as error:
        assert "\n" not in error.message


values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values, st.sampled_from(["", "\t", "  "]))
def test_what_is_printed_reads_back_and_is_utf_8(value: object, indent: str) -> None:
    text = dumps(value, indent)
    assert parse(text.encode(), "x") == value
    assert json.loads(text) == value


def test_compact_output_has_no_spaces_and_keeps_html_and_non_ascii() -> None:
    assert dumps({"a": [1, True, None], "<&>": "é"}) == '{"a":[1,true,null],"<&>":"é"}'


def test_indented_output_looks_like_go() -> None:
    assert dumps({"a": [1, {}], "b": [], "c": {"d": "x"}}, "  ") == (
        '{\n  "a": [\n    1,\n    {}\n  ],\n  "b": [],\n  "c": {\n    "d": "x"\n  }\n}'
    )


def test_bytes_that_are_not_utf_8_survive_as_escapes() -> None:
    path = b"/caf\xe9".decode("utf-8", "surrogateescape")
    text = dumps({"bundle": path})
    assert text == '{"bundle":"/caf\\udce9"}'
    assert parse(text.encode(), "x") == {"bundle": path}


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), float("inf"), b"x"])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(RtError):
        dumps(value)


def test_output_nested_too_deeply_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(RtError, match="nested too deeply"):
        dumps(value)


@given(st.text())
def test_a_quoted_text_is_one_printable_line(text: str) -> None:
    assert quote(text).isprintable()
