"""criu or rt killed in the middle: the container goes on, or is not restored, and nothing is left.

CRIU runs a script at each step of its way; that of these tests strikes at the step that is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.criu import TICK, Saver, goes_on
from lab.leftovers import Ground
from lab.waiting import has_ended, until

BOX = f"struck{os.getpid()}"
LONG = os.environ.get("RT_LONG") == "1"
SCRIPT = """#!/bin/sh
cd PLACE
read -r step signal whom < strike
[ "$CRTOOLS_SCRIPT_ACTION" = "$step" ] || exit 0
echo $PPID > struck
[ $whom = criu ] && exec kill -$signal $PPID
exec kill -$signal $(sed -n 's/^PPid:[^0-9]*//p' /proc/$PPID/status)
"""
SAVING = ["pre-dump", "network-lock", "post-dump"]
RESTORING = ["pre-restore", "setup-namespaces", "post-setup-namespaces", "post-restore", "pre-resume"]

Strike = Callable[[str, str], None]


@pytest.fixture
def strike(place: Path) -> Strike:
    """strike(step, "SIGNAL criu" or "SIGNAL rt"): from now on, at that step."""

    def asked(step: str, what: str) -> None:
        (place / "strike").write_text(f"{step} {what}\n")
        (place / "struck").unlink(missing_ok=True)

    asked("never", "KILL rt")
    return asked


@pytest.fixture
def box(root_bundle: MakeBundle, place: Path, strike: Strike) -> Bundle:
    script = place / "strike.sh"
    script.write_text(SCRIPT.replace("PLACE", str(place)))
    script.chmod(0o755)
    made = root_bundle(TICK)
    (place / "criu.conf").write_text(f"action-script {script}\n")
    made.config["annotations"] = {"org.criu.config": str(place / "criu.conf")}
    made.write()
    return made


def struck(place: Path) -> None:
    """It has been, and criu has come to its end."""
    criu = (place / "struck").read_text().strip()
    until(lambda: has_ended(criu), "criu ends")


@pytest.mark.parametrize("step", SAVING if LONG else SAVING[-1:])
def test_a_checkpoint_whose_criu_is_killed_leaves_the_container_as_it_was(
    root_rt: Saver, box: Bundle, images: Path, place: Path, strike: Strike, step: str
) -> None:
    root_rt.start(BOX, box.path)
    goes_on(box)
    strike(step, "KILL criu")
    done = root_rt("checkpoint", "--image-path", str(images), BOX)
    struck(place)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "rt: criu cannot checkpoint it: criu ended without an answer"
    assert os.listdir(images) == ["dump.log"]
    goes_on(box)


@pytest.mark.parametrize("step", SAVING if LONG else SAVING[:1])
def test_a_checkpoint_that_is_killed_leaves_a_container_that_goes_on_or_one_that_is_saved(
    root_rt: Saver, box: Bundle, images: Path, place: Path, strike: Strike, step: str
) -> None:
    root_rt.start(BOX, box.path)
    goes_on(box)
    strike(step, "KILL rt")
    assert root_rt("checkpoint", "--image-path", str(images), BOX).returncode == -9
    struck(place)
    strike("never", "KILL rt")
    if root_rt.state(BOX)["status"] == "stopped":
        root_rt.ok("delete", BOX)
        root_rt.bring_back(BOX, images, box.path)
    goes_on(box)


@pytest.mark.parametrize(
    ("step", "what"),
    [(step, what) for step in RESTORING for what in ("TERM rt", "INT rt", "KILL rt", "KILL criu")]
    if LONG
    else [("setup-namespaces", "KILL criu"), ("post-setup-namespaces", "KILL rt"), ("pre-restore", "INT rt")],
)
def test_a_restore_that_is_killed_leaves_nothing_behind_or_a_container_to_delete(
    root_rt: Saver, box: Bundle, images: Path, place: Path, strike: Strike, step: str, what: str
) -> None:
    root_rt.start(BOX, box.path)
    goes_on(box)
    root_rt.save(BOX, images)
    ground = Ground(root_rt, BOX)
    strike(step, what)
    done = root_rt("restore", "--detach", "--image-path", str(images), "--bundle", str(box.path), BOX)
    struck(place)
    left = root_rt.ok("list", "-q").split()
    if what == "KILL criu":
        assert done.returncode == 1 and not left
        assert done.stderr.startswith("rt: criu cannot restore it: ")
    elif what == "KILL rt":
        assert done.returncode == -9 and left == [BOX]
        root_rt.ok("delete", "--force", BOX)
    elif left:
        assert done.returncode == 0, "it came when the container was there already"
        root_rt.ok("delete", "--force", BOX)
    else:
        assert done.returncode == 128 + {"TERM": 15, "INT": 2}[what.split()[0]]
    ground.clean()
    strike("never", "KILL rt")
    root_rt.bring_back(BOX, images, box.path)
    goes_on(box)
