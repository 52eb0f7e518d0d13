"""Writing limits into a container's cgroups, and what an errno means there.

Knows files and errnos; must not know how limits are computed.
"""

from __future__ import annotations

import errno
import posix

from rootless_rt import paths
from rootless_rt.errors import RtError

from . import fs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .limits import Limit


def write_limits(limits: list[Limit], dir_of: Callable[[str], str | None]) -> None:
    """Write every limit; `dir_of` gives the directory of a controller. Raises RtError with the JSON path."""
    for limit in limits:
        folder = dir_of(limit.controller)
        if folder is None:
            if not limit.optional:
                raise RtError(f"{limit.field}: there is no {limit.controller} controller here")
            continue
        for file, text in limit.writes:
            path = f"{folder}/{file}"
            if paths.exists(path):
                _write(limit, path, text)
                break
        else:
            if not limit.optional:
                raise RtError(
                    f"{limit.field}: this kernel has no {limit.writes[0][0]} in {folder}",
                    hint="do without it, or use another kernel",
                )


def _write(limit: Limit, path: str, text: str) -> None:
    try:
        fs.put(path, text)
    except OSError as error:
        number = error.errno or 0
        if limit.optional and number in (errno.EINVAL, errno.EOPNOTSUPP):
            return
        reason = posix.strerror(number).lower()
        raise RtError(
            f"{limit.field}: cannot write {text!r} to {path}: {reason}", hint=_hint(number)
        ) from None


def _hint(number: int) -> str | None:
    if number == errno.EINVAL:
        return "the kernel does not take this value: is it within what the cgroups above have?"
    if number == errno.EBUSY:
        return "more than that is in use already"
    if number in (errno.ENODEV, errno.ENXIO):
        return "there is no such device here"
    if number == errno.ERANGE:
        return "the value is out of the kernel's range"
    if number in (errno.EACCES, errno.EPERM):
        return "this controller is not delegated to you"
    if number == errno.EOPNOTSUPP:
        return "the device's scheduler does not do it"
    return None
