"""The version of `rt`, the newest runtime-spec it follows, and the commit it was built from.

Knows nothing else, so that `--version` costs nothing.
"""

from __future__ import annotations

VERSION = "0.1.0"
SPEC_VERSION = "1.3.0"

try:
    # Written by the build (tools/commit.py), from the checkout that it builds.
    from rootless_rt._commit import COMMIT as COMMIT
except ModuleNotFoundError:  # nothing was built, or not from a checkout
    COMMIT = ""
