"""The same config with rt, crun and runc of Debian 13: the same values in the kernel's files."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from lab.machines.machine import Machine
from lab.managers import ROOT_FILES, USER_SYSTEMD, Way, limited

MEGABYTE = 1 << 20
DISK = {"major": 98, "minor": 0}
CASES: dict[str, dict[str, Any]] = {
    "limits": {
        "memory": {"limit": 64 * MEGABYTE, "swap": 96 * MEGABYTE, "reservation": 32 * MEGABYTE},
        "cpu": {"shares": 512, "quota": 50000, "period": 200000},
        "pids": {"limit": 20},
        "unified": {"memory.high": str(48 * MEGABYTE)},
    },
    "none": {
        "memory": {"limit": -1, "swap": -1},
        "cpu": {"shares": 262144, "quota": -1, "period": 100000},
        "pids": {"limit": -1},
    },
    "least": {"memory": {"limit": 16 * MEGABYTE, "swap": 16 * MEGABYTE}, "cpu": {"shares": 2}},
    "disk": {
        "blockIO": {
            "throttleReadBpsDevice": [{**DISK, "rate": MEGABYTE}],
            "throttleWriteIOPSDevice": [{**DISK, "rate": 200}],
        }
    },
}
MEMORY = ["memory.max", "memory.swap.max", "memory.low", "memory.high"]
FILES = [*MEMORY, "cpu.weight", "cpu.max", "pids.max", "io.max"]
SHOW = f"cd /sys/fs/cgroup; for f in {' '.join(FILES)}; do echo $f: $(cat $f 2>/dev/null); done"
PEERS = ("rt", "crun", "runc")
# (file, the value of rt) -> why Debian 13's crun 1.21 or runc 1.1 have another one.
EXPLAINED = {
    ("cpu.weight", "59"): "they convert shares by a line; since 2025 all three do by the same curve",
}
TASKS = "systemd's default for a unit; crun's container is in a cgroup below its scope"
NUMBERS = itertools.count(1)


def asked(way: Way, peer: str, resources: dict[str, Any]) -> dict[str, Any]:
    """The resources as a peer is asked for them.

    Debian 13's crun 1.21 gives systemd a quota of -1 as one of some years a second, which overflows there:
    its scope gets 1 % of a processor, and a few programs in it take a minute and more.
    """
    if peer == "crun" and way is USER_SYSTEMD and resources.get("cpu", {}).get("quota") == -1:
        cpu = {name: value for name, value in resources["cpu"].items() if name != "quota"}
        return {**resources, "cpu": cpu}
    return resources


def values(machine: Machine, way: Way, peer: str, resources: dict[str, Any]) -> dict[str, str]:
    bundle = limited(machine, way, SHOW, **asked(way, peer, resources))
    if peer == "rt":
        done = way.rt(machine, "run", "--bundle", bundle.path, f"box{next(NUMBERS)}")
    else:
        option = ["--systemd-cgroup"] if way is not ROOT_FILES else []
        done = machine.run([peer, *option, "run", "--bundle", bundle.path, f"box{next(NUMBERS)}"], way.user)
    if done.code != 0:
        return {"error": (done.stderr.strip().splitlines() or ["?"])[-1]}
    return dict(line.partition(": ")[::2] for line in done.stdout.splitlines())


def explained(way: Way, case: str, file: str, ours: str) -> str:
    if file == "pids.max" and way is USER_SYSTEMD and "pids" not in CASES[case]:
        return TASKS
    return EXPLAINED.get((file, ours), "DIFFERS")


@pytest.mark.parametrize("way", [ROOT_FILES, USER_SYSTEMD], ids=repr)
def test_the_files_have_the_values_that_crun_and_runc_give_them(machine: Machine, way: Way) -> None:
    missing = [peer for peer in PEERS[1:] if machine.run(f"command -v {peer}").code != 0]
    assert not missing
    lines = [f"{'':12} {'':16} {'rt':>22} {'crun':>22} {'runc':>22}"]
    unexplained = []
    for case, resources in CASES.items():
        if case == "disk" and way.user != "root":
            continue  # not delegated: the peers refuse, rt goes on and says so (test_limits.py)
        found = {peer: values(machine, way, peer, resources) for peer in PEERS}
        for file in [*FILES, "error"]:
            row = [found[peer].get(file, "-") for peer in PEERS]
            if set(row) == {"-"}:
                continue
            mark = "" if len(set(row)) == 1 else explained(way, case, file, row[0])
            lines.append(f"{case:12} {file:16} {row[0]:>22} {row[1]:>22} {row[2]:>22} {mark}")
            if mark == "DIFFERS":
                unexplained.append(lines[-1])
    print(f"\n{way}", *lines, sep="\n")
    assert not unexplained, "\n".join(unexplained)
