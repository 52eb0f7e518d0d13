"""Hooks of root's containers, which have no user namespace."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.runtime import Runtime

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="these containers are root's")

# Cgroups of root's containers are named after them: others may work on this machine.
NAME = f"hooks-{os.getpid()}"
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
STATUS = ("creating", "creating", "creating", "created", "running", "stopped")


def hooked(box: Bundle, script: str, **fields: object) -> Bundle:
    """Have hooks of all kinds run `script`, with $KIND and, for the directory /tmp of the rootfs, $TMP."""
    hooks = {}
    for kind in KINDS:
        tmp = "/tmp" if kind == "startContainer" else f"{box.rootfs}/tmp"
        words = ["sh", "-c", f"KIND={kind} TMP={tmp}; {script}"]
        hooks[kind] = [{"path": "/bin/sh", "args": words, **fields}]
    return box.change(lambda config: config.update(hooks=hooks))


def tmp(box: Bundle, name: str) -> Path:
    return box.rootfs / "tmp" / name


@pytest.mark.covers("hooks", "create", "create --bundle", "start", "delete", "annotations", "state")
def test_hooks_run_in_order_and_read_the_state_of_their_moment(
    root_rt: Runtime, root_bundle: MakeBundle
) -> None:
    box = hooked(root_bundle(["/bin/sleep", "100"]), "echo $KIND >> $TMP/order; cat > $TMP/$KIND", timeout=60)
    box.change(lambda config: config.update(annotations={"com.example.a": "b"}))
    root_rt.ok("create", "--bundle", str(box.path), NAME)
    assert tmp(box, "order").read_text().split() == list(KINDS[:3])
    created = root_rt.state(NAME)
    root_rt.ok("start", NAME)
    assert tmp(box, "order").read_text().split() == list(KINDS[:5])
    root_rt.ok("kill", NAME, "KILL")
    root_rt.wait_for(NAME, "stopped")
    root_rt.ok("delete", NAME)
    assert tmp(box, "order").read_text().split() == list(KINDS)
    for kind, status in zip(KINDS, STATUS, strict=True):
        told = json.loads(tmp(box, kind).read_text())
        assert (told["id"], told["status"], told["bundle"]) == (NAME, status, str(box.path)), kind
        assert told["annotations"] == created["annotations"] == {"com.example.a": "b"}
        if kind != "poststop":
            inside = kind in ("createContainer", "startContainer")
            assert told["pid"] == (1 if inside else created["pid"]), kind


@pytest.mark.covers("hooks")
def test_hooks_have_the_environment_that_they_are_given(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    box = hooked(root_bundle(["/bin/true"]), "echo $GIVEN:$TERM:$(id -u) > $TMP/$KIND", env=["GIVEN=yes"])
    box.change(lambda config: config["process"]["env"].append("TERM=mine"))
    root_rt.ok("run", "--bundle", str(box.path), NAME)
    for kind in KINDS:
        given, term, uid = tmp(box, kind).read_text().strip().split(":")
        assert (given, uid) == ("yes", "0") and term != "mine", kind
