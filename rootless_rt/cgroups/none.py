"""The driver that keeps no cgroup: `--cgroup-manager=disabled`, or a place where none may be made.

Everything that needs a cgroup says why there is none. Must not touch the file system.
"""

from __future__ import annotations

from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .limits import Limit

_FIX = "start it where systemd delegates a cgroup: systemd-run --user --scope -p Delegate=yes COMMAND"


class NoCgroup:
    """A container that stays in its caller's cgroup; `reason` says why."""

    __slots__ = ("paths", "reason")
    kind = "none"
    version = 0

    def __init__(self, reason: str) -> None:
        self.paths: list[str] = []
        self.reason: str | None = reason

    @staticmethod
    def from_state(state: dict[str, Any]) -> NoCgroup:
        return NoCgroup(str(state.get("reason") or "no cgroup"))

    def to_state(self) -> dict[str, Any]:
        return {"kind": self.kind, "reason": self.reason}

    def create(self) -> None:
        pass

    def undo(self) -> None:
        pass

    def add(self, pid: int) -> None:
        pass

    def below(self, wanted: dict[str, str]) -> NoCgroup:
        raise RtError(f"--cgroup: the container has no cgroup ({self.reason})")

    def add_beside(self, pid: int, first: int) -> None:
        pass

    def open_dir(self) -> int | None:
        return None

    def freeze(self) -> None:
        raise RtError(
            f"cannot pause: the container has no cgroup ({self.reason})",
            hint=_FIX,
        )

    def thaw(self) -> None:
        raise RtError(f"cannot resume: the container has no cgroup ({self.reason})")

    def frozen(self) -> bool:
        return False

    def freezer(self) -> None:
        pass

    def removal(self) -> tuple[list[str], list[str]]:
        return [], []

    def kill(self, timeout: float = 10.0) -> bool:
        """False always: which processes belong to the container is not known here."""
        return False

    def procs(self) -> list[int]:
        return []

    def delete(self, timeout: float = 2.0) -> None:
        pass

    def lacking(self, controllers: set[str]) -> dict[str, tuple[str, str]]:
        return dict.fromkeys(controllers, (f"the container has no cgroup: {self.reason}", _FIX))

    def apply(self, limits: list[Limit]) -> None:
        """Nothing can be left of the limits here: all controllers are lacking."""

    def set_devices(self, rules: list[dict[str, Any]]) -> str | None:
        return f"device access is not limited: the container has no cgroup ({self.reason})"
