"""CRIU for the tests: that of Debian testing, started through its own loader beside its own libraries.

Debian 12's (3.17) fails on newer kernels, Debian 13's (4.1) on sockets from Linux 6.16 on. Unpacked once on a
machine, by root, where the machines' roots are (see machines/debian.py); started where it lies, and not in a
chroot: CRIU has to see the host.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.bundles import Bundle
from lab.machines.debian import Image, Unavailable, built
from lab.runtime import Runtime
from lab.users import User
from lab.waiting import until

CRIU = Image("criu", "forky", ("criu",), unpack=True)
OLD = Image("criu-old", "bookworm", ("criu",), unpack=True)
CHECK_SECONDS = 60

TICK = "while :; do echo . >> /ticks; sleep 0.02; done"
# A Python program with 4 MiB of memory of its own, that it can show.
BIG = """
import hashlib, os, secrets, time
data = secrets.token_bytes(4 << 20)
while True:
    open("/srv/new", "w").write(hashlib.sha256(data).hexdigest())
    os.rename("/srv/new", "/srv/sum")
    time.sleep(0.02)
"""


@contextmanager
def program(place: Path) -> Iterator[Path]:
    """A program `criu` in the directory `place` that works here. Raises Unavailable."""
    with unpacked(CRIU, place / "criu") as found:
        problem = checked(found)
        if problem:
            raise Unavailable(f"criu does not work on this kernel: {problem}")
        yield found


@contextmanager
def unpacked(image: Image, name: Path) -> Iterator[Path]:
    """A program of that name that starts the image's criu. Raises Unavailable."""
    with built(image) as made:
        started_by(name, *_parts(made))
        yield name


def _parts(made: Path) -> tuple[Path, str, Path]:
    """Of an unpacked criu: its loader, where its libraries lie, the program."""
    root = made / "root"
    loaders = sorted({*root.glob("usr/lib/*/ld-linux*.so*"), *root.glob("lib/*/ld-linux*.so*")})
    if not loaders:
        raise Unavailable(f"no loader in {root}")
    libraries = f"{loaders[0].parent}:{root}/usr/lib/{loaders[0].parent.name}"
    return loaders[0], libraries, root / "usr/sbin/criu"


def started_by(name: Path, loader: Path, libraries: str, program: Path) -> None:
    """Write the script `name`, which starts the program so."""
    name.write_text(f'#!/bin/sh\nexec {loader} --library-path {libraries} {program} "$@"\n')
    name.chmod(0o755)


def carry(image: Image, place: Path, seen_as: Path) -> None:
    """Put the image's criu into the directory `place`, with all that it loads, for another root that sees the
    directory elsewhere; there it is `criu`. Raises Unavailable."""
    with built(image) as made:
        loader, libraries, program = _parts(made)
        words = [loader, "--library-path", libraries, "--list", program]
        listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        for path in [loader, *map(Path, re.findall(r"=> (\S+)", listed))]:
            shutil.copy(path, place / path.name)
        shutil.copy(program, place / "program")
    started_by(place / "criu", seen_as / loader.name, str(seen_as), seen_as / "program")


def checked(criu: Path) -> str:
    """What `criu check` has to say against this kernel; empty when it works here."""
    done = subprocess.run([criu, "check"], capture_output=True, text=True, timeout=CHECK_SECONDS, check=False)
    return "" if done.returncode == 0 else done.stderr.strip() or f"status {done.returncode}"


class Saver(Runtime):
    """`rt` with that criu. What goes on in the background has /dev/null as stdio: CRIU opens files anew."""

    def __init__(self, user: User, root: Path, criu: Path) -> None:
        super().__init__(user, root)
        self.criu = criu

    def argv(self, *words: str) -> list[str]:
        rt, *rest = super().argv(*words)
        return [rt, "--criu", str(self.criu), *rest]

    def quiet(self, *words: str, **options: Any) -> None:
        """A command that must succeed without a word in its log."""
        log = self.root.parent / "log"
        log.write_text("")
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
        done = self("--log", str(log), *words, **options)
        told = log.read_text()
        assert (done.returncode, told) == (0, ""), (words, told)

    def start(self, container: str, bundle: Path, *options: str, **more: Any) -> int:
        """Run a container in the background; its process id."""
        self.quiet("run", "--detach", "--bundle", str(bundle), *options, container, **more)
        return int(self.state(container)["pid"])

    def save(self, container: str, images: Path, *options: str, **more: Any) -> None:
        """A checkpoint that must succeed."""
        self.ok("checkpoint", "--image-path", str(images), *options, container, **more)

    def bring_back(self, container: str, images: Path, bundle: Path, *options: str, **more: Any) -> int:
        """A restore into the background that must succeed; its process id."""
        words = ["--image-path", str(images), "--bundle", str(bundle), *options]
        self.quiet("restore", "--detach", *words, container, **more)
        return int(self.state(container)["pid"])


def unmount(path: Path) -> None:
    """Once no criu that is about to end has anything open there."""
    words = ["umount", str(path)]
    until(lambda: subprocess.run(words, check=False, capture_output=True).returncode == 0, f"{path} is free")


def ticks(box: Bundle) -> int:
    """How often TICK has come round."""
    path = box.rootfs / "ticks"
    return len(path.read_text()) if path.exists() else 0


def goes_on(box: Bundle) -> None:
    """A container that runs TICK does run."""
    before = ticks(box)
    until(lambda: ticks(box) > before, "it goes on")


def run_script(box: Bundle, text: str) -> Bundle:
    """Have the bundle run a Python program."""
    return box.run(["/usr/bin/python3", "-c", text])


def summed(place: Path) -> str:
    """The checksum that BIG shows next."""
    path = place / "share/sum"
    path.unlink(missing_ok=True)
    until(lambda: path.exists() and path.read_text(), "a checksum")
    return path.read_text()
