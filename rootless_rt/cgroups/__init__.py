"""Where a container's processes are kept together: which cgroups, how to freeze and to kill.

Knows the cgroup file systems (v1, v2, both at once, none). Must not know the state directory, the plan or the
command line: callers pass values in, and keep what `to_state()` gives. The drivers load only when they serve.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from .host import CgroupView
    from .limits import Limit

    class Manager(Protocol):
        """What every driver (none, v1, v2) offers; `RtError` is the only error that leaves these methods."""

        kind: str

        @property
        def version(self) -> int:
            """Of the controllers' files: 1, 2, or 0 where there is no cgroup."""

        @property
        def paths(self) -> list[str]:
            """The cgroup's directories."""

        @property
        def reason(self) -> str | None:
            """Why there is no cgroup, or why not all of it."""

        def create(self) -> None:
            """Make the directories; on failure nothing stays that was not there before."""

        def undo(self) -> None:
            """Take back what `create` made, parents too, when a container fails to start. Never raises."""

        def add(self, pid: int) -> None:
            """Move the process (as numbered in our pid namespace) into the cgroup."""

        def add_beside(self, pid: int, first: int) -> None:
            """`add`; but where the cgroup can hold processes no more, into that of the process `first`."""

        def below(self, wanted: dict[str, str]) -> Manager:
            """These cgroups with places below them: controller ("": all) -> a relative path that exists."""

        def open_dir(self) -> int | None:
            """A descriptor for CLONE_INTO_CGROUP when that alone places a process; the caller closes it."""

        def freeze(self) -> None:
            """Stop every process and return when all have stopped."""

        def thaw(self) -> None:
            """Let the processes run again."""

        def frozen(self) -> bool:
            """Whether the cgroup was told to freeze."""

        def freezer(self) -> str | None:
            """The file that holds 1 while it is frozen; None where nothing can freeze it."""

        def kill(self, timeout: float = 10.0) -> bool:
            """SIGKILL everything inside, wait up to `timeout` seconds; True when it is known to be empty."""

        def procs(self) -> list[int]:
            """The processes of the cgroup and of those below it, sorted; those we cannot see are left out."""

        def delete(self, timeout: float = 2.0) -> None:
            """Remove the cgroup and those below it; waits up to `timeout` seconds for dying processes."""

        def removal(self) -> tuple[list[str], list[str]] | None:
            """What `delete` removes where nothing lives any more: these, then of those what is empty.

            None where it has more to do than rmdir(2).
            """

        def set_devices(self, rules: list[dict[str, Any]]) -> str | None:
            """Enforce `linux.resources.devices`; None, or the reason why they are not (fully) as asked."""

        def lacking(self, controllers: set[str]) -> dict[str, tuple[str, str]]:
            """Which of these the cgroup cannot have: name -> (why, the fix or ""). Changes nothing."""

        def apply(self, limits: list[Limit]) -> None:
            """Write limits; those of `lacking` controllers have been left out. Raises RtError."""

        def to_state(self) -> dict[str, Any]:
            """What `load` needs, in JSON's types."""


def view(root: str = "/") -> CgroupView:
    """What the kernel shows of cgroups to this process; see `host.view`."""
    from . import host

    return host.view(root)


def choose(
    view: CgroupView,
    *,
    manager: str,
    cgroups_path: str | None,
    container_id: str,
    euid: int,
    strict: bool,
    rootless: bool,
) -> Manager:
    """The driver and the place for a new container; see `choice.choose`."""
    from . import choice

    return choice.choose(
        view,
        manager=manager,
        cgroups_path=cgroups_path,
        container_id=container_id,
        euid=euid,
        strict=strict,
        rootless=rootless,
    )


def load(state: dict[str, Any]) -> Manager:
    """The driver that `to_state()` described. Raises RtError when the record makes no sense."""
    from rootless_rt.errors import RtError

    kind = state.get("kind")
    if kind == "v2":
        from .v2 import V2

        return V2.from_state(state)
    if kind == "v1":
        from .v1 import V1

        return V1.from_state(state)
    if kind == "systemd":
        from .systemd import Systemd

        return Systemd.from_state(state)
    if kind == "none":
        from .none import NoCgroup

        return NoCgroup.from_state(state)
    raise RtError(f"state: cgroup: unknown kind {kind!r}")
