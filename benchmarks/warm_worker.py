"""The warm process that holds the API: `warm_worker.py SITES BUNDLE`, driven line by line by warm.py.

Runs under rt's own interpreter, with rt's own package. A line `one`, `pool` or `many COUNT IN_FLIGHT` is
answered by milliseconds, or by `!` and what went wrong.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootless_rt import Pool, Sandbox

READY = 4  # containers of the pool


def one(sandbox: Sandbox) -> float:
    """A container from the call to its result, output taken."""
    start = time.perf_counter_ns()
    sandbox.run().check()
    return (time.perf_counter_ns() - start) / 1e6


def started(pool: Pool) -> float:
    """A container that is ready, from the call until its program has been executed."""
    from rootless_rt import DEVNULL

    pool.fill()
    start = time.perf_counter_ns()
    with pool.popen(stdout=DEVNULL, stderr=DEVNULL) as process:
        end = time.perf_counter_ns()
        process.wait().check()
    return (end - start) / 1e6


async def many(bundle: str, count: int, in_flight: int) -> float:
    """`count` containers, `in_flight` of them at a time."""
    from rootless_rt import AsyncSandbox

    async with AsyncSandbox(bundle) as sandbox:
        (await sandbox.run()).check()
        left = iter(range(count))

        async def work() -> None:
            for _ in left:
                (await sandbox.run()).check()

        start = time.perf_counter_ns()
        await asyncio.gather(*(work() for _ in range(in_flight)))
        return (time.perf_counter_ns() - start) / 1e6


def main() -> None:
    sites, bundle = sys.argv[1:3]
    sys.path[1:1] = sites.split(":")
    from rootless_rt import Pool, RtError, Sandbox

    with Sandbox(bundle) as sandbox, Pool(sandbox, READY) as pool:
        for line in sys.stdin:
            work, *numbers = line.split()
            try:
                if work == "many":
                    count, in_flight = map(int, numbers)
                    taken = asyncio.run(many(bundle, count, in_flight))
                else:
                    taken = started(pool) if work == "pool" else one(sandbox)
            except RtError as error:
                print("!", str(error).partition("\n")[0], flush=True)
            else:
                print(taken, flush=True)


main()
