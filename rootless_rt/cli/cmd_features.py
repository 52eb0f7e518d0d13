"""`rt features`: what this build and this host can do, as JSON (runtime-spec, "features")."""

from __future__ import annotations

import os
from importlib.util import find_spec

from rootless_rt import cgroups
from rootless_rt.cli.argv import Invocation, text
from rootless_rt.cli.output import write
from rootless_rt.criu import checkup
from rootless_rt.host import abilities, seccomp
from rootless_rt.spec.features import features
from rootless_rt.spec.jsonio import dumps
from rootless_rt.version import VERSION, commit


def run(inv: Invocation) -> int:
    """Print the features document."""
    library = seccomp.library_file()
    bus = find_spec("jeepney") is not None
    found = features(
        version=VERSION,
        commit=commit(),
        libseccomp=_library_version(library),
        seccomp_flags=abilities.seccomp_flags(),
        host={**_host(), "checkpoint": _checkpoint(text(inv.globals, "criu"))},
        systemd=bus,
        systemd_user=bus,
        net_devices=find_spec("pyroute2") is not None,
    )
    write(dumps(found, "    ") + "\n")
    return 0


def _host() -> dict[str, str]:
    """What this host can do with it."""
    return {
        "kernel": os.uname().release,
        "namespaces": ",".join(sorted(abilities.namespaces())),
        "cgroup": cgroups.view().mode,
        "lsm": ",".join(abilities.security_modules()),
        "seccomp.actions": ",".join(abilities.seccomp_actions()),
        "landlock": str(abilities.landlock_version()),
        "resctrl": "true" if abilities.resource_control() else "false",
    }


def _checkpoint(criu: str | None) -> str:
    """true, or false with the reason."""
    reason = checkup.reason(checkup.gather(criu))
    return f"false: {reason}" if reason else "true"


def _library_version(library: str | None) -> str:
    """The version in the name of the library's file, such as libseccomp.so.2.5.4, behind its links."""
    return os.path.basename(os.path.realpath(library)).partition(".so.")[2] if library else ""
