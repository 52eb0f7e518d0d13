"""Id mappings of mounts: the fields uidMappings and gidMappings, and the option idmap=uids=...;gids=....

A line (on_disk, outside, count) has the files of an id-mapped mount that belong to `on_disk` on their
filesystem belong to `outside`, an id of the runtime's user namespace (runtime-spec config.md, "Mounts";
mount_setattr(2), "ID-mapped mounts"). Opens nothing, and knows nothing of what the kernel lets a user do.
"""

from __future__ import annotations

from rootless_rt.errors import SpecError
from rootless_rt.spec.jsonio import quote
from rootless_rt.spec.names import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Extent = tuple[int, int, int]
    # lines, or None for those of the container's user namespace; a line's outside may be one of its ids
    Asked = list[tuple[Extent, bool]] | None

_KINDS = {"uids": "uidMappings", "gids": "gidMappings"}
_HINT = "such as idmap=uids=0-1000-1#1-100000-65536;gids=0-1000-1"


class MountIdmap:
    """What one mount asks for: `uids` and `gids`, and whether the mounts below it get it too."""

    __slots__ = ("gids", "recursive", "uids")

    def __init__(self, uids: Asked, gids: Asked, recursive: bool) -> None:
        self.uids = uids
        self.gids = gids
        self.recursive = recursive


def idmap_of(mount: dict[str, Any], where: str) -> MountIdmap | None:
    """What a mount of config.json asks for, or None. `where` is its JSON path. Raises SpecError.

    The fields win over what an option says, which wins over the container's own map.
    """
    asked: dict[str, Asked] = {"uidMappings": None, "gidMappings": None}
    found = recursive = False
    for index, word in enumerate(mount.get("options", [])):
        name, equals, text = word.partition("=")
        if name not in ("idmap", "ridmap"):
            continue
        found, recursive = True, name == "ridmap"
        if equals:
            asked.update(_parse(text, f"{where}.options[{index}]"))
    given = [field for field in asked if mount.get(field)]
    if len(given) == 1:
        missing = next(field for field in asked if field not in given)
        raise SpecError(f"{where}.{missing}", f"is needed beside {given[0]}")
    for field in given:
        lines = [((line["containerID"], line["hostID"], line["size"]), False) for line in mount[field]]
        asked[field] = lines
    if not (found or given):
        return None
    return MountIdmap(asked["uidMappings"], asked["gidMappings"], recursive)


def _parse(text: str, where: str) -> dict[str, Asked]:
    """uids=FROM-TO-COUNT#...;gids=...; with "@" in front TO is an id of the container."""
    found: dict[str, Asked] = {}
    for part in text.split(";"):
        kind, _, lines = part.partition("=")
        if kind not in _KINDS or _KINDS[kind] in found:
            raise SpecError(where, f"expected uids= and gids=, once each, got {quote(part)}", hint=_HINT)
        found[_KINDS[kind]] = [_line(line, where) for line in lines.split("#")]
    return found


def _line(text: str, where: str) -> tuple[Extent, bool]:
    numbers = [decimal(word) for word in text.removeprefix("@").split("-")]
    if len(numbers) != 3 or None in numbers:
        raise SpecError(where, f"expected FROM-TO-COUNT, got {quote(text)}", hint=_HINT)
    first, outside, count = (number or 0 for number in numbers)
    if not count or max(first, outside) + count > 0xFFFFFFFF:
        raise SpecError(where, f"{quote(text)} is not a range of ids", hint=_HINT)
    return (first, outside, count), text.startswith("@")
