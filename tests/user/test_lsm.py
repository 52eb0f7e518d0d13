"""Labels where the kernel runs no module that knows them: an error before anything is made."""

from __future__ import annotations

import json

import pytest
from conftest import MakeBundle
from lab.inside import held
from lab.refusals import refused
from lab.runtime import Runtime

from rootless_rt.host.lsm import look

LABEL = "system_u:system_r:container_t:s0:c1,c2"
HOST = look()

needs_no_apparmor = pytest.mark.skipif(HOST.apparmor, reason="this kernel runs AppArmor")
needs_no_selinux = pytest.mark.skipif(HOST.selinux, reason="this kernel runs SELinux")


@needs_no_apparmor
@pytest.mark.covers("process.apparmorProfile")
def test_a_profile_without_apparmor_is_refused(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("echo ran")
    box.config["process"]["apparmorProfile"] = "docker-default"
    box.write()
    line, hint = refused(rt, box)
    assert line.startswith('config.json: process.apparmorProfile: "docker-default" needs AppArmor, ')
    assert "apparmor" in hint


@needs_no_apparmor
def test_unconfined_is_what_it_is_without_apparmor(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("echo ran")
    box.config["process"]["apparmorProfile"] = "unconfined"
    box.write()
    assert rt.ok("run", "-b", str(box.path), "c").strip() == "ran"


@needs_no_selinux
@pytest.mark.covers("process.selinuxLabel", "linux.mountLabel")
@pytest.mark.parametrize(("part", "key"), [("process", "selinuxLabel"), ("linux", "mountLabel")])
def test_a_context_without_selinux_is_refused(rt: Runtime, bundle: MakeBundle, part: str, key: str) -> None:
    box = bundle("echo ran")
    box.config[part][key] = LABEL
    box.write()
    line, hint = refused(rt, box)
    assert line == f'config.json: {part}.{key}: "{LABEL}" needs SELinux, which this kernel does not run'
    assert "label=disable" in hint


@needs_no_apparmor
@needs_no_selinux
@pytest.mark.covers("exec --apparmor", "exec --process-label")
@pytest.mark.parametrize(
    ("option", "value", "field"),
    [("--apparmor", "x", "process.apparmorProfile"), ("--process-label", LABEL, "process.selinuxLabel")],
)
def test_the_options_of_exec_are_refused_in_the_same_way(
    rt: Runtime, bundle: MakeBundle, option: str, value: str, field: str
) -> None:
    held(rt, bundle(), "c")
    done = rt("exec", option, value, "c", "echo", "ran")
    assert (done.returncode, done.stdout) == (255, "")
    assert done.stderr.startswith(f'rt: exec: {field}: "{value}" needs ')
    assert rt("exec", option, "", "c", "echo", "ran").stdout == "ran\n", "an empty one asks for nothing"


@needs_no_apparmor
@pytest.mark.covers("exec --process")
def test_a_process_from_a_file_can_name_a_profile(rt: Runtime, bundle: MakeBundle, alice) -> None:
    box = bundle()
    held(rt, box, "c")
    file = box.path / "process.json"
    file.write_text(json.dumps({**box.config["process"], "args": ["true"], "apparmorProfile": "x"}))
    alice.owns(file)
    done = rt("exec", "--process", str(file), "c")
    assert done.returncode == 255 and f"{file}: process.apparmorProfile: " in done.stderr


@pytest.mark.parametrize("value", ["x\ny", " x", "x" * 5000])
def test_a_text_that_is_no_profile_is_refused_by_exec(rt: Runtime, bundle: MakeBundle, value: str) -> None:
    held(rt, bundle(), "c")
    done = rt("exec", "--apparmor", value, "c", "true")
    assert done.returncode == 255 and "exec: process.apparmorProfile: " in done.stderr, done.stderr


@pytest.mark.covers("linux.mountLabel")
def test_as_root_it_is_no_different(root_rt: Runtime, root_bundle: MakeBundle) -> None:
    for part, key, missing in (
        ("process", "apparmorProfile", not HOST.apparmor),
        ("process", "selinuxLabel", not HOST.selinux),
        ("linux", "mountLabel", not HOST.selinux),
    ):
        if not missing:
            continue
        box = root_bundle("echo ran")
        box.config[part][key] = LABEL
        box.write()
        assert f"{part}.{key}" in refused(root_rt, box)[0]
