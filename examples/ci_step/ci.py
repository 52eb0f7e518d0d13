"""Runs shell commands, the steps of a CI job, on a copy of a project in a clean Debian."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rootless_rt import DEVNULL, STDOUT, Expired, Limits, RtError, Sandbox, hardened_config

WORK = "/home/work"
LIMITS = Limits(memory=2 << 30, pids=256, cpu_seconds=600, processes=256)


def step(sandbox: Sandbox, command: str, seconds: float) -> int:
    """Run one step, its output passed on as it comes; its exit status."""
    print(f"-- {command}", flush=True)
    begun = time.monotonic()
    args = ["sh", "-ec", command]
    with sandbox.popen(args, stdin=DEVNULL, stdout=sys.stdout, stderr=STDOUT) as process:
        try:
            result = process.wait(timeout=seconds)
            how, status = "ok" if result.ok else result.why(), result.exit_code
        except Expired:
            how, status = f"stopped after {seconds:g} s", 124
    print(f"-- {command}: {how}, {time.monotonic() - begun:.1f} s", flush=True)
    return status


def job(root: Path, work: Path, steps: list[str], seconds: float) -> int:
    """Run the steps up to the first that fails; its exit status, or 0. Raises RtError."""
    mount = {
        "destination": WORK,
        "type": "none",
        "source": str(work),
        "options": ["rbind", "rw", "nosuid", "nodev"],
    }
    with Sandbox(hardened_config(root), mounts=[mount], limits=LIMITS, cwd=WORK) as sandbox:
        for lacking in sandbox.degradations:
            print(f"-- {lacking.line()}", file=sys.stderr)
        for command in steps:
            if status := step(sandbox, command, seconds):
                return status
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the steps of a CI job in a clean Debian.")
    parser.add_argument("root", type=Path, help="directory of the Debian root")
    parser.add_argument("project", type=Path, help="directory that is copied for the job")
    parser.add_argument("steps", nargs="+", metavar="STEP", help="a shell command")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="of each step")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the copy here, which must not exist")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = options.keep or Path(name, "work")
        try:
            shutil.copytree(options.project, work, symlinks=True)
            return job(options.root, work, options.steps, options.timeout)
        except (RtError, OSError) as error:
            print(f"ci.py: {error}", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
