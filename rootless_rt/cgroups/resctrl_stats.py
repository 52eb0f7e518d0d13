"""What resctrl tells of a container's group: the part "intel_rdt" of `events`, in runc's shape.

Reads the group's files and those of `info` (kernel documentation, "User Interface for Resource Control
feature"); what is missing, or no number, is left out.
"""

from __future__ import annotations

import posix

from rootless_rt.spec.names import decimal

from . import resctrl
from .fs import read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CACHE_INFO = ("cbm_mask", "min_cbm_bits", "num_closids")
_BANDWIDTH_INFO = ("bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids")
# name of the part -> the counters in it
_COUNTERS = {"mbm_stats": ("mbm_total_bytes", "mbm_local_bytes"), "cmt_stats": ("llc_occupancy",)}


def collect(state: dict[str, Any], container_id: str, root: str = "/") -> dict[str, Any]:
    """The statistics of the group that a container's record names; {} where resctrl is not mounted."""
    group = resctrl.load(state, container_id, root)
    if group is None:
        return {}
    made: dict[str, Any] = {}
    for kind, prefix, info in (("L3", "l3_cache", _CACHE_INFO), ("MB", "mem_bw", _BANDWIDTH_INFO)):
        found = {name: number for name in info if (number := _info(f"{group.mount}/info/{kind}/{name}"))}
        if found:
            made[prefix + "_info"] = found
        for suffix, path in (("_schema_root", group.mount), ("_schema", group.path)):
            line = _line(path, kind)
            if line:
                made[prefix + suffix] = line
    place = group.monitor_path if group.monitor else group.path
    for part, counters in _COUNTERS.items():
        entries = [_counts(f"{place}/mon_data/{domain}", counters) for domain in _domains(place)]
        if any(entries):
            made[part] = entries
    return made


def _text(path: str) -> str:
    return (read_bytes(path) or b"").decode("ascii", "replace")


def _info(path: str) -> str | int | None:
    text = _text(path).strip()
    return text if path.endswith("cbm_mask") else decimal(text)


def _line(path: str, kind: str) -> str:
    for line in _text(f"{path}/schemata").split("\n"):
        if line.strip().startswith(kind + ":"):
            return line.strip()
    return ""


def _domains(place: str) -> list[str]:
    try:
        names = posix.listdir(place + "/mon_data")
    except OSError:
        return []
    return sorted(name for name in names if name.startswith("mon_L3_"))


def _counts(path: str, counters: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for name in counters:
        number = decimal(_text(f"{path}/{name}").strip())
        if number:
            found[name] = number
    return found
