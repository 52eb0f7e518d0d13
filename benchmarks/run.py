"""Times `rt` beside runc, crun and bwrap: `python3 benchmarks/run.py`. How to read it is in README.md."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import draw
import facts
import report
import results
from cases import CASES
from contest import PEERS, Bench, Case, Peer
from lab import User, add_user, as_user, insist_reachable, lookup, pss_kb, remove_user
from measure import Unable

CHECKOUT = Path(__file__).resolve().parent.parent
LAST = CHECKOUT / "build/benchmarks.json"
SEARCH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def find_peers(rt: str | None, wanted: Sequence[str]) -> tuple[list[Peer], dict[str, str]]:
    """The peers that are here, by absolute path, and the reasons of those that are not."""
    found, missing = [], {}
    for name in wanted:
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
        measured = []
        for case in cases:
            try:
                measured.append(bench.measure(case))
            except Unable as error:
                measured.append(unmeasured(case, [peer.name for peer in peers], str(error)))
        return measured

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
    return {"case": case.name, "rows": [{"measure": case.title, "peers": cells}], "memory": [], "curves": []}


def measure_as_root(cases: Sequence[Case], peers: Sequence[Peer], rounds: int) -> list[dict[str, Any]]:
    """All cases: the ordinary user's as a user made for the duration, root's as root, in the same view."""
    measured = []
    ordinary = [case for case in cases if not case.as_root]
    if ordinary:
        user = add_user()
        try:
            insist_reachable(user, Path(__file__), [peer.path for peer in peers])
            measured += measure_cases(ordinary, peers, user, rounds, lambda work: as_user(user, work))
        finally:
            remove_user(user)
    privileged = [case for case in cases if case.as_root]
    if privileged:
        root = lookup(0)
        try:
            measured += measure_cases(privileged, peers, root, rounds, lambda work: as_user(root, work))
        finally:
            remove_cgroups()
    return measured


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
    measured = measure_cases(ordinary, peers, lookup(os.getuid()), rounds, lambda work: work(pss_kb))
    names = [peer.name for peer in peers]
    return measured + [unmeasured(case, names, "needs root") for case in cases if case.as_root]


def reported(options: argparse.Namespace) -> dict[str, Any]:
    """Measures what the options ask for; returns the content of a results file."""
    peers, missing = find_peers(options.rt, options.peers)
    cases = [case for case in CASES if case.name in options.only]
    measure = measure_as_root if os.getuid() == 0 else measure_as_self
    measured = measure(cases, peers, options.rounds)
    for one in measured:
        points = [point for curve in one["curves"] for point in curve["points"]]
        for row in [*one["rows"], *one["memory"], *points]:
            row["peers"].update({name: {"reason": reason} for name, reason in missing.items()})
    known = facts.environment(peers, options.rounds)
    known["cgroups in view"] = ", ".join(sorted({one["view"] for one in measured if "view" in one}))
    return results.summary(known, measured)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times rt beside runc, crun and bwrap.")
    parser.add_argument("--rt", metavar="PATH", help="the rt to time (default: build/rt, else rt on PATH)")
    parser.add_argument("--rounds", type=int, default=40, metavar="N", help="goes of each peer (default 40)")
    names = [case.name for case in CASES]
    listed = f"cases to time, of: {' '.join(names)}"
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=listed)
    beside = "who takes part (default: all that are here)"
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS, metavar="NAME", help=beside)
    parser.add_argument("--markdown", action="store_true", help="tables as for a README")
    kept = "write the figures here, and compare them with what was there (default build/benchmarks.json)"
    parser.add_argument("--results", type=Path, default=LAST, metavar="FILE", help=kept)
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with this results file instead")
    parser.add_argument(
        "--draw", type=Path, metavar="FILE", help="draw an SVG (or PNG, PDF); needs matplotlib"
    )
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    return options


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the user and the directory go, too
    try:
        if options.draw:
            draw.pyplot()  # before the long part: it may be missing
        results.insist_writable(options.results)
        before = options.against or (options.results if options.results.exists() else None)
        then = results.load(before) if before else None
        whole = reported(options)
        print(report.render(whole, PEERS, markdown=options.markdown))
        if then:
            print("", *report.compared(whole, then, markdown=options.markdown), sep="\n")
        results.save(whole, options.results)
        if options.draw:
            draw.draw(whole, options.draw)
    except Unable as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
