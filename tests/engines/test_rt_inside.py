"""rt inside of a container of rootless podman's: with default options, and with those that rt names."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.bundles import Bundle, busybox_rootfs, rootless_config
from lab.engines import Done
from lab.podman import IMAGE, Podman
from lab.refusals import named
from lab.runtime import RT, TREE


@pytest.fixture(params=["runc", "rt"])
def podman(request: pytest.FixtureRequest, rootless_podman: Podman) -> Podman:
    return rootless_podman.on(request.param)


@pytest.fixture
def box(rootless_podman: Podman) -> Iterator[Bundle]:
    """A bundle for root of the container around."""
    path = rootless_podman.base / "work" / "box"
    busybox_rootfs(path / "rootfs")
    made = Bundle(path, rootless_config(0, 0, args="id -u; echo inside"))
    rootless_podman.user.owns(path)
    yield made
    shutil.rmtree(path, ignore_errors=True)


def inside(podman: Podman, box: Bundle, *words: str, options: tuple[str, ...] = ()) -> Done:
    """What `rt` says in a container of podman's that has the host's programs."""
    places = {
        "/usr",
        str(TREE),
        os.path.realpath(sysconfig.get_path("purelib")),
        os.path.realpath(sys.base_prefix),
    }
    shown = [f"{place}:{place}:ro" for place in sorted(places)]
    shown += [f"/usr/{name}:/{name}:ro" for name in ("lib", "lib64") if Path("/usr", name).is_dir()]
    volumes = [word for place in [*shown, f"{box.path}:{box.path}"] for word in ("-v", place)]
    return podman("run", "--rm", *options, *volumes, IMAGE, RT, "--root", "/run/state", *words)


def test_with_default_options_it_names_podman_s_own_fix(podman: Podman, box: Bundle) -> None:
    done = inside(podman, box, "run", "--bundle", str(box.path), "box")
    assert done.code == 1 and len(done.err.splitlines()) == 2, str(done)
    assert named(done.err) == ["RT-PROC-MASKED"] and "podman run --security-opt unmask=ALL" in done.err
    found = {
        item["id"]: item
        for item in json.loads(inside(podman, box, "doctor", "--format", "json").out)["checks"]
    }
    assert found["RT-NESTED"]["why"] == "Podman"
    assert "podman run --security-opt unmask=ALL" in found["RT-PROC-MASKED"]["fix"]


def test_with_the_options_that_it_names_it_runs(podman: Podman, box: Bundle) -> None:
    options = ("--security-opt", "unmask=ALL", "--security-opt", "seccomp=unconfined")
    done = inside(podman, box, "run", "--bundle", str(box.path), "box", options=options)
    assert (done.code, done.out) == (0, "0\ninside\n"), str(done)


def test_with_default_options_it_runs_without_a_pid_namespace(podman: Podman, box: Bundle) -> None:
    listed = [item for item in box.config["linux"]["namespaces"] if item["type"] != "pid"]
    box.change(lambda config: config["linux"].update(namespaces=listed))
    done = inside(podman, box, "run", "--bundle", str(box.path), "box")
    assert (done.code, done.out) == (0, "0\ninside\n"), str(done)
    assert "the host's /proc" in done.err and "hostname: rt -> the caller's" in done.err
