"""What a check-up is made of: who asks, what is wrong, and the findings that a table of checks gives.

A subject has one module: a class of evidence (plain facts; its defaults are a healthy host's), `gather` that
reads it below an injectable root directory, and CHECKS, pure functions of evidence and caller. The texts
that do not depend on the host stand in `reasons`, under the same ids. Nothing here reads anything.
"""

from __future__ import annotations

from rootless_rt.host.doctor.reasons import BY_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

OK, DEGRADED, BLOCKED = "ok", "degraded", "blocked"
RANK = {OK: 0, DEGRADED: 1, BLOCKED: 2}  # also the exit status of `rt doctor`


class Me:
    """Who asks, and of which kind of system.

    uid, euid, groups   of this process; `groups` holds the effective group too
    name                the user's name, or None
    environ             the environment
    initial             whether this is the initial user namespace
    manager             the package manager: apt, dnf, zypper, pacman, apk, or "" when it is not known
    """

    __slots__ = ("environ", "euid", "groups", "initial", "manager", "name", "uid")

    def __init__(
        self,
        uid: int = 1000,
        *,
        groups: Sequence[int] = (1000,),
        name: str | None = "alice",
        environ: Mapping[str, str] | None = None,
        initial: bool = True,
        manager: str = "apt",
    ) -> None:
        self.uid = uid
        self.euid = uid
        self.groups = tuple(groups)
        self.name = name
        self.environ = environ or {}
        self.initial = initial
        self.manager = manager

    @property
    def privileged(self) -> bool:
        """Whether this is the host's root, whom most gates do not concern."""
        return self.euid == 0 and self.initial

    @property
    def who(self) -> str:
        """The user's name, or else the number."""
        return self.name or str(self.uid)


class Trouble:
    """What a check found wrong.

    `why` is the cause as found, `fix` one line with the remedy, `commands` the shell lines of an
    administrator's script (they may be run twice),
    `status` how bad it is where that differs from the table, and
    `details` further lines.
    """

    __slots__ = ("commands", "details", "fix", "status", "why")

    def __init__(
        self,
        why: str,
        fix: str = "",
        commands: Sequence[str] = (),
        *,
        status: str | None = None,
        details: Sequence[str] = (),
    ) -> None:
        self.why = why
        self.fix = fix
        self.commands = tuple(commands)
        self.status = status
        self.details = tuple(details)


class Finding:
    """The outcome of one check: `id` and `what` are the table's, the rest as in Trouble."""

    __slots__ = ("commands", "details", "fix", "id", "status", "what", "why")

    def __init__(self, id: str, outcome: Trouble | str | None) -> None:
        """A text is a remark on what is in order."""
        reason = BY_ID[id]
        self.id = id
        self.what = reason.what
        trouble = outcome if isinstance(outcome, Trouble) else None
        self.status = (trouble.status or reason.severity) if trouble else OK
        self.why = trouble.why if trouble else outcome if isinstance(outcome, str) else ""
        self.fix = trouble.fix if trouble else ""
        self.commands = trouble.commands if trouble else ()
        self.details = trouble.details if trouble else ()

    def as_dict(self) -> dict[str, Any]:
        """The parts by name, for JSON."""
        return {
            "id": self.id,
            "status": self.status,
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
            "commands": list(self.commands),
            "details": list(self.details),
        }


if TYPE_CHECKING:
    Check = tuple[str, Callable[[Any, Me], Trouble | str | None]]


def diagnose(checks: Sequence[Check], evidence: object, me: Me) -> list[Finding]:
    """Hold the evidence of one subject against its checks. Pure."""
    return [Finding(id, check(evidence, me)) for id, check in checks]


def worst(findings: Sequence[Finding]) -> str:
    """The status of the whole.

    >>> worst([])
    'ok'
    """
    return max((finding.status for finding in findings), key=RANK.__getitem__, default=OK)
