"""Mounts with mapped ids, asked for by an ordinary user: refused before anything is made."""

from __future__ import annotations

import pytest
from conftest import MakeBundle
from lab.inside import refusal
from lab.runtime import Runtime

MAP = [{"containerID": 0, "hostID": 0, "size": 1}]


@pytest.mark.covers("mounts[].uidMappings", "mounts[].gidMappings", "mounts[].options idmap")
@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (["bind", "idmap"], {}),
        (["rbind", "ridmap"], {}),
        (["bind", "idmap=uids=0-0-1;gids=0-0-1"], {}),
        (["bind"], {"uidMappings": MAP, "gidMappings": MAP}),
    ],
)
def test_the_reason_and_another_way_are_named(
    options: list[str], fields: dict[str, object], rt: Runtime, bundle: MakeBundle
) -> None:
    item = {"destination": "/v", "type": "bind", "source": "/usr", "options": options, **fields}
    made = bundle().change(lambda config: config["mounts"].append(item))
    error = refusal(rt, made)
    assert "mounts[" in error and "only root can map the ids of a mount" in error
    assert "linux.uidMappings" in error


def test_other_mounts_cannot_have_it(rt: Runtime, bundle: MakeBundle) -> None:
    item = {"destination": "/v", "type": "tmpfs", "source": "t", "options": ["idmap"]}
    made = bundle().change(lambda config: config["mounts"].append(item))
    assert "only a bind mount can have its ids mapped" in refusal(rt, made)
