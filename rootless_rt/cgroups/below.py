"""Cgroups below a container's own, that a caller names for a further process.

The container may have made them, and may change them while we look: a place is opened one name after the
other, without following links or leaving the file system. Must not know how processes get there.
"""

from __future__ import annotations

import posix

from rootless_rt.errors import RtError

from .fs import failure

_DIR = posix.O_PATH | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC


def place(base: str, relative: str) -> str:
    """The directory of the cgroup `relative` below `base`. Raises RtError when it leads out, or is not there.

    Outer slashes mean nothing; the empty path and "." are `base` itself.
    """
    parts = [part for part in relative.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in relative:
        raise RtError(
            f"--cgroup {relative}: is not a cgroup below the container's",
            hint="name one below it, without .. in its path",
        )
    fd = -1
    try:
        fd = posix.open(base, _DIR)
        device = posix.fstat(fd).st_dev
        for part in parts:
            child = posix.open(part, _DIR, dir_fd=fd)
            posix.close(fd)
            fd = child
            if posix.fstat(fd).st_dev != device:
                raise RtError(f"--cgroup {relative}: leads out of the cgroup file system")
    except (FileNotFoundError, NotADirectoryError):
        raise RtError(
            f"--cgroup {relative}: there is no such cgroup below {base}",
            hint="it has to be made first, by the container or with mkdir",
        ) from None
    except OSError as error:
        raise failure(f"--cgroup {relative}: cannot be entered, below", base, error) from None
    finally:
        if fd >= 0:
            posix.close(fd)
    return "/".join([base, *parts])
