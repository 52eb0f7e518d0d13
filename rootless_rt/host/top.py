"""What a root file system holds in its top directory.

Evidence for choices alone: nothing is opened there, and what is found may be something else a moment later.
"""

from __future__ import annotations

import posix

_TYPE_MASK, _DIRECTORY = 0o170000, 0o040000  # of st_mode, inode(7)


def has_directory(rootfs: str, name: str) -> bool:
    """Whether `name` is a directory there, and no link to one."""
    try:
        root = posix.open(rootfs, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            status = posix.stat(name, dir_fd=root, follow_symlinks=False)
        finally:
            posix.close(root)
    except OSError:
        return False
    return status.st_mode & _TYPE_MASK == _DIRECTORY
