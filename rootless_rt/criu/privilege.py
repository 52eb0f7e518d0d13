"""Whether this process may save and restore others at all.

CRIU is for root. Since Linux 5.9 and CRIU 3.16 there is a mode for processes that have CAP_CHECKPOINT_RESTORE
and nothing else (capabilities(7)); it takes up no more than what the kernel then allows.
"""

from __future__ import annotations

import os

from idmap.userns import in_user_namespace
from rootless_rt.errors import RtError

_CHECKPOINT_RESTORE = 1 << 40


def is_unprivileged() -> bool:
    """False for root, True for one that has only that capability. Raises RtError for one that has neither."""
    nested = in_user_namespace()
    if os.geteuid() == 0 and not nested:
        return False
    if not nested and _effective() & _CHECKPOINT_RESTORE:
        return True
    who = "root of a user namespace" if nested else "an ordinary user"
    raise RtError(
        f"checkpoint and restore are not for {who}: criu needs root, or CAP_CHECKPOINT_RESTORE",
        hint="run it as root, on a container that root has made",
    )


def _effective() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "CapEff":
                return int(value, 16)
    return 0
