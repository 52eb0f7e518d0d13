"""The config of `rt spec --hardened`: for code that nobody trusts.

A user without a capability and without a way to get one, on a read-only root with small places to work in, in
namespaces of its own and no way to make further ones, with no network but loopback. Each choice says its
reason. Pure: the caller says which ids to map and which cgroups the host has.
"""

from __future__ import annotations

from rootless_rt.spec import hardened_calls
from rootless_rt.spec.defaults import MASKED_PATHS, OCI_VERSION, READONLY_PATHS
from rootless_rt.spec.names import CAPABILITY_SETS, LANDLOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Maps = list[dict[str, int]]

# Not root, and no user of any image: what belongs to root or a service in the image stays out of reach.
USER = 1000
HOME = "/home"

# What tells of the host or of its other users; none of it is needed to run programs.
_ALSO_MASKED = (
    "/proc/bootconfig",
    "/proc/buddyinfo",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/diskstats",
    "/proc/driver",
    "/proc/interrupts",  # of when keys are pressed, by its counts
    "/proc/iomem",
    "/proc/ioports",
    "/proc/kallsyms",
    "/proc/key-users",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/modules",
    "/proc/pagetypeinfo",
    "/proc/partitions",
    "/proc/slabinfo",
    "/proc/softirqs",
    "/proc/swaps",
    "/proc/vmallocinfo",
    "/proc/zoneinfo",
    "/sys/class/dmi",
    "/sys/devices/virtual/dmi",  # serial numbers
    "/sys/devices/virtual/powercap",  # measures of power tell what others compute (CVE-2020-8694)
    "/sys/fs/bpf",
    "/sys/fs/pstore",
    "/sys/hypervisor",
    "/sys/kernel/btf",
    "/sys/kernel/debug",
    "/sys/kernel/notes",  # addresses of the kernel
    "/sys/kernel/security",
    "/sys/kernel/slab",
    "/sys/kernel/tracing",
    "/sys/kernel/vmcoreinfo",
    "/sys/module",
    "/sys/power",
)

# Where the program may write; Landlock repeats it, so that a mistake in one is caught by the other.
_WRITABLE = ("/dev", HOME, "/run", "/tmp", "/var/tmp")

MEMORY_LIMIT = 1 << 30
PIDS_LIMIT = 256


def hardened_spec(uid_map: Maps, gid_map: Maps, *, devices: bool) -> dict[str, Any]:
    """The config, keys in the order of `rt spec`.

    `uid_map` and `gid_map` are lists of {"containerID", "hostID", "size"} in which `USER` is mapped. With
    `devices` the cgroup denies all devices but the usual ones: an ordinary user's cgroup cannot, and in a
    user namespace no node can be made.
    """
    resources: dict[str, Any] = {"devices": [{"allow": False, "access": "rwm"}]} if devices else {}
    resources["memory"] = {"limit": MEMORY_LIMIT}
    resources["pids"] = {"limit": PIDS_LIMIT}
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": USER, "gid": USER, "umask": 0o077},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
                f"HOME={HOME}",
            ],
            "cwd": HOME,
            "capabilities": {kind: [] for kind in CAPABILITY_SETS},
            "rlimits": [
                {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},  # core files hold secrets, and fill disks
                {"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024},
                # Of this user namespace alone (Linux 5.14): counts where no cgroup can.
                {"type": "RLIMIT_NPROC", "hard": PIDS_LIMIT, "soft": PIDS_LIMIT},
                {"type": "RLIMIT_MSGQUEUE", "hard": 819200, "soft": 819200},
            ],
            "noNewPrivileges": True,
            "oomScoreAdj": 500,  # when the host's memory runs out, this goes first
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "rt",
        "mounts": _mounts(),
        "annotations": {LANDLOCK: '{"ro": ["/"], "rw": [' + ", ".join(f'"{p}"' for p in _WRITABLE) + "]}"},
        "linux": {
            "uidMappings": uid_map,
            "gidMappings": gid_map,
            # A further user namespace would bring all capabilities over what is made in it.
            "sysctl": {"user.max_user_namespaces": "0"},
            "resources": resources,
            "namespaces": [
                {"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup", "user")
            ],
            "rootfsPropagation": "rprivate",
            "seccomp": hardened_calls.profile(),
            "maskedPaths": [*MASKED_PATHS, *_ALSO_MASKED],
            "readonlyPaths": list(READONLY_PATHS),
        },
    }


def _mounts() -> list[dict[str, Any]]:
    """The kernel's file systems, and the places to work in: small, so that they cannot fill the memory.

    /home is the only one in which programs can be executed.
    """
    own = (f"uid={USER}", f"gid={USER}")
    safe = ("nosuid", "nodev")
    return [
        _mount("/proc", "proc", "proc", *safe, "noexec"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "noexec", "strictatime", "mode=755", "size=64k"),
        _mount(
            "/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"
        ),
        _mount("/dev/shm", "tmpfs", "shm", *safe, "noexec", "mode=1777", "size=64m", "nr_inodes=4k"),
        _mount("/sys", "sysfs", "sysfs", *safe, "noexec", "ro"),
        _mount("/tmp", "tmpfs", "tmpfs", *safe, "noexec", "mode=1777", "size=256m", "nr_inodes=32k"),
        _mount("/var/tmp", "tmpfs", "tmpfs", *safe, "noexec", "mode=1777", "size=64m", "nr_inodes=4k"),
        _mount("/run", "tmpfs", "tmpfs", *safe, "noexec", *own, "mode=755", "size=16m", "nr_inodes=4k"),
        _mount(HOME, "tmpfs", "tmpfs", *safe, *own, "mode=700", "size=512m", "nr_inodes=64k"),
    ]


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}
