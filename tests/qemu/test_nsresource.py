"""Ids lent by systemd 257's own nsresourced, which needs the BPF LSM: this lane alone has a kernel for it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from lab.machines.machine import Machine

REGISTRY = "/run/systemd/nsresource/registry"


@pytest.fixture(scope="module", autouse=True)
def service(machine: Machine) -> Iterator[None]:
    machine.ok("systemctl start systemd-nsresourced.socket systemd-nsresourced.service")
    yield
    machine.ok("systemctl stop systemd-nsresourced.socket systemd-nsresourced.service")


def test_a_user_without_a_grant_is_lent_a_range(machine: Machine) -> None:
    bundle = machine.bundle(
        ["sh", "-c", "cat /proc/self/uid_map /proc/self/gid_map; id -u; id -G"], user="bare"
    )
    bundle.change(lambda config: config["process"].update(user={"uid": 33, "gid": 34, "additionalGids": [7]}))
    done = machine.rt("run", "--idmap", "nsresource", "--bundle", bundle.path, "box", user="bare")
    assert (done.code, done.stderr) == (0, "")
    *maps, uid, groups = done.stdout.splitlines()
    (inside, outside, count), gids = (list(map(int, line.split())) for line in maps)
    assert (
        [inside, count] == [0, 65536] and 524288 <= outside < 1879048192 and gids == [inside, outside, count]
    )
    assert (uid, groups) == ("33", "34 7")


def test_a_container_is_entered_and_its_range_goes_back(machine: Machine) -> None:
    bundle = machine.bundle(["sleep", "1000"], user="bare")
    words = ["run", "--detach", "--idmap", "nsresource", "--bundle", bundle.path, "box"]
    assert machine.rt(*words, user="bare").code == 0
    assert "u" in machine.ok(f"ls {REGISTRY}")
    done = machine.rt("exec", "--user", "5:6", "box", "id", "-u", user="bare")
    assert (done.code, done.stdout) == (0, "5\n")
    assert machine.rt("delete", "--force", "box", user="bare").code == 0
    machine.ok(
        f"for i in $(seq 50); do [ $(ls {REGISTRY}) = lock ] && exit; sleep 0.1; done; ls {REGISTRY}; exit 1"
    )


def test_auto_takes_them_for_a_rootfs_of_somebody_else_s(machine: Machine) -> None:
    bundle = machine.bundle(["cat", "/proc/self/uid_map"], user="bare")
    machine.ok(f"chown -R root:root {bundle.path}/rootfs")
    done = machine.rt("run", "--idmap", "auto", "--bundle", bundle.path, "box", user="bare")
    assert done.code == 0 and done.stdout.split()[2] == "65536" and "nsresourced lends the ids" in done.stderr


def test_the_doctor_names_the_service(machine: Machine) -> None:
    found = json.loads(machine.rt("doctor", "--format", "json", user="bare").stdout)["checks"]
    check = next(item for item in found if item["id"] == "RT-IDS-NSRESOURCE")
    assert check["status"] == "ok" and check["why"].startswith("systemd-nsresourced 257")
