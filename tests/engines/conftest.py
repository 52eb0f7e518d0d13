"""Fixtures of the engines: where their commands run, and what came out of the cases, shown at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.engines import RUNC, Matrix, Place
from lab.podman import Podman
from lab.runtime import program_problem
from lab.users import User, own_user

_MATRIX = Matrix()
_STORAGE = {
    "vfs": ["--storage-driver", "vfs"],
    "overlay": ["--storage-driver", "overlay"],
    "fuse-overlayfs": [
        *("--storage-driver", "overlay"),
        *("--storage-opt", "overlay.mount_program=/usr/bin/fuse-overlayfs"),
    ],
}


@pytest.fixture(scope="session")
def matrix() -> Iterator[Matrix]:
    problem = program_problem()
    if problem:
        pytest.fail(problem)
    if RUNC is None:
        pytest.skip("needs the yardstick: apt install runc")
    yield _MATRIX
    _MATRIX.save()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = _MATRIX.rows()
    if rows:
        terminalreporter.write_line(f"{'engine':<12}{'mode':<28}{'cases':>6}{'runc':>6}{'rt':>6}")
    for engine, mode, cases, runc, rt in rows:
        terminalreporter.write_line(f"{engine:<12}{mode:<28}{cases:>6}{runc:>6}{rt:>6}")


@pytest.fixture(scope="session")
def engine_place() -> Iterator[Place]:
    place = Place()
    yield place
    place.close()


@pytest.fixture(scope="session")
def engine_base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a short path (sockets are made in it) that every user can reach."""
    base = Path(f"/tmp/rt-engines-{os.getpid()}")
    base.mkdir(mode=0o755)
    yield base
    shutil.rmtree(base, ignore_errors=True)


def _podman(place: Place, base: Path, user: User, driver: str) -> Iterator[Podman]:
    if shutil.which("podman") is None:
        pytest.skip("needs podman: apt install podman")
    home = base / f"{user.uid}{driver[0]}"  # podman's own limit for it is short
    home.mkdir()
    mode = f"{'root' if user.uid == 0 else 'rootless'}, {driver}"
    podman = Podman(place, home, user, mode, _STORAGE[driver])
    podman.load_image()
    try:
        yield podman
    finally:
        podman.close()


@pytest.fixture(scope="session")
def root_podman(engine_place: Place, engine_base: Path) -> Iterator[Podman]:
    if os.getuid() != 0:
        pytest.skip("needs root")
    yield from _podman(engine_place, engine_base, own_user(), "overlay")


@pytest.fixture(scope="session")
def rootless_podman(engine_place: Place, engine_base: Path, alice: User) -> Iterator[Podman]:
    if shutil.which("fuse-overlayfs") is None:
        pytest.skip("needs fuse-overlayfs: apt install fuse-overlayfs")
    yield from _podman(engine_place, engine_base, alice, "fuse-overlayfs")


@pytest.fixture(scope="session", params=["root, vfs", "rootless, vfs", "rootless, overlay"])
def stored_podman(request: pytest.FixtureRequest, engine_place: Place, engine_base: Path) -> Iterator[Podman]:
    """podman on the storage that `podman` does not have."""
    who, driver = request.param.split(", ")
    if who == "root" and os.getuid() != 0:
        pytest.skip("needs root")
    user = own_user() if who == "root" else request.getfixturevalue("alice")
    yield from _podman(engine_place, engine_base, user, driver)


@pytest.fixture(scope="session", params=["root", "rootless"])
def podman(request: pytest.FixtureRequest) -> Podman:
    """podman as root and as an ordinary user."""
    found: Podman = request.getfixturevalue(f"{request.param}_podman")
    return found
