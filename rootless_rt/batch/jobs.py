"""Jobs, read from JSON lines and checked: one object a line, each field of the right type, ids that differ.

Knows what a job may ask for; must not know how it is run.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from rootless_rt.api.config import Limits
from rootless_rt.errors import RtError
from rootless_rt.spec.jsonio import parse, quote

BAD_INPUT = 2  # the exit status
MAX_LINE = 64 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Job:
    """One job: what differs from the bundle's process. None is what the bundle says, or no limit."""

    id: str
    args: list[str] | None = None
    env: dict[str, str | None] | None = None
    cwd: str | None = None
    stdin: bytes = b""
    timeout: float | None = None
    limits: Limits | None = None


def read_jobs(lines: Iterable[bytes], name: str) -> Iterator[Job]:
    """The jobs of a file called `name`; blank lines are left out, a missing id is the number of the line.

    Raises RtError, with the line's number, at the first line that is no job or has the id of another.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        if len(line) > MAX_LINE:
            raise _wrong(where, f"a line of more than {MAX_LINE >> 20} MiB")
        job = _job(_object(line, where), where, str(number))
        if job.id in seen:
            hint = "give each job an id of its own; without one it is the number of the line"
            raise _wrong(where, f"id {quote(job.id)} is that of line {seen[job.id]}", hint)
        seen[job.id] = number
        yield job


def _wrong(where: str, problem: str, hint: str | None = None) -> RtError:
    return RtError(f"{where}: {problem}", hint=hint, code=BAD_INPUT)


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = parse(line.rstrip(b"\r\n"), where)
    except RtError as error:
        message = error.message.replace(f"{where}: line 1 column", f"{where}: column", 1)
        raise RtError(message, hint=error.hint, code=BAD_INPUT) from None
    if not isinstance(value, dict):
        raise _wrong(where, "not a JSON object", 'a job is an object such as {"args": ["true"]}')
    return value


def _job(value: dict[str, Any], where: str, default_id: str) -> Job:
    job: dict[str, Any] = {"id": default_id}
    for key, item in value.items():
        check = _FIELDS.get(key)
        if check is None:
            known = ", ".join(_FIELDS)
            raise _wrong(where, f"{quote(key)} is no field of a job", f"the fields are {known}")
        try:
            job[_NAMES.get(key, key)] = check(item)
        except ValueError as error:
            raise _wrong(where, f"{key}{error}") from None
    if "stdin" in value and "stdin_base64" in value:
        raise _wrong(where, "stdin and stdin_base64 stand for the same", "give one of them")
    return Job(**job)


def _string(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(": expected a string" if not isinstance(value, str) else ": holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(": holds half a surrogate pair") from None
    return value


def _id(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = _string(value)
    if not text:
        raise ValueError(": empty")
    return text


def _args(value: object) -> list[str]:
    if not isinstance(value, list) or not value:
        raise ValueError(": expected a list of strings, the program first")
    return [_in(f"[{place}]", _string, item) for place, item in enumerate(value)]


def _in(where: str, check: Callable[[object], Any], value: object) -> Any:
    """What `check` makes of a part; its error names the part."""
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None


def _env(value: object) -> dict[str, str | None]:
    if not isinstance(value, dict):
        raise ValueError(": expected an object of names and values")
    for name in value:
        if not name or "=" in name or "\0" in name:
            raise ValueError(f": {quote(name)} cannot be the name of a variable")
    return {name: None if item is None else _in(f".{name}", _string, item) for name, item in value.items()}


def _cwd(value: object) -> str:
    path = _string(value)
    if not path.startswith("/"):
        raise ValueError(": expected an absolute path")
    return path


def _text(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError(": expected a string")
    return value.encode("utf-8", "surrogatepass")


def _base64(value: object) -> bytes:
    try:
        return base64.b64decode(_string(value), validate=True)
    except binascii.Error as error:
        raise ValueError(f": not base64: {error}") from None


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ValueError(": expected a number of seconds above 0")
    return float(value)


def _limits(value: object) -> Limits:
    if not isinstance(value, dict):
        raise ValueError(": expected an object of limits")
    known = [item.name for item in fields(Limits)]
    for name, item in value.items():
        if name not in known:
            raise ValueError(f".{name}: no such limit; there are {', '.join(known)}")
        kind, what = ((int, float), "number") if name == "cpus" else ((int,), "whole number")
        if isinstance(item, bool) or not isinstance(item, kind) or not 0 < item < 1 << 62:
            raise ValueError(f".{name}: expected a {what} above 0")
    return Limits(**value)


_FIELDS: dict[str, Callable[[object], Any]] = {
    "id": _id,
    "args": _args,
    "env": _env,
    "cwd": _cwd,
    "stdin": _text,
    "stdin_base64": _base64,
    "timeout": _seconds,
    "limits": _limits,
}
_NAMES = {"stdin_base64": "stdin"}
