"""Checkpoints that ask more of a kernel, and of root, than most machines for tests give."""

from __future__ import annotations

import pytest
from lab.machines.machine import Machine

# 2 MB of memory that is not touched until its length is asked for.
HOLDER = "kept=$(head -c 2000000 /dev/zero | tr '\\0' a); while :; do echo . >> /ticks; sleep 0.2;"
HOLDER += " [ -e /ask ] && echo ${#kept} > /told; done"


def background(machine: Machine, command: str) -> None:
    """Start a container with /dev/null as stdio: CRIU opens files anew."""
    errors = "/run/background-errors"
    machine.ok(f"{command} </dev/null >/dev/null 2>{errors} || {{ cat {errors} >&2; exit 1; }}")


def ticks(machine: Machine, path: str) -> int:
    return int(machine.ok(f"cat {path}/rootfs/ticks 2>/dev/null | wc -l").strip())


def goes_on(machine: Machine, path: str) -> None:
    before = ticks(machine, path)
    lines = f"$(cat {path}/rootfs/ticks 2>/dev/null | wc -l)"
    machine.ok(f"for i in $(seq 300); do [ {lines} -gt {before} ] && exit; sleep 0.2; done; exit 1")


def holds(machine: Machine, path: str) -> None:
    """The restored program has its memory."""
    wait = f"for i in $(seq 100); do [ -s {path}/rootfs/told ] && break; sleep 0.2; done"
    assert machine.ok(f"touch {path}/rootfs/ask; {wait}; sort -u {path}/rootfs/told") == "2000000\n"


@pytest.mark.covers("checkpoint --pre-dump", "checkpoint --parent-path")
def test_a_chain_of_three_saves_what_has_changed(machine: Machine) -> None:
    path = machine.bundle(HOLDER, user="root").path
    background(machine, f"rt run -d -b {path} chain")
    goes_on(machine, path)
    machine.ok(f"rt checkpoint --pre-dump --image-path {path}/first chain")
    goes_on(machine, path)
    machine.ok(f"rt checkpoint --pre-dump --image-path {path}/second --parent-path ../first chain")
    goes_on(machine, path)
    machine.ok(f"rt checkpoint --image-path {path}/third --parent-path ../second chain")
    sizes = [
        int(machine.ok(f"cat {path}/{step}/pages-*.img | wc -c").strip())
        for step in ("first", "second", "third")
    ]
    assert sizes[0] > 2_000_000 > 1_000_000 > sizes[1] and sizes[2] < 1_000_000, sizes
    background(machine, f"rt restore -d --image-path {path}/third -b {path} chain")
    goes_on(machine, path)
    holds(machine, path)


@pytest.mark.covers("checkpoint --lazy-pages", "checkpoint --status-fd", "restore --lazy-pages")
def test_memory_is_fetched_as_it_is_needed(machine: Machine) -> None:
    path = machine.bundle(HOLDER, user="root").path
    background(machine, f"rt run -d -b {path} lazy")
    goes_on(machine, path)
    where = f"--page-server --address 127.0.0.1 --port 7788 -D {path}/images -W {path}/work"
    script = f"""
        mkdir -m 700 {path}/work
        rt checkpoint --image-path {path}/images --lazy-pages --status-fd 3 \\
            --page-server 127.0.0.1:7788 lazy 3>{path}/status &
        source=$!
        until [ -s {path}/status ]; do sleep 0.1; done
        criu lazy-pages {where} & fetcher=$!
        until [ -e {path}/work/lazy-pages.socket ]; do sleep 0.1; done
        rt restore -d --lazy-pages --image-path {path}/images --work-path {path}/work -b {path} moved \\
            </dev/null >/dev/null 2>{path}/errors || {{ cat {path}/errors; exit 1; }}
        wait $source && wait $fetcher
    """
    machine.ok(f"set -e; {script}", timeout=100)
    goes_on(machine, path)
    holds(machine, path)
    assert machine.ok("rt list -q") == "moved\n"
