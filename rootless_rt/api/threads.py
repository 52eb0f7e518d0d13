"""What the threads have in common that the API makes in a program.

They take no signals. Python's handlers run in the main thread alone, and where that waits while another
thread has got the signal, it waits on: of a stopped process any thread may get it, as the process goes on.
"""

from __future__ import annotations

from _signal import SIG_BLOCK, pthread_sigmask, valid_signals

_FAULTS = {4, 5, 6, 7, 8, 11, 31}  # SIGILL, TRAP, ABRT, BUS, FPE, SEGV, SYS: of the thread itself


def leave_signals() -> None:
    """Leave all signals to the other threads; the calling one is not the main thread."""
    pthread_sigmask(SIG_BLOCK, valid_signals() - _FAULTS)
