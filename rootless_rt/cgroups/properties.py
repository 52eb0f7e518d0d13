"""Properties of a systemd unit: those that say linux.resources, and those that annotations give.

systemd keeps the cgroup files of its units as its properties say, and writes them again when it is reloaded:
a limit that it does not know of would be lost. Each property is (name, D-Bus signature, value). Pure.
Sources: systemd.resource-control(5), org.freedesktop.systemd1(5), the GVariant text format.
"""

from __future__ import annotations

from rootless_rt.errors import SpecError
from rootless_rt.spec.jsonio import quote

from .limits import swap_beside
from .limits_v2 import io_weight_of, weight_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Property = tuple[str, str, Any]

PREFIX = "org.systemd.property."
INFINITY = 0xFFFFFFFFFFFFFFFF
_SECOND = 1000000  # microseconds
_STEP = 10000  # systemd rounds CPU time to this many microseconds a second
# Since which version systemd knows a property (its NEWS); a unit with an unknown one is refused.
_SINCE = {"AllowedCPUs": 244, "AllowedMemoryNodes": 244, "CPUQuotaPeriodUSec": 242, "CPUWeight0": 252}


def limits_as_properties(resources: dict[str, Any], version: int, *, v2: bool = True) -> list[Property]:
    """The properties that say the same as a checked `linux.resources`, for this version of systemd.

    What systemd has no property for is left out: that is only written to the files.
    """
    made: list[Property] = []
    memory, cpu = resources.get("memory", {}), resources.get("cpu", {})
    if memory.get("limit"):
        made.append(("MemoryMax" if v2 else "MemoryLimit", "t", _unsigned(memory["limit"])))
    if v2:
        if memory.get("reservation"):
            made.append(("MemoryLow", "t", _unsigned(memory["reservation"])))
        swap = swap_beside(memory)
        if swap is not None:
            made.append(("MemorySwapMax", "t", _unsigned(swap)))
    made += _cpu(cpu, version, v2)
    pids = resources.get("pids", {}).get("limit")
    if pids is not None:
        made.append(("TasksMax", "t", _unsigned(-1 if pids < 0 else max(pids, 1))))
    weight = resources.get("blockIO", {}).get("weight")
    if weight:
        made.append(("IOWeight", "t", io_weight_of(weight)) if v2 else ("BlockIOWeight", "t", weight))
    return made


