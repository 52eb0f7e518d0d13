"""`linux.resources.devices`: the rules, made exact; and their enforcement by the v1 devices controller.

Source: runtime-spec config-linux.md "Allowed Device list", Documentation/admin-guide/cgroup-v1/devices.rst.
The rules count in their order, the last one that speaks of an access decides, and what no rule speaks of is
denied. The devices every container needs are allowed after them. Must not know v2.
"""

from __future__ import annotations

import errno

from rootless_rt.errors import RtError, SpecError

from . import fs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Rule = tuple[bool, str, int, int, int]
    """(allow, "a" | "b" | "c", major, minor, bits of access); -1: any number."""

MKNOD, READ, WRITE = 1, 2, 4
ALL = MKNOD | READ | WRITE
_LETTERS = {"m": MKNOD, "r": READ, "w": WRITE}

DEFAULT: tuple[Rule, ...] = (
    (True, "c", -1, -1, MKNOD),
    (True, "b", -1, -1, MKNOD),
    (True, "c", 1, 3, ALL),  # null
    (True, "c", 1, 5, ALL),  # zero
    (True, "c", 1, 7, ALL),  # full
    (True, "c", 1, 8, ALL),  # random
    (True, "c", 1, 9, ALL),  # urandom
    (True, "c", 5, 0, ALL),  # tty
    (True, "c", 5, 1, ALL),  # console
    (True, "c", 5, 2, ALL),  # ptmx
    (True, "c", 136, -1, ALL),  # pts/*
)
"""What every container may use: a node may be made of any device, which opens none of them."""


def compile_rules(rules: list[dict[str, Any]]) -> list[Rule]:
    """The rules of config.json, then `DEFAULT`. Raises SpecError with the rule's path."""
    out: list[Rule] = []
    for index, rule in enumerate(rules):
        where = f"linux.resources.devices[{index}]"
        allow = rule.get("allow", False)
        if not isinstance(allow, bool):
            raise SpecError(where + ".allow", "must be true or false")
        kind = rule.get("type") or "a"
        if kind == "u":
            kind = "c"
        if kind not in ("a", "b", "c"):
            raise SpecError(where + ".type", f"{kind!r} is none of a, b, c", hint="cgroups know only devices")
        access = rule.get("access") or "rwm"
        bits = 0
        for letter in access:
            if letter not in _LETTERS:
                raise SpecError(where + ".access", f"{access!r} is not made of r, w and m")
            bits |= _LETTERS[letter]
        out.append((allow, kind, _number(rule, where, "major"), _number(rule, where, "minor"), bits))
    out.extend(DEFAULT)
    return out


def _number(rule: dict[str, Any], where: str, name: str) -> int:
    value = rule.get(name)
    if value is None:
        return -1
    if not isinstance(value, int) or isinstance(value, bool) or not -1 <= value < 1 << 32:
        raise SpecError(f"{where}.{name}", "must be a device number, or -1 for all")
    return value


def v1_lines(rules: list[Rule]) -> tuple[bool, list[str]]:
    """(whether everything else is allowed, the exceptions as lines for devices.deny or devices.allow).

    The v1 controller keeps one default and a list of exceptions to it. Raises RtError for a rule that takes a
    part out of a wider exception, which such a list cannot say.
    """
    default = False
    exceptions: dict[tuple[str, int, int], int] = {}
    for allow, kind, major, minor, bits in rules:
        if (kind, major, minor, bits) == ("a", -1, -1, ALL):
            default = allow
            exceptions = {}
            continue
        for one in ("b", "c") if kind == "a" else (kind,):
            if allow != default:
                key = (one, major, minor)
                exceptions[key] = exceptions.get(key, 0) | bits
            else:
                _take(exceptions, one, major, minor, bits)
    return default, [_line(*key, bits) for key, bits in exceptions.items() if bits]


def _take(exceptions: dict[tuple[str, int, int], int], kind: str, major: int, minor: int, bits: int) -> None:
    for key, had in exceptions.items():
        if key[0] != kind or not had & bits:
            continue
        if major in (-1, key[1]) and minor in (-1, key[2]):
            exceptions[key] = had & ~bits
        elif (key[1] == -1 or major in (-1, key[1])) and (key[2] == -1 or minor in (-1, key[2])):
            raise RtError(
                f"linux.resources.devices: cgroup v1 cannot except {_line(kind, major, minor, bits)!r} "
                f"from {_line(*key, had)!r}",
                hint="name the devices instead of a wildcard, or use a host with cgroup v2",
            )


def _line(kind: str, major: int, minor: int, bits: int) -> str:
    numbers = ":".join("*" if number < 0 else str(number) for number in (major, minor))
    return f"{kind} {numbers} " + "".join(letter for letter in "rwm" if _LETTERS[letter] & bits)


def v1_writes(rules: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What enforces the rules: (file, text) in their order. Raises RtError."""
    default, lines = v1_lines(compile_rules(rules))
    first, then = ("devices.allow", "devices.deny") if default else ("devices.deny", "devices.allow")
    return [(first, "a"), *((then, line) for line in lines)]


def write_v1(path: str, rules: list[dict[str, Any]]) -> str | None:
    """Enforce the rules in the devices cgroup `path`; None, or why they are not as asked.

    EPERM at the first write means that we may not (the kernel wants CAP_SYS_ADMIN of the machine). EPERM at
    an exception means that the cgroup around us has no such access to give: the container has less than was
    asked, which is safe, and is said. Raises RtError.
    """
    (first, everything), *exceptions = v1_writes(rules)
    default = first == "devices.allow"
    try:
        fs.put(path + "/" + first, everything)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            return "device access is not limited as asked: the devices controller takes orders only from root"
        raise fs.failure("cannot set the device rules", path, error) from error
    withheld: list[str] = []
    for file, line in exceptions:
        try:
            fs.put(path + "/" + file, line)
        except OSError as error:
            if error.errno != errno.EPERM or default:
                raise fs.failure(f"cannot set the device rule {line!r}", path, error) from error
            withheld.append(line)
    if withheld:
        return "the surrounding cgroup does not grant access to devices: " + ", ".join(withheld)
    return None
