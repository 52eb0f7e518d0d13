"""`rt doctor` on a system that systemd runs: the user manager, its bus and what it delegates."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lab.machines.machine import Machine


def look(machine: Machine, command: str, user: str = "alice") -> dict[str, dict[str, Any]]:
    done = machine.run(f"{command} rt doctor --format json", user=user)
    assert done.stderr == "" and done.code in (0, 1, 2), done
    return {item["id"]: item for item in json.loads(done.stdout)["checks"]}


def test_a_login_has_a_bus_and_what_its_manager_delegates(machine: Machine) -> None:
    found = look(machine, "")
    assert found["RT-SYSTEMD-BUS"]["why"].endswith("/bus")
    assert found["RT-CGROUP-DELEGATED"]["why"] == "a scope of the systemd user manager"
    assert found["RT-CGROUP-VERSION"]["why"] == "v2"


def test_without_variables_the_bus_is_found_all_the_same(machine: Machine) -> None:
    found = look(machine, "env -u XDG_RUNTIME_DIR -u DBUS_SESSION_BUS_ADDRESS")
    assert found["RT-SYSTEMD-BUS"]["status"] == found["RT-SESSION-RUNTIME-DIR"]["status"] == "ok"


def test_after_su_from_root_the_foreign_runtime_directory_is_told(machine: Machine) -> None:
    found = look(machine, "env XDG_RUNTIME_DIR=/run DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/0/bus")
    assert "belongs to uid 0, not to you: rt takes /run/user/1000" in found["RT-SESSION-RUNTIME-DIR"]["why"]
    assert found["RT-SESSION-RUNTIME-DIR"]["fix"] == "export XDG_RUNTIME_DIR=/run/user/1000"
    assert found["RT-SYSTEMD-BUS"]["why"] == "/run/user/1000/bus", "the user's own is found behind it"


@pytest.mark.explains("RT-SYSTEMD-BUS", "RT-SYSTEMD-LINGER")
def test_a_user_without_a_manager_is_told_to_linger(machine: Machine) -> None:
    found = look(machine, "setpriv --reuid daemon --regid daemon --clear-groups", "root")
    assert found["RT-SYSTEMD-BUS"]["status"] == "degraded"
    assert found["RT-SYSTEMD-BUS"]["commands"] == ["loginctl enable-linger daemon"]
    assert found["RT-SYSTEMD-LINGER"]["status"] == "degraded"
