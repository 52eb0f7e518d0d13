"""Signals that end a command, and the places where they may strike.

While `create` and `run` make a container they have things in hand that nobody else puts away: a directory,
a cgroup, a process. SIGHUP, SIGINT, SIGQUIT and SIGTERM are therefore held back (blocked) while they work,
and let through only where they wait: for rt-init and for hooks. What is raised there takes everything back on
its way up. Must not know what is made. The mask is the calling thread's: other threads go on as before, and
in a program that is not ours what it has blocked itself is never let through.
"""

from __future__ import annotations

from _signal import SIG_BLOCK, SIG_IGN, SIG_SETMASK, SIG_UNBLOCK, getsignal, pthread_sigmask, signal
from _thread import _local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import NoReturn

ENDING = (1, 2, 3, 15)
"""SIGHUP, SIGINT, SIGQUIT, SIGTERM: by default they end the process on the spot, with nothing taken back."""


class Interrupted(KeyboardInterrupt):
    """One of the ending signals came; `number` is which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def catch() -> None:
    """Have the ending signals raise Interrupted, once; those that the caller ignores (nohup) stay ignored.

    Only for the main thread of a program of our own.
    """
    for number in ENDING:
        if getsignal(number) != SIG_IGN:
            signal(number, _strike)


def _strike(number: int, frame: FrameType | None) -> NoReturn:
    # A second signal must not strike while everything is taken back.
    for other in ENDING:
        signal(other, _pass_over)
    raise Interrupted(number)


def _pass_over(number: int, frame: FrameType | None) -> None:
    """Not SIG_IGN: Python complains when one is ignored that has come already."""


# The mask of each thread outside of everything that is held: what `let_through` goes back to.
_outside = _local()


def hold() -> None:
    """Hold the ending signals back, to the end of the process or until `release`."""
    _outside.mask = pthread_sigmask(SIG_BLOCK, ENDING).difference(ENDING)


def release() -> None:
    """Let the ending signals through again; one that was held back comes now."""
    _outside.mask = None
    pthread_sigmask(SIG_UNBLOCK, ENDING)


class _Held:
    """A stretch of code in which no ending signal strikes; the mask before comes back behind it."""

    __slots__ = ("_before", "_first")

    def __enter__(self) -> None:
        self._before = pthread_sigmask(SIG_BLOCK, ENDING)
        self._first = getattr(_outside, "mask", None) is None
        if self._first:
            _outside.mask = self._before

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._first:
            _outside.mask = None
        pthread_sigmask(SIG_SETMASK, self._before)


class _LetThrough:
    """A stretch of code in which those strike that were held back; the mask before comes back behind it."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        outside = getattr(_outside, "mask", None)
        if outside is None:
            self._before = pthread_sigmask(SIG_BLOCK, ())
        else:
            self._before = pthread_sigmask(SIG_SETMASK, outside)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pthread_sigmask(SIG_SETMASK, self._before)


def held() -> _Held:
    """with held(): no ending signal strikes here."""
    return _Held()


def let_through() -> _LetThrough:
    """with let_through(): an ending signal strikes here, and so does one that was held back before."""
    return _LetThrough()
