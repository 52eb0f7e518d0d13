"""The version of `rt`, the newest runtime-spec it follows, and the commit it was built from.

Knows nothing else, so that asking costs nothing.
"""

from __future__ import annotations

VERSION = "0.1.0"
SPEC_VERSION = "1.3.0"


def commit() -> str:
    """The commit that this was built from; "" when nothing was built, or not from a checkout."""
    try:
        # Written by the build (tools/commit.py), from the checkout that it builds.
        from rootless_rt._commit import COMMIT
    except ModuleNotFoundError:
        return ""
    return COMMIT
