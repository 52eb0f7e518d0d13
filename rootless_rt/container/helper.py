"""Programs of the host that serve a container from outside: its network, its overlay.

A second rt-init runs the program, and waits for the end of either: of the program or of the container's
process (op `attend`). So it ends with the container, whatever has become of this process.
"""

from __future__ import annotations

import posix

from rootless_rt.container import processes
from rootless_rt.errors import RtError
from rootless_rt.init import launch
from rootless_rt.plan.ops import Op, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENVIRON = ["PATH=/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C"]
_END_SECONDS = 5.0


class Helper:
    """A started program, and the rt-init that keeps it, a child of ours; `identity` is for the state."""

    __slots__ = ("_keeper", "_pidfd", "identity")

    def __init__(self, ops: list[Op], fds: list[int], what: str) -> None:
        """Start it: the last of `ops` is attend, `fds` fill the first slots. Raises RtError naming `what`."""
        sock, self._keeper = launch.start(encode(ops), fds)
        self._pidfd = -1
        self.identity: dict[str, Any] = {}
        try:
            message = launch.receive(sock)
        finally:
            sock.close()
        if message.type != launch.MSG_PID:
            self.undo()
            reason = posix.strerror(message.err).lower() if message.type == launch.MSG_ERROR else "was killed"
            raise RtError(f"{what}: {reason}")
        self._pidfd = message.fd
        self.identity = processes.identity(message.value)

    def undo(self) -> None:
        """End it, and wait for that. Never raises."""
        if self._pidfd >= 0:
            processes.send_signal(self._pidfd, 9)
            posix.close(self._pidfd)
            self._pidfd = -1
        if self._keeper:
            try:
                posix.waitpid(self._keeper, 0)
            except ChildProcessError:
                pass  # the caller ignores SIGCHLD: the kernel has reaped it
            self._keeper = 0


def end(record: dict[str, Any]) -> None:
    """End the program of a container that has ended, if it has not ended with it. Raises RtError."""
    pidfd = processes.open_process(record)
    if pidfd < 0:
        return
    try:
        processes.send_signal(pidfd, 9)
        processes.wait_end(pidfd, _END_SECONDS)
    finally:
        posix.close(pidfd)
