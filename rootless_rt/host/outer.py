"""The container around this process: who made it, and how to mend there what it takes away.

Reads marker files and variables below an injectable root directory; the texts are pure. Only loaded after a
failure, or by a check-up.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# In the order in which they are looked for: a job in a container is best mended in the job.
NAMES = {
    "kubernetes": "Kubernetes",
    "github": "GitHub Actions",
    "gitlab": "GitLab CI",
    "podman": "Podman",
    "docker": "Docker",
}
_SECRETS = "/var/run/secrets/kubernetes.io"
_CAPS, _ONE = "--cap-add SETUID --cap-add SETGID", "; or map only the own id"
# What is lacking -> platform -> the fix; "" for one that is not known.
_FIXES = {
    "proc": {
        "docker": "docker run --security-opt systempaths=unconfined",
        "podman": "podman run --security-opt unmask=ALL",
        "kubernetes": "in the pod: hostUsers: false, and securityContext.procMount: Unmasked",
        "github": "run the job without container:, or with options: --privileged",
        "gitlab": "give the runner (config.toml, [runners.docker]) privileged = true, or"
        ' security_opt = ["systempaths=unconfined"]',
        "": "run the outer container with unmasked paths (Docker: --security-opt systempaths=unconfined;"
        " Podman: --security-opt unmask=ALL; Kubernetes: procMount: Unmasked)",
    },
    "seccomp": {
        "docker": "docker run --security-opt seccomp=unconfined, or a profile that allows it",
        "podman": "podman run --security-opt seccomp=unconfined, or a profile that allows it",
        "kubernetes": "in the pod: securityContext.seccompProfile.type: Unconfined",
        "github": "run the job without container:, or with options: --security-opt seccomp=unconfined",
        "gitlab": 'give the runner (config.toml, [runners.docker]) security_opt = ["seccomp=unconfined"]',
        "": "run the outer container with a profile that allows it (Docker, Podman: --security-opt"
        " seccomp=unconfined; Kubernetes: seccompProfile.type: Unconfined; systemd: RestrictNamespaces=no,"
        " SystemCallFilter=)",
    },
    "no-new-privs": {
        "docker": f"docker run without --security-opt no-new-privileges{_ONE}",
        "podman": f"podman run without --security-opt no-new-privileges{_ONE}",
        "kubernetes": f"in the pod: securityContext.allowPrivilegeEscalation: true{_ONE}",
    },
    "bounding-set": {
        "docker": f"docker run {_CAPS}{_ONE}",
        "podman": f"podman run {_CAPS}{_ONE}",
        "kubernetes": f"in the pod: securityContext.capabilities.add: [SETUID, SETGID]{_ONE}",
        "github": f"in the job's container: options: {_CAPS}{_ONE}",
        "gitlab": f'give the runner (config.toml, [runners.docker]) cap_add = ["SETUID", "SETGID"]{_ONE}',
    },
}


def platform(root: str, environ: Mapping[str, str]) -> str:
    """A key of NAMES, "other" for a container of another kind, or "" outside of one."""
    try:
        with open(root + "/proc/1/cgroup", encoding="utf-8", errors="replace") as file:
            groups = file.read(1 << 16)
    except OSError:
        groups = ""
    if environ.get("KUBERNETES_SERVICE_HOST") or "/kubepods" in groups or os.path.exists(root + _SECRETS):
        return "kubernetes"
    containerenv = os.path.exists(root + "/run/.containerenv")
    docker = os.path.exists(root + "/.dockerenv") or "/docker" in groups
    inside = docker or containerenv or bool(environ.get("container"))
    if environ.get("GITHUB_ACTIONS") == "true" and inside:
        return "github"
    if environ.get("GITLAB_CI") == "true" and inside:
        return "gitlab"
    if containerenv or environ.get("container") == "podman":
        return "podman"
    if docker:
        return "docker"
    return "other" if environ.get("container") else ""


def fix(need: str, where: str) -> str:
    """How to get what is lacking ("proc", "seccomp", "no-new-privs", "bounding-set") on a platform.

    Empty when there is nothing better to say than what holds everywhere.

    >>> fix("proc", "docker")
    'docker run --security-opt systempaths=unconfined'
    """
    fixes = _FIXES.get(need, {})
    return fixes.get(where) or fixes.get("", "")


def fix_here(need: str) -> str:
    """The same for the container around this process."""
    return fix(need, platform("", os.environ))
