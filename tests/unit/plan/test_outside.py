"""What the runtime does itself, outside of the container: written in the plan, or refused with its reason."""

from __future__ import annotations

from typing import Any

import pytest
from lab.plans import Config, add_namespace, compiled, root_config, root_facts, user_config, user_facts

from rootless_rt.errors import SpecError
from rootless_rt.host.facts import HostFacts

ASKED: dict[str, dict[str, Any]] = {
    "linux.netDevices": {"netDevices": {"eth0": {"name": "net%d"}, "eth1": {}}},
    "linux.intelRdt": {"intelRdt": {"closID": "gold", "schemata": ["L3:0=f", "MB:0=20"], "enableCMT": True}},
}


def asking(config: Config, field: str) -> Config:
    config["linux"].update(ASKED[field])
    return config


def confined() -> HostFacts:
    """Root of a user namespace that an engine made."""
    facts = root_facts()
    facts.uid_map = facts.gid_map = [(0, 1000, 1), (1, 100000, 65536)]
    return facts


@pytest.mark.parametrize("field", ASKED)
@pytest.mark.parametrize("facts", [user_facts, confined], ids=["user", "engine"])
def test_without_root_of_the_host_it_is_refused_under_every_policy(field: str, facts: Any) -> None:
    config = asking(add_namespace(user_config(mounts=[]), "network"), field)
    for strict in (False, True):
        with pytest.raises(SpecError) as caught:
            compiled(config, facts(), strict=strict)
        assert caught.value.path == field and "only root of the host" in caught.value.message


def test_devices_need_the_capabilities_to_move_them() -> None:
    facts = root_facts()
    for bit in (12, 21):
        facts.capabilities = root_facts().capabilities & ~(1 << bit)
        with pytest.raises(SpecError, match="CAP_NET_ADMIN") as caught:
            compiled(asking(root_config(mounts=[]), "linux.netDevices"), facts)
        assert caught.value.path == "linux.netDevices"


def test_the_plan_says_what_is_done_outside() -> None:
    config = asking(asking(root_config(mounts=[]), "linux.netDevices"), "linux.intelRdt")
    said = compiled(config, root_facts()).outside
    assert [field for field, _ in said] == ["linux.netDevices"] * 2 + ["linux.intelRdt"] * 3
    assert "move eth0 " in said[0][1] and " as net%d" in said[0][1] and " as " not in said[1][1]
    assert said[2][1].endswith("group gold") and "L3:0=f, MB:0=20" in said[3][1] and " box " in said[4][1]


def test_a_plain_container_has_nothing_outside() -> None:
    config = root_config(mounts=[])
    config["linux"].update(netDevices={}, intelRdt={"enableMonitoring": False})
    assert compiled(config, root_facts()).outside == []