def _cpu(cpu: dict[str, Any], version: int, v2: bool) -> list[Property]:
    made: list[Property] = []
    if v2 and cpu.get("idle"):
        if version >= _SINCE["CPUWeight0"]:
            made.append(("CPUWeight", "t", 0))  # "idle"
    elif cpu.get("shares"):
        made.append(("CPUWeight", "t", weight_of(cpu["shares"])) if v2 else ("CPUShares", "t", cpu["shares"]))
    quota, period = cpu.get("quota", 0), cpu.get("period", 0)
    if period and version >= _SINCE["CPUQuotaPeriodUSec"]:
        made.append(("CPUQuotaPeriodUSec", "t", period))
    if quota:
        a_second = INFINITY
        if quota > 0:
            # Rounded up, as systemd itself does: a container gets no less than it asked for.
            a_second = -(-quota * _SECOND // (period or 100000) // _STEP) * _STEP
        made.append(("CPUQuotaPerSecUSec", "t", a_second))
    if v2:
        for field, name in (("cpus", "AllowedCPUs"), ("mems", "AllowedMemoryNodes")):
            if cpu.get(field) and version >= _SINCE[name]:
                made.append((name, "ay", mask_of(cpu[field])))
    return made


def _unsigned(number: int) -> int:
    return INFINITY if number == -1 else number


def mask_of(text: str) -> bytes:
    """A list such as "0-1,9" as systemd's bit mask: bit n of byte n/8, as many bytes as it takes."""
    mask = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        # Not more than a machine can have: the numbers are the config's.
        low, high = min(int(first), 8191), min(int(last or first), 8191)
        mask |= (1 << high + 1) - (1 << low)
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def from_annotations(annotations: dict[str, str]) -> list[Property]:
    """The properties that annotations `org.systemd.property.NAME` give. Raises SpecError with the path.

    A name that ends in "Sec" is one in seconds, for the property in microseconds ("USec"), as in unit files.
    """
    made = []
    for key, text in annotations.items():
        if not key.startswith(PREFIX):
            continue
        where = f"annotations[{quote(key)}]"
        name = key.removeprefix(PREFIX)
        if not (name.isascii() and name.isalnum() and name[:1].isupper()):
            raise SpecError(where, "expected the name of a unit's property behind the prefix")
        if name in _OURS:
            raise SpecError(where, f"{name} is the runtime's to set")
        signature, value = parse_value(text, where)
        if name.endswith("Sec") and not name.endswith("USec"):
            if signature not in _NUMBERS:
                raise SpecError(where, f"expected a number of seconds, got {quote(text)}")
            name, signature, value = name.removesuffix("Sec") + "USec", "t", round(value * _SECOND)
            if not 0 <= value <= INFINITY:
                raise SpecError(where, f"{quote(text)} is no time that systemd can have")
        made.append((name, signature, value))
    return made


_OURS = ("PIDs", "Delegate", "Slice", "ControlGroup")
_WORDS = {
    "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t",
    "double": "d",
}  # fmt: skip
_NUMBERS = "ynqiuxtd"
_RANGES = {
    "y": (0, 8, False), "n": (0, 16, True), "q": (0, 16, False), "i": (0, 32, True), "u": (0, 32, False),
    "x": (0, 64, True), "t": (0, 64, False),
}  # fmt: skip


def parse_value(text: str, where: str) -> tuple[str, Any]:
    """(signature, value) of a GVariant text: a boolean, a number, a string, or an array of them.

    A number without a type is an int32, or a double with a point. Raises SpecError.
    """
    word = text.strip()
    if word in ("true", "false"):
        return "b", word == "true"
    if word[:1] in ("'", '"'):
        parts, rest = _string(word, where)
        if rest.strip():
            raise _wrong(text, where)
        return "s", parts
    if word.startswith("["):
        return _array(word, where)
    kind, _, number = word.rpartition(" ")
    signature = _WORDS.get(kind.strip()) if kind else ("d" if "." in number else "i")
    if signature is None:
        raise _wrong(text, where)
    return signature, _number(number, signature, where)


def _wrong(text: str, where: str) -> SpecError:
    return SpecError(
        where, f"cannot read {quote(text)}", hint="such as true, 'text', uint64 5, or ['one', 'two']"
    )


def _number(text: str, signature: str, where: str) -> Any:
    digits = text.removeprefix("-")
    plain = digits.replace(".", "", 1) if signature == "d" else digits
    if not (plain.isascii() and plain.isdigit()) or len(text) > 24:
        raise _wrong(text, where)
    if signature == "d":
        return float(text)
    _, bits, signed = _RANGES[signature]
    value = int(text)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= value <= high:
        raise SpecError(where, f"{quote(text)} is out of the range of its type")
    return value


def _string(text: str, where: str) -> tuple[str, str]:
    """The string that begins `text`, and what follows it."""
    mark, value, at = text[0], "", 1
    while at < len(text):
        char = text[at]
        if char == mark:
            return value, text[at + 1 :]
        if char == "\\" and at + 1 < len(text):
            at += 1
            char = {"n": "\n", "t": "\t"}.get(text[at], text[at])
        value += char
        at += 1
    raise _wrong(text, where)


def _array(text: str, where: str) -> tuple[str, Any]:
    rest = text[1:].strip()
    values: list[Any] = []
    kinds: set[str] = set()
    while not rest.startswith("]"):
        if rest[:1] in ("'", '"'):
            value, rest = _string(rest, where)
            kind = "s"
        else:
            ends = [at for at in (rest.find(","), rest.find("]")) if at >= 0]
            if not ends:
                raise _wrong(text, where)
            kind, value = parse_value(rest[: min(ends)], where)
            rest = rest[min(ends) :]
        # A type before the first number is that of all.
        if values and kind == "i" and kinds <= set("ynquxt") and len(kinds) == 1:
            kind = next(iter(kinds))
        values.append(value)
        kinds.add(kind)
        rest = rest.strip()
        if rest.startswith(","):
            rest = rest[1:].strip()
        elif not rest.startswith("]"):
            raise _wrong(text, where)
    if rest != "]" or len(kinds) > 1:
        raise _wrong(text, where)
    kind = kinds.pop() if kinds else "s"
    return "a" + kind, bytes(values) if kind == "y" else values
