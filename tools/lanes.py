"""`./test`: sets up, builds rt in the tree, runs the test lanes, and sums them up.

    test                 every lane that can run here, but those that are run by name only (qemu)
    test LANE...         these lanes (see LANES; `check` stands for ruff, mypy and unit)
    test --setup         set up and build only

Where there are two CPUs, the lanes that have machines or containers of their own run beside the others, and
those that need the whole machine after them. A test that hangs is ended, so is a lane, and so is what either
leaves running. Every runner's output is passed on, its closing line included; the last lines are one a
runner, and the total alone on its line: `N passed, N failed, N skipped`. The exit status is 1 when anything
failed. The lanes find the built command as $RT, and as `rt` on PATH. Nothing reads the terminal.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import setup
import tracks
from runner import Runner
from setup import BUILD, ROOT, TREE, VENV, SetupError, say

PYTHON_PACKAGES = [
    *("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "mypy", "ruff"),
    *("click", "pyseccomp", "jeepney", "pyroute2", "tqdm", "pyyaml"),
]
TEST_LIMIT = 240  # seconds for one test
BUILD_LIMIT = 540  # for one that may have to build a Debian root first
LANE_LIMIT = 1800  # seconds
PYTEST = [
    *(str(VENV / "bin/python3"), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-ra"),
    *("--timeout", str(TEST_LIMIT), "--timeout-method", "signal"),
]
# Tests without containers of their own, on every processor; the tests of a file stay together.
CPUS = min(os.cpu_count() or 1, 8)
SPREAD = ["-n", str(CPUS), "--dist", "loadfile"] if CPUS > 1 else []
TEST_USER = "made by the tests of rt"  # the comment of the accounts that tests make: a name and a process id


class Lane:
    """One runner: its name, its command, the files of its tests (none: left out), if it needs root, and what
    Debian packages it alone needs, and what Python packages its tests can use. One with `asked_by`, the name
    of a variable, is run only by its own name, or when the environment sets that to 1. One that is `beside`
    the others has machines or containers of its own, and can run while they do; one that is `alone` needs the
    whole machine to keep its times.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        tests: str = "",
        *,
        root: bool = False,
        needs: tuple[str, ...] = (),
        uses: tuple[str, ...] = (),
        asked_by: str = "",
        beside: bool = False,
        alone: bool = False,
    ) -> None:
        self.name = name
        self.command = command
        self.tests = tests
        self.root = root
        self.needs = needs
        self.uses = uses
        self.asked_by = asked_by
        self.beside = beside
        self.alone = alone


def _pytest(name: str, *options: str, **more: Any) -> Lane:
    return Lane(name, [*PYTEST, *options, f"tests/{name}"], f"tests/{name}/**/test_*.py", **more)


def _machine(
    name: str, *needs: str, uses: tuple[str, ...] = (), asked_by: str = "", alone: bool = False
) -> Lane:
    """Tests in a machine of tests/lab/machines: building its Debian root belongs to the first of them."""
    command = [*PYTEST, "--timeout", str(BUILD_LIMIT), f"tests/{name}"]
    needed = (*setup.FOR_MACHINES, *needs)
    tests = f"tests/{name}/**/test_*.py"
    return Lane(
        name,
        command,
        tests,
        root=True,
        needs=needed,
        uses=uses,
        asked_by=asked_by,
        beside=not alone,
        alone=alone,
    )


