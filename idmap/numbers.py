"""Numbers from outside text, strictly. Knows nothing of what they count."""

from __future__ import annotations

from idmap.errors import IdmapError

LAST_ID = 2**32 - 2  # 2**32 - 1 is (uid_t)-1, "no id", in every system call that takes one
MAX_COUNT = 2**32 - 1


def parse(text: str | bytes, what: str = "id", limit: int = LAST_ID) -> int:
    """The number that `text` spells in at most ten ASCII digits, from 0 to `limit`; `what` names it in the
    error.

    int() alone would take " 1", "+1", "1_0" and digits of other scripts, and so disagree with the kernel and
    with newuidmap about who is meant.

    >>> parse("100000"), parse(b"0")
    (100000, 0)
    >>> parse("1_0")
    Traceback (most recent call last):
    idmap.errors.IdmapError: id '1_0' is not a whole number from 0 to 4294967294
    """
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    # bytes.isdigit() knows ASCII digits only, unlike str.isdigit().
    if raw.isdigit() and len(raw) <= 10:
        value = int(raw)
        if value <= limit:
            return value
    shown = raw[:40].decode("utf-8", "backslashreplace")
    raise IdmapError(f"{what} {shown!r} is not a whole number from 0 to {limit}", reason="not-a-number")
