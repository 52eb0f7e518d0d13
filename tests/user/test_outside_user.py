"""What an ordinary user is told who asks for network devices of the host, or for resctrl."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.inside import set_namespace
from lab.refusals import refused
from lab.runtime import Runtime
from lab.wrapped import Wrapped

ASKED: dict[str, dict[str, Any]] = {
    "linux.netDevices": {"netDevices": {"no-such-device": {"name": "eth0"}}},
    "linux.intelRdt": {"intelRdt": {"enableMonitoring": True}},
}


def asking(bundle: Bundle, field: str) -> Bundle:
    return set_namespace(bundle, "network").change(lambda config: config["linux"].update(ASKED[field]))


@pytest.mark.covers("linux.netDevices", "linux.intelRdt")
@pytest.mark.parametrize("field", ASKED)
def test_an_ordinary_user_is_refused_with_the_reason_and_nothing_happens(
    rt: Runtime, bundle: MakeBundle, field: str
) -> None:
    made = asking(bundle(), field)
    for words in (("run",), ("create",), ("--degrade=strict", "run"), ("--degrade=warn", "run")):
        line, hint = refused(rt, made, *words)
        assert line.startswith(f"config.json: {field}: only root of the host ") and "remove the field" in hint


@pytest.mark.parametrize("field", ASKED)
def test_root_of_an_engines_user_namespace_is_refused_just_so(
    rt: Runtime, bundle: MakeBundle, field: str
) -> None:
    """As podman starts a runtime without root: uid 0, with every capability, in a user namespace."""
    engine = Wrapped(rt, "unshare", "--user", "--map-root-user", "--mount")
    line, _ = refused(engine, asking(bundle(), field))
    assert line.startswith(f"config.json: {field}: only root of the host ")


@pytest.mark.parametrize("field", ASKED)
def test_a_plan_refuses_the_same(rt: Runtime, bundle: MakeBundle, field: str) -> None:
    done = rt("plan", "--bundle", str(asking(bundle(), field).path))
    assert (done.returncode, done.stdout) == (1, "") and "only root of the host" in done.stderr
