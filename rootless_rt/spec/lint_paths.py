"""Paths and mount options, as the rules of `lint` compare them. By their text: nothing is looked up."""

from __future__ import annotations

from rootless_rt.errors import SpecError
from rootless_rt.spec.mountopts import ATTR_RDONLY, parse_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def normal(path: str) -> str:
    """An absolute path without "." and "..", and with /run for /var/run, which is a link to it."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    if parts[:2] == ["var", "run"]:
        del parts[0]
    return "/" + "/".join(parts)


def is_below(path: str, place: str) -> bool:
    """Whether a normal path is the place or below it."""
    return path == place or path.startswith(place.rstrip("/") + "/")


def is_readonly(mount: dict[str, Any]) -> bool:
    """Whether a mount is read-only, at least at its top."""
    try:
        options = parse_options(mount.get("options", []), "", mount.get("type", ""))
    except SpecError:
        return False
    return bool((options.attr_set | options.tree_set) & ATTR_RDONLY) and not options.tree_clr & ATTR_RDONLY
