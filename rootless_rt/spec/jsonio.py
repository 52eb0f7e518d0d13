"""JSON in and out for the hot path, through CPython's C scanner: importing the `json` package takes 7 ms.

Knows RFC 8259 and how Go prints JSON (engines compare and parse our output). Knows nothing of config.json's
fields: see `schema`. The `json.decoder` module is imported only after a syntax error, to learn its position.
"""

from __future__ import annotations

import _json
import sys

from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_SPACE = " \t\n\r"
_QUOTE_LIMIT = 200
_CONSTANTS = {None: "null", True: "true", False: "false"}


class _NotJson(ValueError):
    """NaN, Infinity and -Infinity: Python's scanner offers them, RFC 8259 has no such values."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NotJson(name)


class _Settings:
    """What the C scanner reads from its argument: strict strings, plain dicts, ints and floats."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)


_SETTINGS: Any = _Settings


def parse(data: bytes, what: str) -> object:
    """Parse one JSON document in UTF-8; of a repeated key the last value counts, as in Go.

    `what` names the document in errors, such as "config.json". Strings may hold U+0000 and lone surrogates
    when they were written as escapes: `schema.check` refuses them with their path. Raises RtError
    "config.json: line 3 column 5: problem".
    """
    if data.startswith(b"\xef\xbb\xbf"):
        raise RtError(
            f"{what}: starts with a byte order mark", hint="save it as UTF-8 without a byte order mark"
        )
    try:
        text = str(data, "utf-8")
    except UnicodeDecodeError as exc:
        good = str(data[: exc.start], "utf-8")
        raise _error(what, good, len(good), "not valid UTF-8") from None
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _json.make_scanner(_SETTINGS)(text, start)
    except (StopIteration, ValueError, SystemError, ImportError, RecursionError, MemoryError):
        raise _explain(what, text, start) from None
    rest = text[end:].lstrip(_SPACE)
    if rest:
        raise _error(what, text, len(text) - len(rest), "text after the end of the document")
    return value


def _explain(what: str, text: str, start: int) -> RtError:
    """Parse `text`, known to be wrong, once more for the cause and its place.

    The C scanner builds its exceptions from `json.decoder` and, before Python 3.13, only if someone else
    loaded it.
    """
    import json.decoder

    try:
        _json.make_scanner(_SETTINGS)(text, start)
    except StopIteration as exc:
        place = exc.value
        return _error(
            what, text, place, "expected a value" if place < len(text) else "the document ends too early"
        )
    except json.decoder.JSONDecodeError as exc:
        problem = exc.msg[:1].lower() + exc.msg[1:]
        return _error(what, text, exc.pos, "the document ends too early" if exc.pos >= len(text) else problem)
    except _NotJson as exc:
        return _error(what, text, _outside_strings(text, str(exc)), f"{exc} is not JSON")
    except ValueError:
        return _error(what, text, _long_number(text), "the number has too many digits")
    except (RecursionError, MemoryError):
        return RtError(f"{what}: line 1 column {start + 1}: arrays and objects are nested too deeply")
    return RtError(f"{what}: not valid JSON")


def _error(what: str, text: str, place: int, problem: str) -> RtError:
    """`place` is an index into `text`; lines and columns (in characters) count from 1."""
    line = text.count("\n", 0, place) + 1
    column = place - text.rfind("\n", 0, place)
    return RtError(f"{what}: line {line} column {column}: {problem}")


def _outside_strings(text: str, token: str) -> int:
    """The index of the first `token` that is not part of a string."""
    inside = False
    place = 0
    while place < len(text):
        char = text[place]
        if inside and char == "\\":
            place += 1
        elif char == '"':
            inside = not inside
        elif not inside and text.startswith(token, place):
            return place
        place += 1
    return 0


def _long_number(text: str) -> int:
    """The index of the first run of more digits than int() takes (see sys.set_int_max_str_digits)."""
    limit = sys.get_int_max_str_digits()
    run = 0
    for place, char in enumerate(text):
        run = run + 1 if char in "0123456789" else 0
        if run > limit:
            return place - limit
    return 0


def dumps(obj: object, indent: str = "") -> str:
    """Print dicts (string keys), lists, tuples, strings, numbers, booleans and None as Go's encoder does.

    Compact without `indent`, else one item a line. Non-ASCII and < > & stay as they are. A byte that is not
    UTF-8 (a lone surrogate, in Python) is printed as an escape that `parse` reads back. No newline at the
    end. Raises RtError for anything else, or when nested too deeply.
    """
    parts: list[str] = []
    try:
        _dump(obj, indent, "\n", parts)
    except RecursionError:
        raise RtError("cannot print JSON: nested too deeply") from None
    text = "".join(parts)
    return text if text.isascii() else str(text.encode("utf-8", "backslashreplace"), "utf-8")


def _dump(obj: object, indent: str, newline: str, parts: list[str]) -> None:
    kind = type(obj)
    if isinstance(obj, str):
        parts.append(_json.encode_basestring(obj))
    elif obj is None or kind is bool:
        parts.append(_CONSTANTS[obj])  # type: ignore[index]
    elif kind is int or (isinstance(obj, float) and obj - obj == 0):
        parts.append(repr(obj))
    elif isinstance(obj, (list, tuple)):
        if not obj:
            parts.append("[]")
            return
        deeper = newline + indent
        opening = "["
        for item in obj:
            parts.append(opening + deeper if indent else opening)
            _dump(item, indent, deeper, parts)
            opening = ","
        parts.append(newline + "]" if indent else "]")
    elif isinstance(obj, dict):
        if not obj:
            parts.append("{}")
            return
        deeper = newline + indent
        opening = "{"
        for key, item in obj.items():
            name = _json.encode_basestring(key)
            parts.append(f"{opening}{deeper}{name}: " if indent else f"{opening}{name}:")
            _dump(item, indent, deeper, parts)
            opening = ","
        parts.append(newline + "}" if indent else "}")
    else:
        raise RtError(f"cannot print a {kind.__name__} as JSON")


def quote(text: str) -> str:
    """`text` in quotes for an error line: always one printable line, long texts cut short."""
    if len(text) > _QUOTE_LIMIT:
        text = text[: _QUOTE_LIMIT - 3] + "..."
    if text.isprintable():
        quoted: str = _json.encode_basestring(text)
    else:
        quoted = _json.encode_basestring_ascii(text)
    return quoted
