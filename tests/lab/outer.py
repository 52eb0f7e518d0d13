"""Containers of other engines around `rt`, rebuilt with bubblewrap: what they hide, forbid and leave behind.

Root of a user namespace, alone in its pid namespace: masked parts of /proc, /proc/sys, /sys and cgroups
read-only, no helpers for id maps, no_new_privs, no systemd, the capabilities of Docker's default, and the
marker files and variables by which a platform is known.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from lab.filters import denying
from lab.runtime import RT, TREE, Runtime
from lab.users import User
from rootless_rt.host.seccomp import filter_for

_MASKED = ("acpi", "kcore", "keys", "latency_stats", "timer_list", "sched_debug", "scsi")
_CAPS = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "SYS_CHROOT",
         "NET_BIND_SERVICE", "NET_RAW", "MKNOD", "AUDIT_WRITE", "SETFCAP")  # fmt: skip

# platform -> marker files, variables
PLATFORMS: dict[str, tuple[list[str], dict[str, str]]] = {
    "docker": (["/.dockerenv"], {}),
    "podman": (["/run/.containerenv"], {"container": "podman"}),
    "kubernetes": (["/var/run/secrets/kubernetes.io/token"], {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}),
    "github": (["/.dockerenv"], {"GITHUB_ACTIONS": "true", "CI": "true"}),
    "gitlab": (["/.dockerenv"], {"GITLAB_CI": "true", "CI": "true"}),
}


class Sandbox(Runtime):
    """`rt` inside of such a container of this user's. `profile` is its seccomp profile, or None."""

    def __init__(
        self,
        user: User,
        place: Path,
        platform: str = "docker",
        *,
        profile: dict[str, Any] | None = None,
        masked: bool = True,
    ) -> None:
        if not shutil.which("bwrap"):
            pytest.skip("needs bubblewrap")
        super().__init__(user, Path("/run/state"))
        self.place, self.platform, self.masked = place, platform, masked
        self.filter = place / "outer-filter"
        self.filter.write_bytes(filter_for(profile or denying("kexec_load"), cache_dir=None).program)
        self.filter.chmod(0o644)

    def argv(self, *words: str) -> list[str]:
        return [*self.around(), RT, "--root", str(self.root), *words]

    def sh(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script inside, with `rt` on PATH."""
        return self._run([*self.around(), "sh", "-ec", script])

    def _run(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        ids: dict[str, Any] = {}
        if os.getuid() != self.user.uid:
            ids = {"user": self.user.uid, "group": self.user.gid, "extra_groups": []}
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=60, env={}, cwd="/", **ids
        )

    def around(self) -> list[str]:
        """The command line up to the command that runs inside."""
        markers, variables = PLATFORMS[self.platform]
        words = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
                 "--uid", "0", "--gid", "0", "--die-with-parent", "--hostname", "outer"]  # fmt: skip
        for cap in _CAPS:
            words += ["--cap-add", f"CAP_{cap}"]
        roots = {"/usr", "/etc", str(TREE), os.path.realpath(sysconfig.get_path("purelib"))}
        roots |= {os.path.realpath(sys.base_prefix), str(self.place)} - {"/usr"}
        for path in sorted(roots):
            words += ["--bind" if path == str(self.place) else "--ro-bind", path, path]
        for name in ("bin", "sbin", "lib", "lib64"):
            words += ["--symlink", f"usr/{name}", f"/{name}"]
        words += [
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--tmpfs",
            "/run",
            "--dir",
            "/tmp",
            "--ro-bind",
            "/sys",
            "/sys",
        ]
        if self.masked:
            for name in _MASKED:
                if os.path.exists(f"/proc/{name}"):
                    kind = ["--tmpfs"] if os.path.isdir(f"/proc/{name}") else ["--ro-bind", "/dev/null"]
                    words += [*kind, f"/proc/{name}"]
            words += ["--tmpfs", "/sys/firmware"] if os.path.isdir("/sys/firmware") else []
        for helper in ("newuidmap", "newgidmap"):
            if os.path.exists(f"/usr/bin/{helper}"):
                words += ["--ro-bind", "/dev/null", f"/usr/bin/{helper}"]
        for marker in markers:
            words += ["--ro-bind", "/dev/null", marker]
        environ = {"PATH": f"{TREE}/build:/usr/bin:/bin", "HOME": "/root", **variables}
        for name, value in environ.items():
            words += ["--setenv", name, value]
        loaded = ["sh", "-ec", 'exec 9< "$1"; shift; exec "$@"', "sh", str(self.filter)]
        return [*loaded, "bwrap", "--seccomp", "9", "--clearenv", *words, "--"]