LANES = (
    Lane("ruff", [str(VENV / "bin/ruff"), "check", "--output-format", "concise", "."]),
    Lane("mypy", [str(VENV / "bin/mypy")], beside=True),
    _pytest("unit", *SPREAD, "-m", "not hypothesis"),
    # Those of tests/unit that draw many examples: a third of its time. Hypothesis marks them itself.
    Lane("property", [*PYTEST, "-m", "hypothesis", "tests/unit"], "tests/unit/**/test_*.py", beside=True),
    _pytest("user"),
    _pytest("root", root=True),
    _pytest("cve", beside=True),
    _pytest("criu", root=True, needs=setup.FOR_CRIU, uses=("protobuf",), beside=True),
    _pytest("fuzz", needs=("clang", "libclang-rt-dev"), beside=True),
    _machine("systemd", uses=("protobuf",)),
    _machine("uml", alone=True),
    _machine("qemu", "qemu-system-x86", asked_by="RT_QEMU", alone=True),
    _pytest("engines", needs=(*setup.FOR_ENGINES, *setup.FOR_MACHINES), uses=("grpcio",), beside=True),
    Lane(
        "bats",
        ["bats", "--formatter", "pretty", "--recursive", "bats"],
        "bats/**/*.bats",
        needs=("bats", "mmdebstrap"),
        beside=True,
    ),
)
GROUPS = {"check": ["ruff", "mypy", "unit"]}

# The word after a number in a closing line of pytest or bats, and what it counts as here.
COUNTED = {
    "passed": 0, "xpassed": 0,
    "failed": 1, "failure": 1, "failures": 1, "error": 1, "errors": 1,
    "skipped": 2, "xfailed": 2,
}  # fmt: skip
CLOSING = re.compile(r"^(=+ )?\d+ (passed|failed|errors?|skipped|xfailed|xpassed|deselected|tests?)\b")


def counts(closing: str) -> list[int]:
    """[passed, failed, skipped] of a closing line such as `3 passed in 0.2s` or `4 tests, 1 failure`."""
    found = [0, 0, 0]
    tests = None
    for number, word in re.findall(r"(\d+) ([a-z]+)", closing):
        if word in COUNTED:
            found[COUNTED[word]] += int(number)
        elif word in ("test", "tests"):
            tests = int(number)
    if tests is not None:  # bats counts everything, then what did not pass
        found[0] = tests - found[1] - found[2]
    return found


