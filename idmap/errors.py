"""The one exception of the package. Knows nothing of the causes: modules that raise it name them."""

from __future__ import annotations


class IdmapError(Exception):
    """A map that cannot be had, with the cause in a stable word.

    `message` is one line without a final full stop; `hint`, when there is one, names the exact fix; `reason`
    is a stable identifier for programs. The reasons are:

    - wrong input: `not-a-number`, `bad-extent`, `empty-map`, `overlap`, `too-many-extents`, `not-in-parent`
    - the helpers: `helper-missing`, `helper-not-setuid`, `helper-nosuid`, `no-new-privs`, `bounding-set`,
      `helper-needs-admin`, `no-user-name`
    - the grants: `no-subid-entry`, `range-too-small`
    - the target process: `target-gone`, `target-not-dumpable`, `already-mapped`
    - the kernel: `proc-mismatch`, `setgroups-denied`, `apparmor-userns`, `missing-capability`,
      `map-write-refused`
    - systemd-nsresourced: `nsresource-refused`

    >>> error = IdmapError("newuidmap is not installed", reason="helper-missing")
    >>> error.reason, str(error)
    ('helper-missing', 'newuidmap is not installed')
    """

    def __init__(self, message: str, *, reason: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.reason = reason
