"""`rt doctor` and the switches that only a kernel of one's own may have turned."""

from __future__ import annotations

import json

import pytest
from lab.machines.machine import Machine


@pytest.mark.explains("RT-USERNS-CLONE")
def test_debian_s_switch_is_told_and_the_script_turns_it(machine: Machine) -> None:
    switch = "/proc/sys/kernel/unprivileged_userns_clone"
    if machine.run(f"test -e {switch}").code != 0:
        pytest.skip("this machine's kernel has no such switch")
    machine.ok(f"echo 0 > {switch}")
    try:
        done = machine.rt("doctor", "--format", "json", user="alice")
        found = {item["id"]: item for item in json.loads(done.stdout)["checks"]}
        assert done.code == 2 and found["RT-USERNS-CLONE"]["status"] == "blocked"
        assert found["RT-USERNS-REFUSED"]["status"] == found["RT-USERNS-CHROOT"]["status"] == "ok"
        file, load = found["RT-USERNS-CLONE"]["commands"]
        assert load.startswith("sysctl -q -p /etc/sysctl.d/")
        machine.ok(file)
        machine.ok(f"{load}; test $(cat {switch}) = 1")
        assert machine.rt("doctor", user="alice").code < 2
    finally:
        machine.ok(f"echo 1 > {switch}; rm -f /etc/sysctl.d/80-rt-*")
