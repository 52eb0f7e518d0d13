"""Mount points for a restore: CRIU takes them to be there, and goes to them by their paths.

They are made, as far as they are missing, and looked at from directory to directory by descriptors: a
symbolic link where there was none at the checkpoint would lead CRIU out of the container.
"""

from __future__ import annotations

import os
import stat

from rootless_rt.errors import RtError

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def ensure(top: str, point: str, *, file: bool, what: str) -> None:
    """Make the mount point `point` in the directory `top` of the host, unless it is there. Raises RtError.

    `what` names the mount in errors.
    """
    names = [name for name in point.split("/") if name]
    here = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for index, name in enumerate(names):
            last = index == len(names) - 1
            if last and file:
                _ensure_file(here, name)
                return
            try:
                os.mkdir(name, 0o755, dir_fd=here)
            except FileExistsError:
                pass
            below = os.open(name, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise RtError(
            f"{what}: {'/' + '/'.join(names)} is not the place for a mount that it was: {reason}",
            hint="restore onto the root file system as it was at the checkpoint",
        ) from None
    finally:
        os.close(here)


def _ensure_file(here: int, name: str) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.close(os.open(name, flags, 0o644, dir_fd=here))
    except FileExistsError:
        mode = os.stat(name, dir_fd=here, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            raise OSError(0, "it is a symbolic link") from None
        if stat.S_ISDIR(mode):
            raise OSError(0, "it is a directory") from None
