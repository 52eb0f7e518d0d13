"""Jobs in a Python that has its imports behind it: warmed once, saved, and restored for each job."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from typing import Any

from rootless_rt import DEVNULL, Container, Runtime

# Runs in the container. The job is a line of JSON, the answer too.
PROGRAM = """
import importlib, json, sys
for name in sys.argv[1].split(","):
    importlib.import_module(name)
print("ready", flush=True)
job = json.loads(sys.stdin.readline())
print(json.dumps({"sum": sum(range(job["n"])), "modules": len(sys.modules)}), flush=True)
"""
PYTHON = ["/usr/bin/python3", "-I", "-u", "-c", PROGRAM]
_NUMBERS = itertools.count()


class Warm:
    """A saved Python: `run` gives it one job. `options` go to CRIU (see Container.checkpoint)."""

    def __init__(self, runtime: Runtime, bundle: str, modules: str, images: str, **options: Any) -> None:
        self._runtime, self._bundle, self._images, self._options = runtime, bundle, images, options
        jobs, far_jobs = os.pipe()
        answers, far_answers = os.pipe()
        container = runtime.create(
            bundle, _name(), args=[*PYTHON, modules], stdin=jobs, stdout=far_answers, stderr=DEVNULL
        )
        os.close(jobs)
        os.close(far_answers)
        with container, open(far_jobs, "w"), open(answers) as ready:
            container.start()
            if ready.readline() != "ready\n":
                raise RuntimeError("the program did not get ready")
            container.checkpoint(images, **options)

    def run(self, job: str) -> str:
        """Restore it for one job; its answer."""
        jobs, far_jobs = os.pipe()
        answers, far_answers = os.pipe()
        try:
            restored = Container.restore(
                self._runtime,
                self._bundle,
                self._images,
                _name(),
                stdin=jobs,
                stdout=far_answers,
                stderr=DEVNULL,
                **self._options,
            )
        finally:
            os.close(jobs)
            os.close(far_answers)
        with restored, open(far_jobs, "w") as asked, open(answers) as answered:
            asked.write(job + "\n")
            asked.flush()
            return answered.readline()


def _name() -> str:
    return f"warm-{os.getpid()}-{next(_NUMBERS)}"


def main(words: Sequence[str]) -> None:
    """warm_start.py BUNDLE IMAGES MODULES JOB...; $CRIU may name the program."""
    bundle, images, modules, *jobs = words
    options = {"criu": os.environ["CRIU"]} if "CRIU" in os.environ else {}
    with Runtime() as runtime:
        warm = Warm(runtime, bundle, modules, images, **options)
        for job in jobs:
            print(warm.run(job), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
