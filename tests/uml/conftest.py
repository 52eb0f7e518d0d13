"""The machine of this lane: User-mode Linux with Debian 13, booted once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab.machines.boot import lasting, uml_machine
from lab.machines.debian import Unavailable
from lab.machines.machine import Machine
from lab.users import User


@pytest.fixture(scope="session")
def machine(alice: User) -> Iterator[Machine]:
    """run(command, user=..., timeout=...) -> code, stdout, stderr; see lab/machines/machine.py."""
    try:
        with lasting(lambda: uml_machine(alice)) as booted:
            yield booted
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(autouse=True)
def clean(machine: Machine) -> Iterator[None]:
    """Each test finds no containers and no bundles."""
    yield
    machine.clean()
