"""The file that --pid-file names: engines and service managers read from it whom they have to watch.

Knows nothing of containers.
"""

from __future__ import annotations

import posix

from rootless_rt import paths
from rootless_rt.errors import RtError


def write_pid_file(path: str, pid: int) -> None:
    """Write the number, without a line's end, in one step. Raises RtError."""
    temporary = f"{paths.dirname(path)}/.{paths.basename(path)}.{posix.getpid()}"
    try:
        fd = posix.open(
            temporary,
            posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC | posix.O_NOFOLLOW,
            0o644,
        )
        try:
            posix.write(fd, str(pid).encode())
        finally:
            posix.close(fd)
        posix.rename(temporary, path)
    except OSError as error:
        try:
            posix.unlink(temporary)
        except OSError:
            pass
        raise RtError(f"--pid-file {path}: {posix.strerror(error.errno or 0).lower()}") from None
