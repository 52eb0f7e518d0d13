"""Runs several lists of lanes at the same time, each in a process of its own.

Knows processes and output. A runner ends whatever its lanes leave below it (see runner.py), so two of them
must not share a parent: each track is a child of its own, and prints into a file if it is not the first.
Knows nothing of what a lane is but its name.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

Results = list[tuple[str, list[int]]]


def run(program: Path, tracks: Sequence[Sequence[str]], environment: dict[str, str]) -> Results:
    """Runs `program --track FILE LANE...` for each list of lanes; the results that they write, in order.

    The first prints as it goes, the others when it has ended. One that writes no result counts as failed.
    """
    with tempfile.TemporaryDirectory(prefix="rt-tracks-") as scratch:
        started = []
        for number, names in enumerate(tracks):
            results = Path(scratch, f"{number}.json")
            output = Path(scratch, f"{number}.out")
            with output.open("wb") as sink:
                process = subprocess.Popen(
                    [sys.executable, "-B", program, "--track", results, *names],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=sink if number else None,
                    stderr=subprocess.STDOUT if number else None,
                )
            started.append((process, names, results, output))
        found: Results = []
        try:
            for process, names, results, output in started:
                process.wait()
                sys.stdout.write(output.read_text(errors="replace"))
                sys.stdout.flush()
                if results.exists():
                    found += [(name, counted) for name, counted in json.loads(results.read_text())]
                else:
                    found.append((" ".join(names), [0, 1, 0]))
        finally:
            for process, *_ in started:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        return found


def write(results: Results, path: Path) -> None:
    """Leaves the results of one track for `run`."""
    path.write_text(json.dumps(results))
