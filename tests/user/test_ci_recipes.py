"""contrib/ci: the files are what their systems read, and their scripts run within the limits they ask for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab.newcomer import DOCKER_CAPS, in_container, login
from lab.runtime import TREE
from lab.users import User, made_user

yaml: Any = pytest.importorskip("yaml", reason="needs PyYAML")
CI = TREE / "contrib/ci"
# Runs "$@" in a user namespace, whose ids are 65536 of nobody here, as hostUsers: false does.
IN_USER_NAMESPACE = """
unshare --user sleep 1000 &
until [ "$(readlink /proc/$!/ns/user)" != "$(readlink /proc/self/ns/user)" ]; do sleep 0.01; done
echo 0 1073741824 65536 > /proc/$!/uid_map
echo 0 1073741824 65536 > /proc/$!/gid_map
exec nsenter --user=/proc/$!/ns/user --setuid 0 --setgid 0 unshare --mount "$@"
"""
as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to make a user or a sandbox")


def recipe(name: str) -> dict[str, Any]:
    loaded = yaml.safe_load((CI / name).read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture
def runner() -> Iterator[User]:
    with made_user("runner", ranges=True) as user:
        yield user


def said_hello(output: str) -> bool:
    return "uid=0(root) gid=0(root)" in output and "rt" in output.splitlines()[-1]


def test_the_github_workflow_is_one() -> None:
    workflow = recipe("github.yml")
    (job,) = workflow["jobs"].values()
    assert job["runs-on"].startswith("ubuntu-") and workflow[True] == ["push"]  # YAML 1.1 reads `on` as true
    assert all(("run" in step) != ("uses" in step) for step in job["steps"])
    assert "RT_SOURCE" in job["env"]


@as_root
@pytest.mark.skipif(os.environ.get("RT_RECIPES") != "1", reason="RT_RECIPES=1 is not set: as the quick start")
def test_the_github_steps_run_as_an_ordinary_user(runner: User, wheel: Path, place: Path) -> None:
    """What is behind sudo is the machine's: a sysctl of Ubuntu's, and packages that are here already."""
    shutil.copy(wheel, place)
    added = place / "github-path"
    added.touch()
    runner.owns(added)
    (job,) = recipe("github.yml")["jobs"].values()
    output = ""
    for step in job["steps"]:
        lines = [line for line in step.get("run", "").splitlines() if not line.startswith("sudo ")]
        path = ":".join([*reversed(added.read_text().split()), "/usr/bin:/bin"])
        done = login(
            runner, "\n".join(lines), RT_SOURCE=str(place / wheel.name), GITHUB_PATH=str(added), PATH=path
        )
        output += done.stdout
        assert done.returncode == 0, output
    assert said_hello(output), output


def test_the_gitlab_job_is_one() -> None:
    (job,) = recipe("gitlab-ci.yml").values()
    assert set(job) == {"image", "variables", "before_script", "script"}
    assert all(isinstance(line, str) for line in (*job["before_script"], *job["script"]))


@as_root
def test_the_gitlab_job_runs_in_a_container_with_docker_s_capabilities(wheel: Path, place: Path) -> None:
    """The packages that it installs are here already."""
    (job,) = recipe("gitlab-ci.yml").values()
    kept = ",".join(["-all", *(f"+{name}" for name in DOCKER_CAPS)])
    become = ["setpriv", "--bounding-set", kept, "--inh-caps", "-all"]
    lines = [line for line in (*job["before_script"], *job["script"]) if not line.startswith("apt-get ")]
    done = in_container(place, wheel, "\n".join(lines), become=become)
    assert done.returncode == 0 and said_hello(done.stdout), done.stdout


def test_the_pod_is_one_without_privileges() -> None:
    pod = recipe("pod.yml")
    assert (pod["apiVersion"], pod["kind"]) == ("v1", "Pod")
    (container,) = pod["spec"]["containers"]
    rights = container["securityContext"]
    assert rights["allowPrivilegeEscalation"] is False and rights["capabilities"] == {"drop": ["ALL"]}
    assert pod["spec"]["hostUsers"] is False and rights["procMount"] == "Unmasked"
    assert "privileged" not in rights and pod["spec"]["securityContext"]["runAsNonRoot"] is True


@as_root
def test_the_pod_s_command_runs_without_any_right(wheel: Path, place: Path) -> None:
    """In a user namespace of 65536 ids, as its user 1000, without capabilities, with no_new_privs."""
    spec = recipe("pod.yml")["spec"]
    (container,) = spec["containers"]
    assert container["command"] == ["sh", "-ec"]
    (script,) = container["args"]
    ids = spec["securityContext"]
    become = [
        *("sh", "-ec", IN_USER_NAMESPACE, "sh"),
        *("setpriv", "--reuid", str(ids["runAsUser"]), "--regid", str(ids["runAsGroup"]), "--clear-groups"),
        *("--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs"),
    ]
    home = next(item["value"] for item in container["env"] if item["name"] == "HOME")
    done = in_container(place, wheel, script, become=become, HOME=home)
    assert done.returncode == 0 and said_hello(done.stdout), done.stdout
