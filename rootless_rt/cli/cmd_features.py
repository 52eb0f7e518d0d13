"""`rt features`: what this build and this host can do, as JSON (runtime-spec, "features")."""

from __future__ import annotations

import os

from rootless_rt import cgroups
from rootless_rt.cli.argv import Invocation
from rootless_rt.cli.output import write
from rootless_rt.host import seccomp
from rootless_rt.spec.features import features
from rootless_rt.spec.jsonio import dumps
from rootless_rt.version import COMMIT, VERSION


def run(inv: Invocation) -> int:
    """Print the features document."""
    library = seccomp.library_file()
    mode = cgroups.view().mode
    found = features(
        version=VERSION,
        commit=COMMIT,
        libseccomp=_library_version(library),
        seccomp_flags=(),
        apparmor=os.path.isdir("/sys/kernel/security/apparmor"),
        selinux=os.path.isdir("/sys/fs/selinux"),
        cgroup_v1=mode in ("v1", "hybrid"),
        cgroup_v2=mode in ("v2", "hybrid"),
        systemd=False,
        systemd_user=False,
    )
    write(dumps(found, "    ") + "\n")
    return 0


def _library_version(library: str | None) -> str:
    """The version in the library's file name, such as libseccomp.so.2.5.4."""
    return os.path.basename(library).partition(".so.")[2] if library else ""
