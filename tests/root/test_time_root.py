"""Time namespaces of root's containers."""

from __future__ import annotations

import os
import subprocess

import pytest
from conftest import MakeBundle
from lab.inside import held, map_ids, output, set_namespace
from lab.runtime import Runtime

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/proc/self/ns/time"),
    reason="root's, on a kernel with time namespaces",
)
AHEAD = 1_000_000
OFFSETS = {"boottime": {"secs": AHEAD}, "monotonic": {"secs": AHEAD}}


@pytest.mark.covers("linux.timeOffsets", "linux.timeOffsets[].secs")
def test_the_clocks_are_set_apart_and_shared_with_exec(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = set_namespace(root_bundle(), "time").change(
        lambda config: config["linux"].update(timeOffsets=OFFSETS)
    )
    held(root_rt, made, "first")
    assert float(root_rt.ok("exec", "first", "cat", "/proc/uptime").split()[0]) > AHEAD


def test_it_belongs_to_a_new_user_namespace(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = map_ids(set_namespace(root_bundle(), "user"), (0, 100000, 65536))
    set_namespace(made, "time").change(lambda config: config["linux"].update(timeOffsets=OFFSETS))
    subprocess.run(["chown", "-R", "-h", "100000:100000", str(made.rootfs)], check=True)
    assert float(output(root_rt, made, "cat /proc/uptime").split()[0]) > AHEAD


@pytest.mark.covers("linux.namespaces[].path")
def test_that_of_another_process_is_joined(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    made = set_namespace(root_bundle(), "time").change(
        lambda config: config["linux"].update(timeOffsets=OFFSETS)
    )
    pid = held(root_rt, made, "first")
    joined = set_namespace(root_bundle(), "time", f"/proc/{pid}/ns/time")
    set_namespace(joined, "network", f"/proc/{pid}/ns/net")
    assert float(output(root_rt, joined, "cat /proc/uptime").split()[0]) > AHEAD
