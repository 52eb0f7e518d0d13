"""The config.json that `rt spec` writes, and the conversion of any config for a user without root.

Pure: the caller says who the user is and which cgroups the host has. Knows nothing of files.
"""

from __future__ import annotations

from rootless_rt.spec.names import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_VERSION = "1.3.0"  # the runtime-spec that rt follows

_DEFAULT_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
# What package managers, adduser and su use besides, where ids are mapped for them.
_MANY_USERS = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def default_spec(*, cgroup2: bool = False) -> dict[str, Any]:
    """A config for a shell in `rootfs`, as runc's `spec` gives it, keys in the same order.

    `cgroup2`: whether the host has only cgroup v2; then the container gets a cgroup namespace.
    """
    namespaces = ["pid", "network", "ipc", "uts", "mount"] + (["cgroup"] if cgroup2 else [])
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                kind: list(_DEFAULT_CAPABILITIES) for kind in ("bounding", "effective", "permitted")
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "rt",
        "mounts": [
            _mount("/proc", "proc", "proc"),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount(
                "/dev/pts",
                "devpts",
                "devpts",
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ),
            _mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
            _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
            _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
            _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in namespaces],
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
        },
    }


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
    if options:
        mount["options"] = list(options)
    return mount


def many_users(spec: dict[str, Any]) -> dict[str, Any]:
    """A copy of the default config for a container in which package managers and several users are at home.

    With a range of ids mapped, apt and dnf install, adduser adds and su switches users, given a writable
    rootfs and the capabilities that they use; each of these reaches no further than the mapped ids.
    """
    result = dict(spec)
    result["root"] = {**spec["root"], "readonly": False}
    process = dict(spec["process"])
    sets = dict(process["capabilities"])
    for name in ("bounding", "effective", "permitted"):
        sets[name] = sorted({*sets[name], *_MANY_USERS})
    process["capabilities"] = sets
    result["process"] = process
    return result


def rootless(
    spec: dict[str, Any],
    euid: int,
    egid: int,
    uid_map: list[dict[str, int]] | None = None,
    gid_map: list[dict[str, int]] | None = None,
    *,
    cgroup2: bool,
) -> dict[str, Any]:
    """A copy of any checked config, changed so that the user `euid`:`egid` can run it without root.

    The network namespace goes (the host's network stays reachable), a user namespace comes; so /sys, which
    only the owner of a network namespace may mount, becomes a read-only bind of the host's. Limits go.
    `uid_map` and `gid_map` are lists of {"containerID", "hostID", "size"}; without them, the container's root
    is the user and no other id exists. Mount options uid= and gid= stay only when a given map covers the id.
    `cgroup2`: as in `default_spec`.
    """
    result = dict(spec)
    linux = dict(result.get("linux", {}))
    linux.pop("resources", None)
    kept = [item for item in linux.get("namespaces", []) if item["type"] not in ("network", "user")]
    if cgroup2 and not any(item["type"] == "cgroup" for item in kept):
        kept.append({"type": "cgroup"})
    changed: dict[str, Any] = {
        "uidMappings": uid_map or [{"containerID": 0, "hostID": euid, "size": 1}],
        "gidMappings": gid_map or [{"containerID": 0, "hostID": egid, "size": 1}],
        "namespaces": [*kept, {"type": "user"}],
    }
    result["linux"] = {**changed, **{key: item for key, item in linux.items() if key not in changed}}
    maps = {"uid": uid_map or [], "gid": gid_map or []}
    if "mounts" in result:
        result["mounts"] = [_rootless_mount(mount, maps) for mount in result["mounts"]]
    return result


def _rootless_mount(mount: dict[str, Any], maps: dict[str, list[dict[str, int]]]) -> dict[str, Any]:
    if mount["destination"].rstrip("/") == "/sys" and mount.get("type") == "sysfs":
        return _mount("/sys", "none", "/sys", "rbind", "nosuid", "noexec", "nodev", "ro")
    if "options" not in mount:
        return dict(mount)
    return {**mount, "options": [word for word in mount["options"] if _is_mapped(word, maps)]}


def _is_mapped(option: str, maps: dict[str, list[dict[str, int]]]) -> bool:
    """Whether the kernel would know the id of a uid= or gid= option; true of every other option."""
    name, equals, text = option.partition("=")
    if not equals or name not in maps:
        return True
    number = decimal(text)
    return number is not None and any(0 <= number - line["containerID"] < line["size"] for line in maps[name])
