"""CRIU of Debian, and `rt` that uses it, as root."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.criu import Saver, program
from lab.machines.debian import Unavailable
from lab.runtime import program_problem
from lab.users import own_user


@pytest.fixture(scope="session")
def criu() -> Iterator[Path]:
    """The program, which works on this kernel."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    if importlib.util.find_spec("google.protobuf") is None:
        pytest.skip("needs the Python package protobuf")
    with tempfile.TemporaryDirectory(prefix="rt-criu-") as place:
        Path(place).chmod(0o755)
        try:
            with program(Path(place)) as found:
                yield found
        except Unavailable as reason:
            pytest.skip(str(reason))


@pytest.fixture
def root_rt(place: Path, criu: Path) -> Iterator[Saver]:
    """The command as root, on a state root of its own; leaves nothing behind."""
    problem = program_problem()
    if problem:
        pytest.fail(problem)
    root = place / "root-state"
    root.mkdir(mode=0o700)
    runtime = Saver(own_user(), root, criu)
    yield runtime
    runtime.clean()


@pytest.fixture
def images(place: Path) -> Path:
    """Where a checkpoint may go."""
    return place / "images"


@pytest.fixture
def python(root_bundle: MakeBundle, toolbox: Path, place: Path) -> Bundle:
    """A bundle that runs Python programs with a directory of the host, `share`, at /srv."""
    made = root_bundle(["/usr/bin/python3", "-c", ""])
    made.config["root"] = {"path": str(toolbox), "readonly": True}
    (place / "share").mkdir()
    source = str(place / "share")
    made.config["mounts"].append(
        {"destination": "/srv", "type": "bind", "source": source, "options": ["bind"]}
    )
    return made
