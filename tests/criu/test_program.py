"""The program criu itself: one that is too old is told from one that is none, and from one that will do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.criu import OLD, TICK, Saver, checked, goes_on, unpacked
from lab.machines.debian import Unavailable

BOX = f"program{os.getpid()}"
# A criu that answers one request: with its version, in the bytes of the protocol. `criu check` is content.
ANSWERING = """#!/usr/bin/python3 -I
import socket, sys
if sys.argv[1] == "swrk":
    peer = socket.socket(fileno=int(sys.argv[2]))
    peer.recv(1 << 16)
    peer.send(bytes.fromhex("080a 1001 5204 0803 100e"))  # type 10, success, version {3, 14}
"""
# Older ones look at the kernel before they read a request; this is what 3.6 says of Linux 6.18.
ENDING = """#!/bin/sh
echo 'Error (criu/vdso.c:391): vdso: Unexpected rt vDSO area bounds' >&2
exit 1
"""


@pytest.fixture
def box(root_rt: Saver, root_bundle: MakeBundle) -> Bundle:
    made = root_bundle(TICK)
    root_rt.start(BOX, made.path)
    return made


@pytest.fixture
def old(place: Path) -> Iterator[Path]:
    """CRIU 3.17, where this kernel is one that it does not know."""
    try:
        with unpacked(OLD, place / "criu-old") as found:
            if not checked(found):
                pytest.skip("CRIU 3.17 works on this kernel")
            yield found
    except Unavailable as reason:
        pytest.skip(str(reason))


def made(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def told(rt: Saver) -> tuple[str, str]:
    """What features and doctor say."""
    said = json.loads(rt.ok("features"))["annotations"]["org.rootless-rt.host.checkpoint"]
    checks = json.loads(rt("doctor", "--all", "--format", "json").stdout)["checks"]
    found = next(check for check in checks if check["id"] == "RT-TOOL-CRIU")
    assert found["status"] == "degraded" and found["fix"] == "a newer criu, or kernel"
    return said, found["why"]


def refused(rt: Saver, images: Path, problem: str) -> str:
    """The hint that comes with that error."""
    done = rt("checkpoint", "--image-path", str(images), BOX)
    assert done.returncode == 1 and done.stderr.splitlines()[0] == f"rt: {problem}", done.stderr
    return done.stderr.splitlines()[1]


def test_one_that_does_not_know_the_kernel_is_named(
    root_rt: Saver, box: Bundle, images: Path, old: Path
) -> None:
    root_rt.criu = old
    why = f"{old} does not work on this kernel: vdso: Unexpected rt vDSO area bounds"
    assert told(root_rt) == (f"false: {why}", why)
    hint = refused(root_rt, images, "criu cannot checkpoint it: vdso: Unexpected rt vDSO area bounds")
    assert hint == "hint: this CRIU does not know this kernel: a newer one is needed"
    assert os.listdir(images) == ["dump.log"]
    goes_on(box)


def test_one_that_does_not_even_answer_on_this_kernel_is_named(
    root_rt: Saver, box: Bundle, images: Path, place: Path
) -> None:
    root_rt.criu = made(place / "criu-3.6", ENDING)
    why = f"{place}/criu-3.6 does not work on this kernel: vdso: Unexpected rt vDSO area bounds"
    assert told(root_rt) == (f"false: {why}", why)
    assert refused(root_rt, images, why) == "hint: this CRIU does not know this kernel: a newer one is needed"
    assert not images.exists()
    goes_on(box)


def test_one_that_is_older_than_what_rt_asks_of_it_is_named_with_its_version(
    root_rt: Saver, box: Bundle, images: Path, place: Path
) -> None:
    root_rt.criu = made(place / "criu-3.14", ANSWERING)
    why = f"{place}/criu-3.14 is CRIU 3.14; 3.15 or later is needed"
    assert told(root_rt) == (f"false: {why}", why)
    assert refused(root_rt, images, why).startswith("hint: apt install criu")
    done = root_rt("restore", "-d", "--image-path", str(images), "-b", str(box.path), f"{BOX}b")
    assert done.returncode == 1 and done.stderr.splitlines()[0] == f"rt: {why}"
    assert not images.exists()
    goes_on(box)
