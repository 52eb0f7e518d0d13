"""The answer of `rt features`: what rt can do, for engines to read.

Made from the tables that the code runs on, so that it cannot promise more. Pure: what depends on the machine
or the build comes in as arguments. Source: runtime-spec features.md and features-linux.md: its fields tell
what the runtime knows, whatever the host can do, and no others may be added; so what the host can do goes
into annotations.
"""

from __future__ import annotations

from rootless_rt.spec import names, tuning
from rootless_rt.spec.defaults import OCI_VERSION
from rootless_rt.spec.mountopts import OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Annotations that change what the runtime does on the host: engines must not pass those of images on.
UNSAFE_ANNOTATIONS = ("bundle", "org.systemd.property.", "org.criu.config", names.KEEP_GROUPS)


def features(
    *,
    version: str,
    commit: str = "",
    libseccomp: str = "",
    seccomp_flags: tuple[str, ...] = names.SECCOMP_FLAGS,
    cgroup_v1: bool = True,
    cgroup_v2: bool = True,
    systemd: bool = False,
    systemd_user: bool = False,
    net_devices: bool = False,
    host: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The features document, in runc's order of keys.

    `version` and `commit` are those of rt; `libseccomp` is the version of the library that compiles profiles,
    empty when there is none, and `seccomp_flags` are the filter flags that the kernel can take; `cgroup_v1`
    to `systemd_user` are the cgroup managers that are there, `host` what to tell of the host, name -> text;
    `net_devices` is whether the package is there that moves network devices.
    """
    seccomp: dict[str, Any] = {"enabled": bool(libseccomp)}
    if libseccomp:
        seccomp["actions"] = list(names.SECCOMP_ACTIONS)
        seccomp["operators"] = list(names.SECCOMP_OPERATORS)
        seccomp["archs"] = list(names.SECCOMP_ARCHES)
        seccomp["knownFlags"] = list(names.SECCOMP_FLAGS)
        seccomp["supportedFlags"] = [flag for flag in names.SECCOMP_FLAGS if flag in seccomp_flags]
    annotations = {"org.rootless-rt.version": version}
    if commit:
        annotations["org.rootless-rt.commit"] = commit
    if libseccomp:
        annotations["io.github.seccomp.libseccomp.version"] = libseccomp
    annotations.update({f"org.rootless-rt.host.{name}": value for name, value in (host or {}).items()})
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": list(names.HOOKS),
        "mountOptions": sorted(OPTIONS),
        "linux": {
            "namespaces": sorted(names.NAMESPACES),
            "capabilities": list(names.CAPABILITIES),
            "cgroup": {
                "v1": cgroup_v1,
                "v2": cgroup_v2,
                "systemd": systemd,
                "systemdUser": systemd_user,
                "rdma": True,
            },
            "seccomp": seccomp,
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
            "memoryPolicy": {"modes": sorted(tuning.MEMORY_MODES), "flags": sorted(tuning.MEMORY_FLAGS)},
            "mountExtensions": {"idmap": {"enabled": "idmap" in OPTIONS}},
            "netDevices": {"enabled": net_devices},
        },
        "annotations": annotations,
        "potentiallyUnsafeConfigAnnotations": list(UNSAFE_ANNOTATIONS),
    }
