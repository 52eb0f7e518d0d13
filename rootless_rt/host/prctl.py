"""Control of the runtime's own process: prctl(2) through python-prctl, or ctypes without it."""

from __future__ import annotations

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Adopt orphaned descendants: a container without a pid namespace of its own leaves them to us."""
    try:
        import prctl
    except ImportError:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    else:
        prctl.set_child_subreaper(1)
