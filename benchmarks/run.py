"""Times `rt` beside runc, crun and bwrap: `python3 benchmarks/run.py`. How to read it is in README.md."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import report
from cases import CASES, Bench, Case, Peer
from lab import Unable, User, add_user, as_user, lookup, pss_kb, remove_user

CHECKOUT = Path(__file__).resolve().parent.parent
PEERS = ("rt", "runc", "crun", "bwrap")
SEARCH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def find_peers(rt: str | None) -> tuple[list[Peer], dict[str, str]]:
    """The peers that are here, by absolute path, and the reasons of those that are not."""
    found, missing = [], {}
    for name in PEERS:
        path = shutil.which(name, path=SEARCH)
        if name == "rt":
            built = CHECKOUT / "build/rt"
            path = rt or (str(built) if os.access(built, os.X_OK) else path)
        if path and os.access(path, os.X_OK):
            found.append(Peer(name, os.path.abspath(path)))
        else:
            missing[name] = f"{path} cannot be executed" if path else f"no {name} on PATH"
    return found, missing


def measure_cases(
    cases: Sequence[Case],
    peers: Sequence[Peer],
    user: User,
    rounds: int,
    inside: Callable[[Callable[[Callable[[int], int]], Any]], Any],
) -> list[dict[str, Any]]:
    """Measures `cases` as `user` in a private directory. `inside` calls the work where it is to run."""
    directory = Path(tempfile.mkdtemp(prefix="rtbench-"))
    os.chown(directory, user.uid, user.gid)

    def work(pss: Callable[[int], int]) -> list[dict[str, Any]]:
        os.chdir(directory)
        bench = Bench(peers, user, directory, rounds, pss)
        results = []
        for case in cases:
            try:
                results.append(bench.measure(case))
            except Unable as error:
                results.append(unmeasured(case, [peer.name for peer in peers], str(error)))
        return results

    try:
        result: list[dict[str, Any]] = inside(work)
    except Unable as error:
        return [unmeasured(case, [peer.name for peer in peers], str(error)) for case in cases]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return result


def unmeasured(case: Case, peers: Sequence[str], reason: str) -> dict[str, Any]:
    """The result of a case that could not run at all."""
    cells = {peer: {"reason": reason} for peer in peers}
    return {"case": case.name, "rows": [{"measure": case.title, "peers": cells}], "memory": []}


def measure_as_root(cases: Sequence[Case], peers: Sequence[Peer], rounds: int) -> list[dict[str, Any]]:
    """All cases: the ordinary user's as a user made for the duration, root's as root, in the same view."""
    results = []
    ordinary = [case for case in cases if not case.as_root]
    if ordinary:
        user = add_user()
        try:
            results += measure_cases(ordinary, peers, user, rounds, lambda work: as_user(user, work))
        finally:
            remove_user(user)
    privileged = [case for case in cases if case.as_root]
    if privileged:
        root = lookup(0)
        try:
            results += measure_cases(privileged, peers, root, rounds, lambda work: as_user(root, work))
        finally:
            remove_cgroups()
    return results


def remove_cgroups() -> None:
    """Removes the empty cgroups that a failed run as root may leave."""
    for top in ("/sys/fs/cgroup", *map(str, Path("/sys/fs/cgroup").iterdir())):
        for left in Path(top).glob("rtbench-*"):
            try:
                left.rmdir()
            except OSError:
                pass


def measure_as_self(cases: Sequence[Case], peers: Sequence[Peer], rounds: int) -> list[dict[str, Any]]:
    """What an ordinary user can: no view of its own, no case of root's."""
    ordinary = [case for case in cases if not case.as_root]
    results = measure_cases(ordinary, peers, lookup(os.getuid()), rounds, lambda work: work(pss_kb))
    names = [peer.name for peer in peers]
    return results + [unmeasured(case, names, "needs root") for case in cases if case.as_root]


def environment(peers: Sequence[Peer], rounds: int) -> list[tuple[str, str]]:
    """Where this was measured, as (what, value)."""
    models = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    model = models[0].split(":", 1)[1].strip() if models else ""
    pairs = [
        ("date", datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("kernel", f"{platform.release()} {platform.machine()}"),
        ("CPUs", f"{os.cpu_count()} {model}".strip()),
        ("python of the benchmark", platform.python_version()),
        ("rounds", str(rounds)),
    ]
    for peer in peers:
        pairs.append((peer.name, f"{_version(peer.path)}{_interpreter(peer.path)}"))
    return pairs


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []


def _version(path: str) -> str:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"version unknown ({error})"
    return (done.stdout.strip().splitlines() or ["version unknown"])[0]


def _interpreter(path: str) -> str:
    """The first line of a script, which says what interpreter its time includes; nothing for a binary."""
    with open(path, "rb") as file:
        first = file.readline(200)
    return f" ({first.decode(errors='replace').strip()})" if first.startswith(b"#!") else ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Times rt beside runc, crun and bwrap.")
    parser.add_argument("--rt", metavar="PATH", help="the rt to time (default: build/rt, else rt on PATH)")
    parser.add_argument("--rounds", type=int, default=40, metavar="N", help="goes of each peer (default 40)")
    names = [case.name for case in CASES]
    listed = f"cases to time, of: {' '.join(names)}"
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=listed)
    parser.add_argument("--markdown", action="store_true", help="tables as for a README")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least 1")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the user and the directory go, too
    peers, missing = find_peers(options.rt)
    cases = [case for case in CASES if case.name in options.only]
    measure = measure_as_root if os.getuid() == 0 else measure_as_self
    try:
        results = measure(cases, peers, options.rounds)
    except Unable as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    for result in results:
        for row in [*result["rows"], *result["memory"]]:
            row["peers"].update({name: {"reason": reason} for name, reason in missing.items()})
    facts = environment(peers, options.rounds)
    facts += [("cgroups in view", view) for view in sorted({one["view"] for one in results if "view" in one})]
    print(report.render(results, PEERS, facts, markdown=options.markdown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
