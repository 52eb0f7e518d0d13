"""Memory that CRIU hands out page by page (--lazy-pages): what its server takes of this host.

The server reads through a pipe that is as large as it ever makes one (PIPE_MAX_SIZE in criu's sources), and
does not look whether it got it: without, it fails at the first page that somebody fetches.
"""

from __future__ import annotations

import fcntl
import os

from rootless_rt.errors import RtError

_LIMIT = "/proc/sys/fs/pipe-max-size"
_ORDER = 8  # pages that the kernel gives in one piece without trying hard
_BUFFER = 40  # bytes that the kernel has for each page of a pipe, on 64 bits


def check_server() -> None:
    """Raise RtError unless this process, and so criu, may have such a pipe (pipe(7), "pipe-max-size")."""
    page = os.sysconf("SC_PAGESIZE")
    size = _ORDER * page // _BUFFER * page
    ends = os.pipe()
    try:
        fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, size)
    except PermissionError:
        with open(_LIMIT, encoding="ascii") as file:
            allowed = file.read().strip()
        needed = 1 << (size - 1).bit_length()  # what the kernel makes of it
        raise RtError(
            f"--lazy-pages does not work here: criu needs a pipe of {needed} bytes, and"
            f" fs.pipe-max-size is {allowed}, which only CAP_SYS_RESOURCE may exceed",
            hint=f"sysctl fs.pipe-max-size={needed}",
        ) from None
    finally:
        for end in ends:
            os.close(end)
