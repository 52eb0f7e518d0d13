"""Compiles and runs a submission in C or Python, within limits, and gives a verdict."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from rootless_rt import Limits, Result, RtError, Sandbox, host_config

WORK = "/home/work"
MEMORY = 256 << 20  # bytes
COMPILING = Limits(cpu_seconds=20, address_space=1 << 30, file_size=64 << 20, processes=32)
RUNNING = Limits(cpu_seconds=2, address_space=MEMORY, file_size=0, processes=16)
WALL = 10.0  # seconds: for what sleeps instead of working
OUTPUT = 1 << 20  # bytes

COMPILE = {".c": ["gcc", "-O2", "-std=c17", "-o", f"{WORK}/program", f"{WORK}/main.c", "-lm"]}
RUN = {".c": [f"{WORK}/program"], ".py": [sys.executable, "-I", "-S", f"{WORK}/main.py"]}


def sandbox(folder: Path, work: Path, limits: Limits, access: str) -> Sandbox:
    """The programs of this host, and `work`, to which `access` is `rw` or `ro`."""
    mount = {"destination": WORK, "type": "none", "source": str(work), "options": ["rbind", access, "nosuid"]}
    return Sandbox(host_config(folder / "root"), limits=limits, mounts=[mount])


def failure(result: Result) -> str:
    """Why a run that did not end well has failed; empty if it did."""
    if result.output_exceeded:
        return "output limit exceeded"
    if result.oom_killed or b"MemoryError" in result.stderr:
        return "memory limit exceeded"
    if result.timed_out or result.signal in (9, 24):  # cpu_seconds: SIGXCPU, or SIGKILL
        return "time limit exceeded"
    return "" if result.ok else "runtime error"


def judge(problem: Path, submission: Path) -> dict[str, Any]:
    """The verdict on one submission. Raises RtError, OSError."""
    kind = submission.suffix
    tests = sorted(problem.glob("*.in"))
    with tempfile.TemporaryDirectory() as name:
        folder, work = Path(name), Path(name, "work")
        work.mkdir()
        shutil.copy(submission, work / f"main{kind}")
        if kind in COMPILE:
            with sandbox(folder, work, COMPILING, "rw") as compiler:
                made = compiler.run(COMPILE[kind], timeout=60, max_output=OUTPUT)
            if not made.ok:
                said = made.stderr.decode(errors="replace")[:2000]
                return {"verdict": "compile error", "passed": 0, "of": len(tests), "said": said}
        with sandbox(folder, work, RUNNING, "ro") as runner:
            for passed, test in enumerate(tests):
                result = runner.run(RUN[kind], stdin=test.read_bytes(), timeout=WALL, max_output=OUTPUT)
                expected = test.with_suffix(".out").read_bytes().split()
                verdict = failure(result) or ("" if result.stdout.split() == expected else "wrong answer")
                if verdict:
                    return {"verdict": verdict, "passed": passed, "of": len(tests), "test": test.stem}
    return {"verdict": "accepted", "passed": len(tests), "of": len(tests)}


def main() -> int:
    if len(sys.argv) != 3 or Path(sys.argv[2]).suffix not in RUN:
        print(f"usage: judge.py PROBLEM SUBMISSION ({', '.join(RUN)})", file=sys.stderr)
        return 2
    try:
        told = judge(Path(sys.argv[1]), Path(sys.argv[2]))
    except (RtError, OSError) as error:
        print(f"no verdict: {error}", file=sys.stderr)
        return 2
    print(json.dumps(told))
    return 0 if told["verdict"] == "accepted" else 1


if __name__ == "__main__":
    sys.exit(main())
