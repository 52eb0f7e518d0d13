"""Checkpoints of containers in a scope of systemd."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab.criu import CRIU, carry
from lab.machines.debian import Unavailable
from lab.machines.machine import Machine
from lab.waiting import until

PLACE = "/lab/share/criu"
# There is no iptables in the machine: CRIU is to speak to the kernel itself.
SETTINGS = "network-lock nftables\n"
COUNT = "n=0; while :; do n=$((n + 1)); echo $n >> /count; sleep 0.02; done"


@pytest.fixture
def criu(machine: Machine) -> str:
    """The options by which rt in the machine finds a criu that works there."""
    assert machine.share is not None
    place = machine.share / "criu"
    if not place.exists():
        place.mkdir()
        try:
            carry(CRIU, place, Path(PLACE))
        except Unavailable as reason:
            pytest.skip(str(reason))
    options = f"--criu {PLACE}/criu"
    if "protobuf is not installed" in machine.ok(f"rt {options} features"):
        pytest.skip("needs the Python package protobuf")
    return options


def wait_counting(machine: Machine, path: str) -> None:
    machine.ok(f"for i in $(seq 1000); do [ -s {path}/rootfs/count ] && exit; sleep 0.05; done; exit 1")


def test_a_scope_ends_with_what_was_saved_and_with_a_restore_that_fails(machine: Machine, criu: str) -> None:
    # This machine lacks CAP_SYS_TIME, and CRIU gives what it restores clocks of its own: tests/qemu has the
    # whole way, this one how far it comes without.
    bundle = machine.bundle(COUNT, user="root")
    bundle.config["annotations"] = {"org.criu.config": f"{bundle.path}/criu.conf"}
    bundle.write()
    machine.write(f"{bundle.path}/criu.conf", SETTINGS)
    rt, quiet = f"rt --systemd-cgroup {criu}", "</dev/null >/dev/null 2>/dev/null"
    machine.ok(f"{rt} run -d -b {bundle.path} saved {quiet}")
    wait_counting(machine, bundle.path)
    assert load_state(machine, "rt-saved.scope") == "loaded"
    machine.ok(f"{rt} checkpoint --image-path {bundle.path}/images saved")
    until(lambda: load_state(machine, "rt-saved.scope") == "not-found", "the scope ends")
    words = f"--image-path {bundle.path}/images -b {bundle.path}"
    done = machine.run(f"{rt} restore -d {words} back </dev/null >/dev/null")
    assert done.code == 1
    assert done.stderr.splitlines() == [
        "rt: criu cannot restore it: Unable to set a monotonic clock offset: Operation not permitted",
        "hint: root needs CAP_SYS_TIME here: what is restored has clocks of its own",
    ]
    until(lambda: load_state(machine, "rt-back.scope") == "not-found", "the scope ends")
    assert machine.ok("rt list -q") == ""


def load_state(machine: Machine, unit: str) -> str:
    return machine.ok(f"systemctl show -P LoadState {unit}").strip()
