"""Fixtures of every lane: who runs, on which state root, which bundle.

alice   an ordinary user with a subuid range       bare   one without
rt      the command as alice, on a state root of its own; leaves nothing behind
program a factory: program(bundle path, source) runs a program of alice's that uses the API
bundle  a factory: bundle("sh script") or bundle([argv...]) gives a bundle of alice's, own id mapped
root_rt, root_bundle   the same as root, without a user namespace
either  both of them in turn: (rt, bundle) as alice, then as root
alone   the launcher without a Python to start: what it does, it does by itself
kept    `rt run` of a bundle of alice's beside the launcher alone, with a cache of their own
canary  a directory of the host, alice's own, that an attack shall not touch
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CalledProcessError

import pytest
from lab import newcomer
from lab.attack import Canary
from lab.bundles import BUSYBOX, Bundle, busybox_rootfs, plain_config, rootless_config
from lab.kept import Kept
from lab.own_cgroup import own_cgroups
from lab.programs import Programs
from lab.runtime import TREE, Runtime, program_problem
from lab.shortcuts import build_alone
from lab.simulators import Rig
from lab.users import User, can_make_users, made_user, own_user, own_user_in_session

MakeBundle = Callable[[list[str] | str], Bundle]
Either = tuple[Runtime, MakeBundle]


def _need_program() -> None:
    problem = program_problem()
    if problem:
        pytest.fail(problem)
    if not os.access(BUSYBOX, os.X_OK):
        pytest.skip("needs a static busybox: apt install busybox-static")


def pytest_configure() -> None:
    """What a shell starts in the background ignores these two; so would all that the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _apart() -> Iterator[None]:
    """Lanes that run beside this one have containers of the same ids."""
    with own_cgroups():
        yield


@pytest.fixture(scope="session")
def alice() -> Iterator[User]:
    """An ordinary user with a subuid range: a fresh one as root, else whoever runs the tests."""
    if not can_make_users():
        with own_user_in_session() as user:
            yield user
        return
    with made_user("alice", ranges=True) as user:
        yield user


@pytest.fixture(scope="session")
def bare() -> Iterator[User]:
    """An ordinary user to whom no subordinate ids are granted."""
    if not can_make_users():
        pytest.skip("needs root, to make a user without a subuid range")
    with made_user("bare", ranges=False) as user:
        yield user


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can reach (pytest's own are closed to others)."""
    path = Path(tempfile.mkdtemp(prefix="rt-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def rt(alice: User, place: Path) -> Iterator[Runtime]:
    _need_program()
    root = place / "alice-state"
    root.mkdir(mode=0o700)
    alice.owns(root)
    runtime = Runtime(alice, root)
    yield runtime
    runtime.clean()


@pytest.fixture
def bundle(alice: User, place: Path) -> MakeBundle:
    numbers = itertools.count()

    def make(args: list[str] | str = ["/bin/true"]) -> Bundle:  # noqa: B006
        path = place / f"bundle{next(numbers)}"
        busybox_rootfs(path / "rootfs")
        made = Bundle(path, rootless_config(alice.uid, alice.gid, args=args))
        alice.owns(path)
        return made

    return make


@pytest.fixture
def program(rt: Runtime, alice: User, place: Path) -> Programs:
    """Runs programs of alice's that use the API, on the state root of `rt`."""
    return Programs(alice, place, rt.root)


@pytest.fixture
def root_rt(place: Path) -> Iterator[Runtime]:
    _need_program()
    if os.getuid() != 0:
        pytest.skip("needs root")
    root = place / "root-state"
    root.mkdir(mode=0o700)
    runtime = Runtime(own_user(), root)
    yield runtime
    runtime.clean()


@pytest.fixture
def root_bundle(place: Path) -> MakeBundle:
    numbers = itertools.count()

    def make(args: list[str] | str = ["/bin/true"]) -> Bundle:  # noqa: B006
        path = place / f"root-bundle{next(numbers)}"
        busybox_rootfs(path / "rootfs")
        return Bundle(path, plain_config(args=args))

    return make


@pytest.fixture(params=["rootless", "root"])
def either(request: pytest.FixtureRequest) -> Either:
    prefix = "root_" if request.param == "root" else ""
    return request.getfixturevalue(f"{prefix}rt"), request.getfixturevalue(f"{prefix}bundle")


@pytest.fixture(scope="session")
def alone() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="rt-alone-"))
    place.chmod(0o755)
    try:
        yield build_alone(place)
    except CalledProcessError:
        pytest.skip("cannot build a launcher here: musl-gcc, or a compiler with a static libc")
    finally:
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def canary(place: Path, alice: User) -> Canary:
    """Alice's own, so that only the runtime's care protects it."""
    made = Canary(place / "canary")
    alice.owns(made.path)
    made.remember()
    return made


@pytest.fixture(scope="session")
def toolbox() -> Iterator[Path]:
    """A Debian root with bash, python3, git and gcc that everybody can read."""
    from lab.machines.debian import Unavailable, built
    from lab.toolbox import TOOLS

    try:
        with built(TOOLS) as made:
            yield made / "root"
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def rig(rt: Runtime, bundle: MakeBundle, alice: User, place: Path) -> Iterator[Rig]:
    """What a row of lab.simulators may use."""
    with contextlib.ExitStack() as stack:
        yield Rig(rt, bundle(), alice, place, stack)


@pytest.fixture
def share(alice: User, place: Path) -> Path:
    """A directory of alice's with a file in it, to bind."""
    path = place / "share"
    path.mkdir()
    (path / "file").write_text("from the host\n")
    (path / "run").write_text("#!/bin/sh\necho ran\n")
    (path / "run").chmod(0o755)
    alice.owns(path)
    return path


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rt as pip makes it of the source tree, for the machine's own Python."""
    place = tmp_path_factory.mktemp("wheel")
    python = shutil.which("python3", path=newcomer.PATH) or pytest.skip("needs python3")
    for words in (
        [python, "-m", "venv", str(place / "venv")],
        [str(place / "venv/bin/pip"), "wheel", "-q", "--no-deps", "-w", str(place), str(TREE)],
    ):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (made,) = place.glob("*.whl")
    return made


@pytest.fixture
def no_session(alice: User) -> None:
    if Path(f"/run/user/{alice.uid}").exists():
        pytest.skip("the user has a session: /run/user/UID comes before home")


@pytest.fixture
def fallback(alice: User, no_session: None) -> Iterator[Path]:
    """/tmp/rt-UID, the last place of all."""
    path = Path(f"/tmp/rt-{alice.uid}")
    # An account of an earlier run may have had the same number.
    if os.geteuid() == 0 and alice.uid != 0:
        subprocess.run(["rm", "-rf", str(path)], check=True)
    assert not os.path.lexists(path)
    yield path
    subprocess.run(["rm", "-rf", str(path)], check=True)


@pytest.fixture
def kept(rt: Runtime, alone: Path, bundle: MakeBundle, place: Path) -> Kept:
    """Calls of `rt run` by alice, with a cache of their own, through Python and by the launcher alone."""
    cache = place / "cache"
    cache.mkdir(mode=0o755)
    rt.user.owns(cache)
    return Kept(rt, alone, bundle("echo out; echo err >&2; exit 7"), cache)
