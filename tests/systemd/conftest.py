"""The machine of this lane: systemd in namespaces of this kernel, booted once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab.machines.boot import lasting, systemd_machine
from lab.machines.debian import Unavailable
from lab.machines.machine import Machine


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """run(command, user=..., timeout=...) -> code, stdout, stderr; see lab/machines/machine.py."""
    try:
        with lasting(systemd_machine) as booted:
            yield booted
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(autouse=True)
def clean(machine: Machine) -> Iterator[None]:
    """Each test finds no containers and no bundles."""
    yield
    machine.clean()
