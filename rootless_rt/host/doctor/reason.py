"""One entry of the catalogue that `rt doctor` and `rt explain` share."""

from __future__ import annotations

NEED, HOST, CONTAINER, IDS = "What the host must have", "Mounts", "In a container", "Ids"
CGROUPS, STATE, UBUNTU, NETWORK = "Cgroups", "Where the state is", "Ubuntu 24.04", "Networks"


class Reason:
    """What can be wrong, in words that hold for every host.

    id        stable, never used for anything else
    severity  "degraded" (rt works, with less) or "blocked"; a check may say less, never more
    what      what is looked at, in a few words
    cause     why it matters and where it comes from
    found     how rt finds out
    fixes     one a line
    thing     what to install, a key of `fixes.PACKAGES`, or ""
    chapter   heading of docs/rootless.md, or the beginning of one
    """

    __slots__ = ("cause", "chapter", "fixes", "found", "id", "severity", "thing", "what")

    def __init__(
        self,
        id: str,
        severity: str,
        what: str,
        *,
        cause: str,
        found: str,
        fixes: tuple[str, ...],
        chapter: str,
        thing: str = "",
    ) -> None:
        self.id = id
        self.severity = severity
        self.what = what
        self.cause = cause
        self.found = found
        self.fixes = fixes
        self.thing = thing
        self.chapter = chapter
