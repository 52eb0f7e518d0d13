"""A Python with its imports behind it, restored from a checkpoint, beside one that is started for each job.

    python3 benchmarks/checkpoint.py --rootfs DIR [--modules LIST] [--rounds N] [--criu PATH]

As root. DIR is a root file system with /usr/bin/python3 (mmdebstrap --include=python3 ...). Both ways take
the same job from stdin and print the same answer; they run in turns, and
medians and their ratio are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TREE), str(TREE / "examples/warm_start")]

from warm_start import PYTHON, Warm  # noqa: E402

from rootless_rt import PIPE, Runtime  # noqa: E402
from rootless_rt.spec.defaults import default_spec  # noqa: E402

JOB = '{"n": 10}'
MODULES = "json,decimal,asyncio,http.server,xml.dom.minidom,sqlite3,unittest.mock,email.mime.text"


def cold(runtime: Runtime, bundle: str, modules: str) -> str:
    """Start one, and give it the job."""
    with runtime.popen(bundle, args=[*PYTHON, modules], stdin=PIPE) as process:
        result = process.communicate((JOB + "\n").encode())
    return result.stdout.decode().splitlines()[-1]


def timed(action: object) -> tuple[float, str]:
    """Seconds, and the answer."""
    assert callable(action)
    begun = time.monotonic()
    answer = action()
    return time.monotonic() - begun, answer.strip()


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rootfs", required=True)
    parser.add_argument("--modules", default=MODULES)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--criu")
    given = parser.parse_args()
    options = {"criu": given.criu} if given.criu else {}
    with tempfile.TemporaryDirectory(prefix="rt-bench-") as place, Runtime(f"{place}/state") as runtime:
        config = default_spec(cgroup2=os.path.exists("/sys/fs/cgroup/cgroup.controllers"))
        config["root"] = {"path": os.path.abspath(given.rootfs), "readonly": True}
        config["process"]["terminal"] = False
        Path(place, "config.json").write_text(json.dumps(config))
        warm = Warm(runtime, place, given.modules, f"{place}/images", **options)
        times: dict[str, list[float]] = {"cold": [], "restored": []}
        for _ in range(given.rounds):
            seconds, first = timed(lambda: cold(runtime, place, given.modules))
            times["cold"].append(seconds)
            seconds, second = timed(lambda: warm.run(JOB))
            times["restored"].append(seconds)
            assert first == second, (first, second)
        size = sum(path.stat().st_size for path in Path(place, "images").iterdir())
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in medians.items():
        print(f"{name:9} {seconds * 1000:7.0f} ms")
    print(f"restored / cold: {medians['restored'] / medians['cold']:.2f}; images: {size >> 20} MiB")


if __name__ == "__main__":
    main()
