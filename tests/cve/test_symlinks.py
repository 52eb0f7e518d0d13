"""Symlinks of the image at every place the runtime goes to (CVE-2018-15664's class).

CVE-2019-18837, CVE-2019-19921, CVE-2021-30465, CVE-2023-27561, CVE-2024-45310, CVE-2025-31133,
CVE-2025-52565, CVE-2026-41579: nothing of the host is made, covered, read or written.
"""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.attack import TEXT, Canary, replace
from lab.bundles import Bundle, Config
from lab.runtime import Runtime

TARGETS = {
    "absolute": "{canary}",
    "upwards": "../../../../../../../../..{canary}",
    "loop": "loop-b",
    "root": "/",
    "magic": "/proc/self/root{canary}",
    "descriptor": "/proc/self/fd/4",
    "dangling": "{canary}/made",
    "process": "/proc/self/attr",
}
PLACES = ["proc", "sys", "dev", "tmp", "etc", "var"]


@pytest.fixture
def canary(place: Path, rt: Runtime) -> Canary:
    """Of alice's own, so that only the runtime's care protects it."""
    made = Canary(place / "canary")
    rt.user.owns(made.path)
    made.remember()
    return made


def trap(made: Bundle, where: str, target: str, canary: Canary) -> None:
    path = made.rootfs / where
    if path.is_dir() and not path.is_symlink():
        for item in list(path.iterdir()):
            item.unlink()
    replace(path, target.format(canary=canary.path))
    (made.rootfs / "loop-a").symlink_to("loop-b")
    (made.rootfs / "loop-b").symlink_to("loop-a")


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("where", PLACES)
def test_a_link_in_place_of_a_directory(
    rt: Runtime, bundle: MakeBundle, canary: Canary, where: str, target: str
) -> None:
    made = bundle(f"cat {canary.path}/file /tmp/made 2>/dev/null; exit 0")
    trap(made, where, target, canary)

    def more(config: Config) -> None:
        config["process"]["cwd"] = "/var/work"
        config["mounts"].append(
            {"destination": "/tmp/data", "type": "bind", "source": str(made.path), "options": ["bind", "ro"]}
        )

    done = rt("run", "--bundle", str(made.change(more).path), "c")
    canary.check()
    assert TEXT not in done.stdout
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done
    if where in ("proc", "sys"):
        assert done.returncode == 1, done


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("where", ["dev/null", "dev/console", "dev/pts", "dev/shm", "dev/ptmx", "dev/fd"])
def test_a_link_in_a_dev_that_is_the_image_s(
    rt: Runtime, bundle: MakeBundle, canary: Canary, where: str, target: str
) -> None:
    made = bundle(f"cat /dev/null {canary.path}/file 2>/dev/null; exit 0")
    trap(made, where, target, canary)

    def no_dev(config: Config) -> None:
        config["mounts"] = [item for item in config["mounts"] if item["destination"] != "/dev"]

    done = rt("run", "--bundle", str(made.change(no_dev).path), "c")
    canary.check()
    assert TEXT not in done.stdout
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done


def test_masked_paths_are_masked_by_the_true_null_whatever_the_image_has(
    rt: Runtime, bundle: MakeBundle, canary: Canary
) -> None:
    made = bundle("cat /secret /proc/keys; ls /secrets; echo changed >>/secret; echo ran")
    (made.rootfs / "secret").write_text("secret\n")
    (made.rootfs / "secrets").mkdir()
    (made.rootfs / "secrets/one").touch()
    (made.rootfs / "tmp/fake").write_text("fake\n")
    (made.rootfs / "dev/null").symlink_to("/tmp/fake")

    def mask(config: Config) -> None:
        config["mounts"] = [item for item in config["mounts"] if item["destination"] != "/dev"]
        config["linux"]["maskedPaths"] = ["/secret", "/secrets", "/proc/keys"]

    done = rt("run", "--bundle", str(made.change(mask).path), "c")
    assert done.stdout == "ran\n", done
    assert (made.rootfs / "tmp/fake").read_text() == "fake\n"
    assert (made.rootfs / "secret").read_text() == "secret\n"


def exchange(first: Path, second: Path) -> None:
    ctypes.CDLL(None).renameat2(-100, os.fsencode(first), -100, os.fsencode(second), 2)


@pytest.mark.parametrize("where", ["var/data", "tmp", "proc", "sys", "etc/file"])
def test_a_link_exchanged_with_a_directory_during_the_run(
    rt: Runtime, bundle: MakeBundle, canary: Canary, where: str
) -> None:
    made = bundle(f"cat {canary.path}/file 2>/dev/null; exit 0")
    real, fake = made.rootfs / where, made.rootfs / "fake"
    if where == "etc/file":
        real.touch()
        source = made.path / "config.json"
    else:
        real.mkdir(exist_ok=True)
        source = made.path
    fake.symlink_to(canary.file if where == "etc/file" else canary.path)
    if where not in ("proc", "sys"):

        def more(config: Config) -> None:
            item = {"destination": f"/{where}", "type": "bind", "source": str(source), "options": ["bind"]}
            config["mounts"].append(item)

        made.change(more)
    stop = threading.Event()

    def race() -> None:
        while not stop.is_set():
            exchange(real, fake)

    racer = threading.Thread(target=race)
    racer.start()
    try:
        for number in range(int(os.environ.get("RT_RACES", "15"))):
            done = rt("run", "--bundle", str(made.path), f"c{number}")
            assert TEXT not in done.stdout and done.returncode in (0, 1), done
            canary.check()
    finally:
        stop.set()
        racer.join()
