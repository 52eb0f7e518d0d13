"""The work of reading and planning grows with the config and no faster: counted in bytecodes, not in time."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from lab.plans import compiled, root_config, root_facts, user_config

from rootless_rt.plan.ops import encode

SMALL = 40


def bytecodes(work: Callable[[], object]) -> int:
    """How many instructions of Python's this work executes."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def mounts(count: int) -> dict[str, Any]:
    config = user_config()
    for number in range(count):
        bind = {
            "destination": f"/data/{number}",
            "type": "bind",
            "source": "/srv",
            "options": ["rbind", "ro"],
        }
        config["mounts"].append(bind)
    return config


def maps(count: int) -> dict[str, Any]:
    config = user_config()
    lines = [{"containerID": 2 * n, "hostID": 100_000 + 3 * n, "size": 1} for n in range(count)]
    config["linux"].update(uidMappings=lines, gidMappings=copy.deepcopy(lines))
    return config


def environment(count: int) -> dict[str, Any]:
    config = root_config()
    config["process"]["env"] = [f"NAME{number}=value" for number in range(count)]
    return config


def masks(count: int) -> dict[str, Any]:
    config = root_config()
    config["linux"]["maskedPaths"] = [f"/proc/hidden{number}" for number in range(count)]
    return config


def devices(count: int) -> dict[str, Any]:
    config = root_config()
    config["linux"]["devices"] = [
        {"path": f"/dev/extra{number}", "type": "c", "major": 1, "minor": number} for number in range(count)
    ]
    return config


def seccomp(count: int) -> dict[str, Any]:
    config = root_config()
    names = [f"call_{number}" for number in range(count)]
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": [name], "action": "SCMP_ACT_ALLOW"} for name in names],
    }
    return config


@pytest.mark.parametrize("grown", [mounts, maps, environment, masks, devices, seccomp])
def test_twice_as_much_in_a_config_is_twice_the_work(grown: Callable[[int], dict[str, Any]]) -> None:
    def cost(count: int) -> int:
        config = grown(count)
        facts = root_facts() if grown not in (mounts, maps) else None

        def work() -> None:
            encode(compiled(config, facts).ops)

        work()  # what is imported on the way is not counted
        return bytecodes(work)

    small, middle, large = (cost(SMALL * factor) for factor in (1, 2, 4))
    assert small < middle < large
    # The second step is twice the first; a quadratic term would make it up to four times as long.
    assert large - middle < 2.2 * (middle - small)
