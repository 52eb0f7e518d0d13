"""The limits of a new container: compiled for its cgroups, and what of them cannot be had here.

Knows `linux.resources` and a manager; makes and writes nothing.
"""

from __future__ import annotations

from rootless_rt.cgroups.limits import compile_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_rt import cgroups
    from rootless_rt.cgroups.limits import Limit
    from rootless_rt.host.facts import HostFacts

_NONE = ("max", "-1")  # how a limit says that there is none


def limits_for(resources: dict[str, Any], manager: cgroups.Manager, facts: HostFacts) -> list[Limit]:
    """The limits to write; facts.cgroup gets those that cannot be (`unmet`) and notes.

    Raises SpecError for a value that no kernel takes.
    """
    compiled = compile_limits(resources, manager.version or 2)
    facts.cgroup.notes += [f"{field}: {text}" for field, text in compiled.notes]
    lacking = manager.lacking({limit.controller for limit in compiled.limits})
    told: set[str] = set()
    for limit in compiled.limits:
        asked = limit.writes[0][1].partition(" ")[0]
        # To lack a limit that asks for none, or a file that not every kernel has, is no loss.
        if limit.controller not in lacking or limit.optional or asked in _NONE or limit.field in told:
            continue
        told.add(limit.field)
        facts.cgroup.unmet.append((limit.field, limit.asked, *lacking[limit.controller]))
    return [limit for limit in compiled.limits if limit.controller not in lacking]
