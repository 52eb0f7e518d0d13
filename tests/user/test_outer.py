"""rt inside of restricted containers such as Docker, Podman, Kubernetes, GitHub Actions and GitLab make."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle, Config
from lab.engine_profiles import docker
from lab.outer import PLATFORMS, Sandbox
from lab.refusals import named, problem
from lab.users import User

FIXES = {
    "docker": (
        "docker run --security-opt systempaths=unconfined",
        "docker run --security-opt seccomp=unconfined",
    ),
    "podman": ("podman run --security-opt unmask=ALL", "podman run --security-opt seccomp=unconfined"),
    "kubernetes": ("procMount: Unmasked", "seccompProfile.type: Unconfined"),
    "github": ("options: --privileged", "options: --security-opt seccomp=unconfined"),
    "gitlab": ("privileged = true", 'security_opt = ["seccomp=unconfined"]'),
}
NAMES = {"docker": "Docker", "podman": "Podman", "kubernetes": "Kubernetes", "github": "GitHub Actions",
         "gitlab": "GitLab CI"}  # fmt: skip
MakeSandbox = Callable[..., Sandbox]


@pytest.fixture
def sandbox(alice: User, place: Path) -> MakeSandbox:
    def make(platform: str = "docker", **options: Any) -> Sandbox:
        made = Sandbox(alice, place, platform, **options)
        tried = made.sh("true")
        if tried.returncode:
            pytest.skip(f"bubblewrap makes no container here: {tried.stderr.strip()}")
        return made

    return make


def inner(box: Bundle, *, pid: bool = True) -> Bundle:
    """A bundle for root of the container around, with or without a pid namespace of its own."""

    def change(config: Config) -> None:
        own = [{"containerID": 0, "hostID": 0, "size": 1}]
        config["linux"].update(uidMappings=own, gidMappings=own)
        if not pid:
            listed = config["linux"]["namespaces"]
            config["linux"]["namespaces"] = [item for item in listed if item["type"] != "pid"]

    return box.change(change)


@pytest.mark.explains("RT-NESTED")
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_platform_is_known_and_a_masked_proc_has_its_fix(
    platform: str, sandbox: MakeSandbox, bundle: MakeBundle
) -> None:
    outer = sandbox(platform)
    done = outer("doctor", "--format", "json")
    found = {item["id"]: item for item in json.loads(done.stdout)["checks"]}
    assert found["RT-NESTED"]["why"] == NAMES[platform]
    assert found["RT-PROC-MASKED"]["status"] == "blocked"
    assert FIXES[platform][0] in found["RT-PROC-MASKED"]["fix"]
    refused = outer("run", "--bundle", str(inner(bundle()).path), "box")
    line, hint = problem(refused)
    assert "proc on /proc" in line and FIXES[platform][0] in hint
    assert named(refused.stderr) == ["RT-PROC-MASKED"]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_profile_that_forbids_user_namespaces_has_its_fix(
    platform: str, sandbox: MakeSandbox, bundle: MakeBundle
) -> None:
    outer = sandbox(platform, profile=docker())
    refused = outer("run", "--bundle", str(inner(bundle()).path), "box")
    line, hint = problem(refused)
    assert line == "cannot make a user namespace: a seccomp filter of the surrounding container forbids it"
    assert FIXES[platform][1] in hint and named(refused.stderr) == ["RT-USERNS-SECCOMP"]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_without_a_pid_namespace_a_container_runs_in_it(
    platform: str, sandbox: MakeSandbox, bundle: MakeBundle
) -> None:
    outer = sandbox(platform)
    box = inner(bundle("id -u; cat /proc/kcore; touch /sys/x 2>/dev/null || echo read-only"), pid=False)
    done = outer("run", "--bundle", str(box.path), "box")
    assert (done.returncode, done.stdout) == (0, "0\nread-only\n"), done.stderr
    assert "a new proc -> the host's /proc: only the owner of the pid namespace" in done.stderr


def test_with_an_unmasked_proc_all_goes_as_outside(sandbox: MakeSandbox, bundle: MakeBundle) -> None:
    outer = sandbox(masked=False)
    box = inner(bundle("echo $$; hostname; ls /proc | grep -c '^[0-9]'"))
    done = outer("run", "--bundle", str(box.path), "box")
    assert (done.returncode, done.stdout.split()[0]) == (0, "1"), done.stderr


def test_a_whole_life_goes_on_in_it(sandbox: MakeSandbox, bundle: MakeBundle) -> None:
    box = inner(bundle(["/bin/sleep", "100"]), pid=False)
    done = sandbox().sh(
        f"""exec 2>&1; rt create --bundle {box.path} box; rt start box; rt state box | grep status
        rt exec box id -u; rt list -q; rt kill box KILL
        until rt state box | grep -q stopped; do sleep 0.05; done; rt delete box; rt list -q; echo end"""
    )
    said = [line for line in done.stdout.splitlines() if not line.startswith(("rt: warning", "hint:"))]
    assert done.returncode == 0 and said == ['  "status": "running",', "0", "box", "end"], done.stdout


def test_a_range_in_it_says_that_no_helper_is_needed_or_there(
    sandbox: MakeSandbox, bundle: MakeBundle
) -> None:
    ranges = [{"containerID": 0, "hostID": 0, "size": 1}, {"containerID": 1, "hostID": 100000, "size": 65536}]
    box = bundle().change(lambda config: config["linux"].update(uidMappings=ranges, gidMappings=ranges))
    line, _ = problem(sandbox()("run", "--bundle", str(box.path), "box"))
    assert "100000" in line, "the id that does not exist out there is named"