def plain(line: str) -> str:
    """What a terminal would show of a line in the end: bats paints over its progress, in colour."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line.rpartition("\x1b[1G")[2])


def run(lane: Lane, environment: dict[str, str]) -> list[int]:
    """Runs one lane with its output passed on; returns [passed, failed, skipped]."""
    print(f"\n== {lane.name}: {' '.join(Path(word).name for word in lane.command)}", flush=True)
    closing = ""

    def take(line: str) -> None:
        nonlocal closing
        line = plain(line)
        print(line, end="", flush=True)
        if CLOSING.match(line):
            closing = line

    runner = Runner(lane.command, TREE, environment, LANE_LIMIT)
    try:
        status = runner.run(take)
    finally:
        remove_users()
    for name in runner.leftovers:
        print(f"{lane.name}: left running, now killed: {name}")
    if not lane.tests:  # a checker: it has no tests to count, itself it is one
        print(f"{lane.name}: {'clean' if status == 0 else 'not clean'}", flush=True)
        return [1, 0, 0] if status == 0 else [0, 1, 0]
    found = counts(closing)
    if status not in (0, 5) and not found[1]:  # 5: pytest found no test
        why = f"stopped after {LANE_LIMIT} s" if runner.stopped else f"ended with status {status}"
        print(f"\n{lane.name}: {why}", flush=True)
        found[1] = 1
    return found


def remove_users() -> None:
    """Removes the accounts of tests that were killed before they could."""
    if not ROOT:
        return
    for entry in pwd.getpwall():
        maker = re.search(r"\d+$", entry.pw_name)
        if entry.pw_gecos == TEST_USER and maker and not os.path.exists(f"/proc/{maker[0]}"):
            subprocess.run(["userdel", "--remove", entry.pw_name], stderr=subprocess.DEVNULL, check=False)


def prepare(lanes: Sequence[Lane]) -> dict[str, str]:
    """Packages, virtual environment, build; returns the environment for the lanes. Raises SetupError."""
    setup.packages(dict.fromkeys([*setup.FOR_TESTS, *(name for lane in lanes for name in lane.needs)]))
    if not setup.make_venv():
        raise SetupError("the tests need a virtual environment: apt-get install -y python3-venv")
    setup.pip_install(PYTHON_PACKAGES)
    for name in dict.fromkeys(name for lane in lanes for name in lane.uses):
        try:
            setup.pip_install([name])
        except SetupError as error:  # not made for every Python
            say(f"going on without {name}: {setup.reason(error)}")
    rt = setup.build_in_tree()
    path = f"{BUILD}:{VENV / 'bin'}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return {**os.environ, "PATH": path, "RT": str(rt), "TERM": os.environ.get("TERM") or "dumb"}


def chosen(names: list[str]) -> list[Lane]:
    """The lanes of these names, in the order of LANES; the usual ones when there are none."""
    wanted = [each for name in names for each in GROUPS.get(name, [name])]
    known = [lane.name for lane in LANES]
    for name in wanted:
        if name not in known:
            raise SetupError(f"no lane {name}: there are {', '.join([*GROUPS, *known])}")
    if wanted:
        return [lane for lane in LANES if lane.name in wanted]
    return [lane for lane in LANES if not lane.asked_by or os.environ.get(lane.asked_by) == "1"]


def sum_up(results: list[tuple[str, list[int]]]) -> int:
    """Prints a line for each runner and the total; returns the exit status."""
    print()
    width = max((len(name) for name, _ in results), default=0) + 2
    for name, (passed, failed, skipped) in results:
        print(f"{name + ':':<{width}}{passed} passed, {failed} failed, {skipped} skipped")
    passed, failed, skipped = (sum(found[i] for _, found in results) for i in range(3))
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed else 0


def elsewhere(arguments: list[str]) -> int:
    """The same in a copy that the tests' ordinary users can reach."""
    copy = setup.scratch_copy()
    say(f"ordinary users cannot reach {TREE}: testing a copy in {copy}")
    try:
        return subprocess.run([copy / "test", *arguments], cwd=copy, check=False).returncode
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def main(arguments: list[str]) -> int:
    if arguments in (["-h"], ["--help"]):
        print("usage: ./test [--setup | LANE...]")
        print("lanes:", *GROUPS, *(lane.name for lane in LANES))
        return 0
    if arguments == ["--setup"]:
        prepare(chosen([]))
        setup.give_back()
        return 0
    if arguments[:1] == ["--track"]:  # a part of a run that has set up everything: see tracks.py
        tracks.write(run_in_turn(chosen(arguments[2:]), dict(os.environ)), Path(arguments[1]))
        return 0
    lanes = chosen(arguments)
    if ROOT and not setup.reachable_by_others():
        return elsewhere(arguments)
    try:
        return run_all(lanes)
    finally:
        setup.give_back()


def run_all(lanes: list[Lane]) -> int:
    """Sets up, runs the lanes, prints the sums; returns the exit status."""
    environment = prepare(lanes)
    able = []
    for lane in lanes:
        if lane.tests and not any(TREE.glob(lane.tests)):
            continue
        if lane.root and not ROOT:
            print(f"\n== {lane.name}: not run, it needs root: sudo ./test {lane.name}")
            continue
        able.append(lane)
    aside = [lane.name for lane in able if lane.beside]
    rest = [lane.name for lane in able if not lane.beside and not lane.alone]
    last = [lane.name for lane in able if lane.alone]
    if aside and rest and CPUS > 1:
        program = Path(__file__).resolve()
        results = tracks.run(program, [rest, aside], environment)
        return sum_up(results + (tracks.run(program, [last], environment) if last else []))
    return sum_up(run_in_turn(able, environment))


def run_in_turn(lanes: list[Lane], environment: dict[str, str]) -> tracks.Results:
    """Runs the lanes one after the other; what each counted."""
    results = []
    for lane in lanes:
        start = time.monotonic()
        results.append((lane.name, run(lane, environment)))
        print(f"{lane.name}: took {time.monotonic() - start:.0f} s", flush=True)
    return results


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except SetupError as problem:
        print(f"rt set-up: {problem}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
