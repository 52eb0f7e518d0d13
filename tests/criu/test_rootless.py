"""Without root, checkpoints are refused with the reason; with CAP_CHECKPOINT_RESTORE alone CRIU is asked."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from conftest import MakeBundle
from lab.criu import Saver
from lab.runtime import Runtime
from lab.users import User


def test_an_ordinary_user_is_told_why(
    rt: Runtime, bundle: MakeBundle, alice: User, place: Path, criu: Path
) -> None:
    saver = Saver(alice, rt.root, criu)
    box = bundle("while :; do sleep 0.05; done")
    saver.start("c", box.path)
    why = (
        "rt: checkpoint and restore are not for an ordinary user: criu needs root, or"
        " CAP_CHECKPOINT_RESTORE\n"
        "hint: run it as root, on a container that root has made\n"
    )
    for words in (["checkpoint", "c"], ["restore", "--bundle", str(box.path), "d"]):
        done = saver(*words, "--image-path", str(box.path / "images"))
        assert (done.returncode, done.stderr) == (1, why)
    assert saver.state("c")["status"] == "running"
    assert not (box.path / "images").exists() and saver.ok("list", "-q") == "c\n"


def test_the_capability_alone_gets_as_far_as_criu_does(
    rt: Runtime, bundle: MakeBundle, alice: User, place: Path, criu: Path
) -> None:
    # CRIU's unprivileged mode cannot enter a container's user namespace, which all of an ordinary user have.
    saver = Saver(alice, rt.root, criu)
    box = bundle("while :; do sleep 0.05; done")
    saver.start("c", box.path)
    given = ["--inh-caps", "+checkpoint_restore", "--ambient-caps", "+checkpoint_restore"]
    user = ["--reuid", str(alice.uid), "--regid", str(alice.gid), "--clear-groups"]
    words = saver.argv("checkpoint", "--image-path", str(box.path / "images"), "c")
    done = subprocess.run(
        ["setpriv", *user, *given, *words],
        env=alice.environment(),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.startswith("rt: criu cannot checkpoint it: "), done.stderr
    assert saver.state("c")["status"] == "running"


def test_features_and_doctor_tell_whether_it_can_be_done(
    root_rt: Saver, rt: Runtime, alice: User, criu: Path
) -> None:
    def told(saver: Saver) -> str:
        return str(json.loads(saver.ok("features"))["annotations"]["org.rootless-rt.host.checkpoint"])

    assert told(root_rt) == "true"
    root_rt.criu = Path("/nowhere/criu")
    assert told(root_rt) == "false: criu is not installed"
    root_rt.criu = criu
    assert told(Saver(alice, rt.root, criu)).startswith(
        "false: checkpoint and restore are not for an ordinary"
    )
    checks = json.loads(root_rt("doctor", "--all", "--format", "json").stdout)["checks"]
    found = next(check for check in checks if check["id"] == "RT-TOOL-CRIU")
    assert found["status"] == "ok" and str(criu) in json.dumps(found)
