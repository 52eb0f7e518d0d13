"""What a cgroup has counted of a container that has ended: the peak of its memory, kills for lack of it."""

from __future__ import annotations

from rootless_rt import cgroups
from rootless_rt.api.process import Ending
from rootless_rt.cgroups import fs
from rootless_rt.cgroups.change import folder_of
from rootless_rt.cgroups.stats import flat, single

_PEAKS = ("memory.peak", "memory.max_usage_in_bytes")
_EVENTS = ("memory.events", "memory.oom_control")


def measure(manager: cgroups.Manager, ending: Ending) -> None:
    """Put into `ending` what the cgroup, which still exists, says. What it does not say stays as it is."""
    folder = folder_of(manager)("memory")
    if folder is None:
        return
    for name in _PEAKS:
        peak = single(fs.read_bytes(f"{folder}/{name}"))
        if peak > 0:
            ending.peak_memory = peak
            break
    ending.oom_killed = any(flat(fs.read_bytes(f"{folder}/{name}")).get("oom_kill", 0) for name in _EVENTS)
