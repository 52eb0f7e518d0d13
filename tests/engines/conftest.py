"""Fixtures of the engines: where their commands run, and what came out of the cases, shown at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.containerd import Containerd
from lab.cri import Cri
from lab.dockerd import Docker
from lab.engines import ALL, RUNC, Matrix, Place
from lab.podman import Podman
from lab.runtime import program_problem
from lab.users import User, own_user
from lab.ward import PATH as WARD_PATH
from lab.ward import Ward

_MATRIX = Matrix()
# Daemons have a whole matrix for each kind of user: in the usual run the rootless ones go through its core.
_USERS = ["root", "rootless"]
_USERS_OF_ALL = _USERS if ALL else ["root"]
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
        shown = runc if ALL or runc else "-"
        terminalreporter.write_line(f"{engine:<12}{mode:<28}{cases:>6}{shown:>6}{rt:>6}")


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


@pytest.fixture(scope="session")
def ward() -> Iterator[Ward]:
    """Where daemons run."""
    if os.getuid() != 0:
        pytest.skip("needs root, for the namespaces of daemons")
    ward = Ward()
    try:
        yield ward
    finally:
        ward.close()


def _need(*programs: tuple[str, str]) -> None:
    for program, package in programs:
        if shutil.which(program, path=WARD_PATH) is None:
            pytest.skip(f"needs {program}: apt install {package}")


@pytest.fixture(scope="session")
def root_ctr(ward: Ward) -> Containerd:
    _need(("containerd", "containerd"))
    return Containerd(ward)


@pytest.fixture(scope="session")
def rootless_ctr(ward: Ward, alice: User) -> Iterator[Containerd]:
    _need(("containerd", "containerd"), ("rootlesskit", "rootlesskit"))
    ctr = Containerd(ward, alice)
    yield ctr
    ctr.close()


@pytest.fixture(scope="session", params=_USERS_OF_ALL)
def ctr(request: pytest.FixtureRequest) -> Containerd:
    """containerd as root, and where all is asked for as an ordinary user."""
    found: Containerd = request.getfixturevalue(f"{request.param}_ctr")
    return found


@pytest.fixture(scope="session", params=_USERS)
def core_ctr(request: pytest.FixtureRequest) -> Containerd:
    """containerd as root and as an ordinary user."""
    found: Containerd = request.getfixturevalue(f"{request.param}_ctr")
    return found


@pytest.fixture(scope="session")
def root_docker(ward: Ward) -> Docker:
    _need(("dockerd", "docker.io"))
    return Docker(ward)


@pytest.fixture(scope="session")
def rootless_docker(ward: Ward, alice: User) -> Iterator[Docker]:
    _need(("dockerd", "docker.io"), ("rootlesskit", "rootlesskit"), ("slirp4netns", "slirp4netns"))
    docker = Docker(ward, alice)
    yield docker
    docker.close()


@pytest.fixture(scope="session", params=_USERS_OF_ALL)
def docker(request: pytest.FixtureRequest) -> Docker:
    """Docker as root, and where all is asked for as an ordinary user."""
    found: Docker = request.getfixturevalue(f"{request.param}_docker")
    return found


@pytest.fixture(scope="session", params=_USERS)
def core_docker(request: pytest.FixtureRequest) -> Docker:
    """Docker as root and as an ordinary user."""
    found: Docker = request.getfixturevalue(f"{request.param}_docker")
    return found


@pytest.fixture(scope="session")
def cri(root_ctr: Containerd) -> Iterator[Cri]:
    """containerd as the kubelet sees it."""
    pytest.importorskip("grpc", reason="needs grpcio: pip install grpcio")
    if not Path("/usr/lib/cni/bridge").exists():
        pytest.skip("needs /usr/lib/cni/bridge: apt install containernetworking-plugins")
    cri = Cri(root_ctr)
    yield cri
    cri.close()
