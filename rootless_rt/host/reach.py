"""Which directory on the way to a path shuts this process out. Only loaded after a refusal (EACCES)."""

from __future__ import annotations

import os

from rootless_rt.errors import RtError
from rootless_rt.host.doctor.access import Who, denied, steps
from rootless_rt.host.doctor.fixes import quote

ID = "RT-BUNDLE-PATH"


def closed(path: str, *, read: bool = True) -> tuple[str, str]:
    """(who lacks what where, the command that gives it) for an absolute path; ("", "") when nothing is seen.

    `read`: whether what stands at its end was to be read, and not only passed.
    """
    me = Who(os.geteuid(), (os.getegid(), *os.getgroups()))
    whom = _name(me.uid)
    way = steps(path)
    if not way:
        return "", ""
    shut = denied(way, me)
    if shut is not None:
        place = quote(shut.path)
        return (
            f"{shut.shown()} cannot be searched by {whom}",
            f"have its owner do: setfacl -m u:{me.uid}:x {place}, or: chmod o+x {place}",
        )
    last = way[-1]
    if read and last.path == os.path.realpath(path) and not os.access(path, os.R_OK):
        place = quote(last.path)
        return (
            f"{last.shown()} cannot be read by {whom}",
            f"have its owner do: setfacl -m u:{me.uid}:r {place}, or: chmod o+r {place}",
        )
    return "", ""


def _name(uid: int) -> str:
    import pwd

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def explained(error: RtError) -> RtError:
    """The same error, with the directory that it is about (`error.closed`) and what opens that."""
    why, fix = closed(error.closed)
    if not why:
        return error
    return RtError(f"{error.message}: {why}", hint=fix, code=error.code, id=ID)
