"""Shows that the tests of attacks can fail: takes one protection out at a time, in a copy of the tree.

    red_runs.py            every patch of tests/cve/red
    red_runs.py NAME...    those whose name has NAME in it

A copy is built with the patch (`red_patches.py` tells its form), its tests run, and the run is red when every
one of them has failed: a failed assertion, not an error of the set-up. The exit status is 1 when one stayed
green, or a patch does not apply any more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import setup
from red_patches import applies, named_tests, patches
from setup import SetupError, say

SECONDS = 300


def build(copy: Path, environment: dict[str, str]) -> None:
    """Compiles the copy. Raises SetupError."""
    sites = [str(setup.site_packages()), "/usr/lib/python3/dist-packages"]
    script = copy / "rootless_rt/init/build.sh"
    setup.quietly([script, "rt-init", copy / "build/rt-init"], env=environment)
    setup.quietly([script, "launcher", copy / "build/rt", copy, *sites], env=environment)


def is_red(copy: Path, test: str, environment: dict[str, str]) -> tuple[bool, str]:
    """Whether the test failed in the copy, and pytest's closing line."""
    words = [str(setup.venv_python()), "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=no", test]
    try:
        done = subprocess.run(
            words, cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return True, f"hung for {SECONDS} s"
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()]
    return done.returncode == 1 and "failed" in lines[-1], lines[-1]


def run(patch: Path) -> bool:
    """One patch, in a copy of its own; whether all of its tests failed."""
    tests = named_tests(patch)
    copy = setup.scratch_copy()
    try:
        (copy / "build").mkdir(exist_ok=True)
        if not applies(patch, copy):
            say(f"{patch.stem}: does not apply")
            return False
        environment = {**os.environ, "PYTHON": sys.executable, "RT": str(copy / "build/rt")}
        build(copy, environment)
        red = True
        for test in tests:
            failed, closing = is_red(copy, test, environment)
            say(f"{patch.stem}: {'red' if failed else 'STAYED GREEN'}: {test}: {closing}")
            red &= failed
        return red
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def main(names: list[str]) -> int:
    wanted = [patch for patch in patches() if not names or any(name in patch.stem for name in names)]
    results = [run(patch) for patch in wanted]
    print(f"{sum(results)} red, {len(results) - sum(results)} not")
    return 0 if all(results) and results else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (SetupError, ValueError) as problem:
        print(f"red runs: {problem}", file=sys.stderr)
        sys.exit(1)
