"""The driver that keeps no cgroup: `--cgroup-manager=disabled`, or a place where none may be made.

Everything that needs a cgroup says why there is none. Must not touch the file system.
"""

from __future__ import annotations

from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class NoCgroup:
    """A container that stays in its caller's cgroup; `reason` says why."""

    __slots__ = ("paths", "reason")
    kind = "none"

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
            hint="create it where a cgroup can be made: systemd-run --user --scope -p Delegate=yes COMMAND",
        )

    def thaw(self) -> None:
        raise RtError(f"cannot resume: the container has no cgroup ({self.reason})")

    def frozen(self) -> bool:
        return False

    def kill(self, timeout: float = 10.0) -> bool:
        """False always: which processes belong to the container is not known here."""
        return False

    def procs(self) -> list[int]:
        return []

    def delete(self, timeout: float = 2.0) -> None:
        pass

    def set_devices(self, rules: list[dict[str, Any]]) -> str | None:
        return f"device access is not limited: the container has no cgroup ({self.reason})"
