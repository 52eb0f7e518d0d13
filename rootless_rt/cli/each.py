"""One command for all containers whose id matches a regular expression: `kill --regex`, `delete --regex`.

Knows ids only. Loaded when such an expression is given.
"""

from __future__ import annotations

import re
import signal
import warnings

from rootless_rt.container.store import Store
from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType
    from typing import NoReturn

_MOST = 1.0  # seconds of the processor's time, for all ids: a usual expression takes less than a hundredth


def each(store: Store, pattern: str, act: Callable[[str], None]) -> None:
    """Call `act` with every id in which the expression has a match, whatever happens to the others.

    Raises RtError: for a wrong expression, or the first error of `act` when all have had their turn.
    """
    failed: RtError | None = None
    for container_id in _matching(pattern, store.ids()):
        try:
            act(container_id)
        except RtError as error:
            failed = failed or RtError(f"{container_id}: {error.message}", hint=error.hint)
    if failed is not None:
        raise failed


def _matching(pattern: str, ids: Iterable[str]) -> list[str]:
    """The ids in which it has a match. Raises RtError, also when finding out takes too long.

    Python's expressions try every way to match: nested repetitions, as in (a+)+$, can take for ever. All ids
    are looked at before anything is done to one.
    """

    if not pattern:
        raise RtError("--regex: an empty expression matches every container", hint="if all are meant: .")

    def give_up(number: int, frame: FrameType | None) -> NoReturn:
        raise RtError(
            f"--regex: {pattern[:80]!r} takes too long to match the ids: nothing was done",
            hint="repeat nothing that is itself repeated: a+ in place of (a+)+",
        )

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, _MOST)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a future Python may make of it is none of the caller's
            expression = re.compile(pattern)
        return [container_id for container_id in ids if expression.search(container_id)]
    except (re.error, RecursionError, OverflowError) as error:
        raise RtError(f"--regex: {pattern[:80]!r} is no regular expression: {error}") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
