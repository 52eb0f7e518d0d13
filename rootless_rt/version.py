"""The version of `rt`, the newest runtime-spec it follows, and the commit it was built from.

Knows nothing else, so that `--version` costs nothing.
"""

from __future__ import annotations

VERSION = "0.1.0"
SPEC_VERSION = "1.3.0"
# Filled by the build from the checkout; stays empty in a source tree, and is then not shown.
COMMIT = ""
