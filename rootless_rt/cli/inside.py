"""Whether a path that a user gives leads out of a bundle's root file system by a link that the image holds.

cp, rm and chown are given paths of the host. Below a rootfs the names are the image's: its /home may be a
symbolic link to the caller's, and a copy into it would overwrite the caller's own files. Looks, and does
nothing; a container that still runs can exchange a name behind the look.
"""

from __future__ import annotations

import os

from rootless_rt.errors import RtError
from rootless_rt.spec import jsonio
from rootless_rt.spec.load import CONFIG_NAME, MOST_BYTES


def check(path: str, *, followed: bool) -> None:
    """Raise RtError when a link below a rootfs leads out of it; `followed`: one in the last place as well."""
    given = os.path.abspath(path)
    root = _rootfs_of(given)
    if root is None:
        return
    # Of the path as it was given: behind a link, ".." is another place than the text says.
    real = os.path.realpath(path if followed else os.path.dirname(path) or ".")
    if given != root and os.path.commonpath([real, os.path.realpath(root)]) != os.path.realpath(root):
        raise RtError(
            f"{path} leads out of the root file system {root}, to {real}: a link of the image",
            hint="name the place itself if it is the one you mean",
        )


def _rootfs_of(path: str) -> str | None:
    """The outermost part of an absolute path that is the root file system of the bundle it lies in."""
    parts = path.split("/")
    for count in range(2, len(parts) + 1):
        bundle = "/".join(parts[: count - 1]) or "/"
        for root in _named_by(bundle):
            if path == root or path.startswith(root + "/"):
                return root
    return None


def _named_by(bundle: str) -> list[str]:
    """What a directory's config.json names as its rootfs, if it has one that can be read."""
    try:
        fd = os.open(os.path.join(bundle, CONFIG_NAME), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            document = jsonio.parse(file.read(MOST_BYTES) or b"", CONFIG_NAME)
    except (OSError, RtError):
        return []
    root = document.get("root") if isinstance(document, dict) else None
    named = root.get("path") if isinstance(root, dict) else None
    return [os.path.normpath(os.path.join(bundle, named))] if isinstance(named, str) and named else []
