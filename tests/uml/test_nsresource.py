"""systemd 257's nsresourced on a kernel without the BPF LSM: it answers, and lends nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from lab.machines.machine import Machine


@pytest.fixture(scope="module", autouse=True)
def service(machine: Machine) -> Iterator[None]:
    machine.ok("systemctl start systemd-nsresourced.socket")
    yield
    machine.ok("systemctl stop systemd-nsresourced.socket systemd-nsresourced.service")


def test_its_refusal_is_explained(machine: Machine) -> None:
    bundle = machine.bundle("/bin/true", user="bare")
    done = machine.rt("run", "--idmap", "nsresource", "--bundle", bundle.path, "box", user="bare")
    assert done.code != 0 and "lends no ids: this kernel runs without the BPF LSM" in done.stderr
    assert "hint: boot with bpf in the kernel parameter lsm=" in done.stderr
    assert machine.rt("list", "--quiet", user="bare").stdout == ""


@pytest.mark.explains("RT-IDS-NSRESOURCE")
@pytest.mark.parametrize(("user", "status"), [("bare", "degraded"), ("alice", "ok")])
def test_the_doctor_minds_it_only_for_those_who_are_granted_nothing(
    user: str, status: str, machine: Machine
) -> None:
    found = json.loads(machine.rt("doctor", "--format", "json", user=user).stdout)["checks"]
    check = next(item for item in found if item["id"] == "RT-IDS-NSRESOURCE")
    assert check["status"] == status and "BPF LSM" in check["why"], check
