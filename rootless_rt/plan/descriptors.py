"""Mounts whose source is a descriptor of the caller's: bind sources by number, and the device of fuse.

An engine may name a source /proc/self/fd/N or /dev/fd/N. That means a descriptor that it passes on with
--preserve-fds (runc and crun keep those under their numbers); no other of the runtime's own is meant.
"""

from __future__ import annotations

from rootless_rt.errors import SpecError
from rootless_rt.plan.model import Draft
from rootless_rt.plan.ops import NO_SLOT
from rootless_rt.spec.jsonio import quote
from rootless_rt.spec.names import decimal

_PLACES = ("/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/")


def preserved(draft: Draft, source: str, where: str) -> tuple[int, str]:
    """(slot, path below it) for a source that names a descriptor; NO_SLOT for any other source.

    Raises SpecError for a descriptor that is not preserved.
    """
    for place in _PLACES:
        if source.startswith(place):
            number, _, below = source.removeprefix(place).partition("/")
            return _slot(draft, number, source, where), below.strip("/")
    return NO_SLOT, ""


def fuse(draft: Draft, kind: str, data: list[str], where: str) -> tuple[str, list[str], int]:
    """Type, data and the slot of /dev/fuse for a mount of type fuse or fuse.SUBTYPE. Raises SpecError."""
    kind, _, subtype = kind.partition(".")
    rest = [word for word in data if not word.startswith("fd=")]
    numbers = [word.removeprefix("fd=") for word in data if word.startswith("fd=")]
    if not numbers:
        raise SpecError(
            f"{where}.options",
            "a fuse mount needs fd=N, an open /dev/fuse that --preserve-fds keeps",
            hint="mount it on the host and bind it, or run its program in the container with /dev/fuse",
        )
    if subtype and not any(word.startswith("subtype=") for word in rest):
        rest.append(f"subtype={subtype}")
    return kind, rest, _slot(draft, numbers[-1], f"fd={numbers[-1]}", f"{where}.options")


def _slot(draft: Draft, text: str, asked: str, where: str) -> int:
    number = decimal(text)
    key = ("keep", str(number))
    if number is None or key not in draft.plan.fds:
        count = draft.policy.keep_fds
        kept = f"--preserve-fds {count} keeps 3 to {2 + count}" if count else "--preserve-fds keeps none"
        raise SpecError(where, f"{quote(asked)} is no descriptor that is kept: {kept}")
    return draft.plan.fds.index(key)
