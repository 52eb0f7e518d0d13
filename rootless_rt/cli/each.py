"""One command for all containers whose id matches a regular expression: `kill --regex`, `delete --regex`.

Knows ids only. Loaded when such an expression is given.
"""

from __future__ import annotations

import re

from rootless_rt.container.store import Store
from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def each(store: Store, pattern: str, act: Callable[[str], None]) -> None:
    """Call `act` with every id in which the expression has a match, whatever happens to the others.

    Raises RtError: for a wrong expression, or the first error of `act` when all have had their turn.
    """
    try:
        expression = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise RtError(f"--regex: {pattern[:80]!r} is no regular expression: {error}") from None
    failed: RtError | None = None
    for container_id in store.ids():
        if expression.search(container_id):
            try:
                act(container_id)
            except RtError as error:
                failed = failed or RtError(f"{container_id}: {error.message}", hint=error.hint)
    if failed is not None:
        raise failed
