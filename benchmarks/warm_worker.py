"""The warm process that holds the API: `warm_worker.py SITES BUNDLE`, driven line by line by warm.py.

Runs under rt's own interpreter, with rt's own package. A line `one` or `many COUNT IN_FLIGHT` is answered by
milliseconds, or by `!` and what went wrong.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootless_rt import Sandbox


def one(sandbox: Sandbox) -> float:
    """A container from the call to its result, output taken."""
    start = time.perf_counter_ns()
    sandbox.run().check()
    return (time.perf_counter_ns() - start) / 1e6


def many(sandbox: Sandbox, count: int, in_flight: int) -> float:
    """`count` containers, `in_flight` of them at a time."""
    with ThreadPoolExecutor(in_flight) as threads:
        start = time.perf_counter_ns()
        for result in threads.map(lambda _: sandbox.run(), range(count)):
            result.check()
        return (time.perf_counter_ns() - start) / 1e6


def main() -> None:
    sys.path[1:1] = sys.argv[1].split(":")
    import rootless_rt

    with rootless_rt.Sandbox(sys.argv[2]) as sandbox:
        for line in sys.stdin:
            work, *numbers = line.split()
            try:
                taken = one(sandbox) if work == "one" else many(sandbox, *map(int, numbers))
            except rootless_rt.RtError as error:
                print("!", str(error).partition("\n")[0], flush=True)
            else:
                print(taken, flush=True)


main()
