"""New values for `linux.resources`: put into those a container has, completed where one needs another.

Pure. Knows which values ask for nothing (engines send whole objects of zeros), and which limits the kernel
takes only together. Must not know files; the values have passed `spec.schema.RESOURCES`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Resources = dict[str, Any]

# Fields of which 0, or an empty text, means "as it is"; in other fields 0 is a value like others.
_NOTHING_IF_ZERO = {
    "memory": ("limit", "reservation", "swap", "kernel", "kernelTCP"),
    "cpu": ("shares", "quota", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems"),
    "blockIO": ("weight", "leafWeight"),
    "network": ("classID",),
    "pids": (),
}
_MAPS = ("rdma", "unified")
_SHARES = 1024  # the kernel's own choice
# How limits that somebody else keeps in mind are taken off again.
_NO_LIMIT = {
    "memory": {"limit": -1, "swap": -1},
    "cpu": {"quota": -1, "shares": _SHARES},
    "pids": {"limit": -1},
}


def asked_of(given: Resources) -> Resources:
    """What of `given` asks for something: not its zeros, its empty objects, nor its device rules.

    Device rules stay as the container was made with; engines send them along with every update.
    """
    found: Resources = {}
    for section, value in given.items():
        if section in _NOTHING_IF_ZERO:
            skipped = _NOTHING_IF_ZERO[section]
            value = {name: item for name, item in value.items() if item or name not in skipped}
            value = {name: item for name, item in value.items() if item != []}
        elif section not in (*_MAPS, "hugepageLimits"):
            continue
        if value:
            found[section] = value
    return found


def merged(current: Resources, asked: Resources) -> Resources:
    """The container's resources with what is asked in their place; neither argument is changed."""
    result = {section: value for section, value in current.items() if section != "devices"}
    for section, value in asked.items():
        if section == "hugepageLimits":
            result[section] = _by_key(result.get(section, []), value, lambda item: item["pageSize"])
            continue
        mine = dict(result.get(section, {}))
        for name, item in value.items():
            if name == "priorities":
                item = _by_key(mine.get(name, []), item, lambda entry: entry["name"])
            elif isinstance(item, list):
                item = _by_key(mine.get(name, []), item, lambda entry: (entry["major"], entry["minor"]))
            mine[name] = item
        result[section] = mine
    return result


def _by_key(old: list[Any], new: list[Any], key: Callable[[Any], object]) -> list[Any]:
    """The items of both lists; of two with the same key, the new one."""
    found = {key(item): item for item in old}
    found.update((key(item), item) for item in new)
    return list(found.values())


def completed(current: Resources, asked: Resources) -> Resources:
    """`asked` with those values of `current` that the kernel must be told again, or that follow from it.

    The limit of memory and swap counts both, so each limit is written with the other; quota, period and
    burst are one value; a container has either shares or is idle.
    """
    result = {**asked}
    if "memory" in asked:
        result["memory"] = _memory(current.get("memory", {}), asked["memory"])
    if "cpu" in asked:
        result["cpu"] = _cpu(current.get("cpu", {}), asked["cpu"])
    return result


def before(current: Resources, asked: Resources) -> Resources:
    """The container's resources without what is `asked`, said so that it also takes off new limits."""
    result = {**current}
    for section, values in _NO_LIMIT.items():
        new = {name: none for name, none in values.items() if name in asked.get(section, {})}
        if new:
            result[section] = {**new, **asked_of(current).get(section, {})}
    return result


def _memory(current: Resources, asked: Resources) -> Resources:
    result = {**asked}
    if asked.get("limit") == -1 and "swap" not in asked:
        result["swap"] = -1
    elif "limit" in asked and "swap" not in asked and current.get("swap", 0) > 0:
        result["swap"] = current["swap"]
    elif "swap" in asked and "limit" not in asked and current.get("limit"):
        result["limit"] = current["limit"]
    return result


def _cpu(current: Resources, asked: Resources) -> Resources:
    result = {**asked}
    band = ("quota", "period", "burst")
    if any(name in asked for name in band):
        for name in band:
            if name not in asked and current.get(name):
                result[name] = current[name]
    if asked.get("idle") == 0 and "shares" not in asked and (current.get("shares") or current.get("idle")):
        result["shares"] = current.get("shares") or _SHARES
    elif "shares" in asked and "idle" not in asked and current.get("idle"):
        result["idle"] = 0
    return result
