"""Rules of `lint` on files: mounts of the host, the kernel's file systems, the rootfs, the config's file."""

from __future__ import annotations

from rootless_rt.spec.jsonio import quote
from rootless_rt.spec.lint_model import HIGH, INFO, LOW, MEDIUM, Hit, View
from rootless_rt.spec.lint_paths import is_below, is_readonly, normal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# Sockets by their names: whoever can connect to one gives orders, however it is mounted.
_SOCKETS = {
    "docker.sock": "Docker's socket: its master is root of the host",
    "podman.sock": "podman's socket: its master runs containers as its owner",
    "containerd.sock": "containerd's socket: its master is root of the host",
    "crio.sock": "CRI-O's socket: its master is root of the host",
    "cri-dockerd.sock": "the socket of a container engine: its master is root of the host",
    "dockershim.sock": "the socket of a container engine: its master is root of the host",
    "buildkitd.sock": "BuildKit's socket: its master runs builds on the host",
    "kubelet.sock": "the kubelet's socket: its master runs containers on the host",
    "system_bus_socket": "the system's message bus: services of the host take orders there",
    "libvirt-sock": "libvirt's socket: its master is root of the host",
    "unix.socket": "the socket of Incus or LXD: its master is root of the host",
}
# Directories that hold such sockets.
_SOCKET_PLACES = (
    "/run",
    "/run/systemd",
    "/run/dbus",
    "/run/docker",
    "/run/containerd",
    "/run/podman",
    "/run/user",
)
# (place, whether what is below counts too, severity when writable, when read-only ("": none), what it is)
_PLACES: tuple[tuple[str, bool, str, str, str], ...] = (
    ("/", False, HIGH, MEDIUM, "the whole host"),
    ("/etc", True, HIGH, LOW, "the host's configuration"),
    ("/etc/shadow", True, HIGH, HIGH, "the host's password hashes"),
    ("/proc", True, HIGH, MEDIUM, "the host's /proc"),
    ("/sys", True, HIGH, INFO, "the host's /sys"),
    ("/dev", False, HIGH, HIGH, "the host's devices"),
    ("/dev/pts", True, HIGH, HIGH, "the host's terminals"),
    ("/dev/mem", True, HIGH, HIGH, "the host's memory"),
    ("/dev/kmsg", True, MEDIUM, MEDIUM, "the kernel's log"),
    ("/dev/tty", False, LOW, LOW, "the caller's terminal"),
    ("/dev/console", False, MEDIUM, MEDIUM, "the host's console"),
    ("/dev/mapper", True, HIGH, HIGH, "the host's disks"),
    ("/dev/disk", True, HIGH, HIGH, "the host's disks"),
    ("/dev/loop-control", True, HIGH, HIGH, "disks made of files"),
    ("/boot", True, HIGH, LOW, "the host's kernel"),
    ("/usr", True, HIGH, "", "the host's programs"),
    ("/bin", True, HIGH, "", "the host's programs"),
    ("/sbin", True, HIGH, "", "the host's programs"),
    ("/lib", True, HIGH, "", "the host's libraries"),
    ("/lib64", True, HIGH, "", "the host's libraries"),
    ("/opt", False, MEDIUM, "", "the host's programs"),
    ("/root", True, HIGH, MEDIUM, "the home of the host's root"),
    ("/home", False, HIGH, MEDIUM, "the homes of all users"),
    ("/var", False, HIGH, MEDIUM, "the host's data"),
    ("/var/lib", False, HIGH, MEDIUM, "the data of the host's services"),
    ("/var/lib/docker", True, HIGH, MEDIUM, "the files of other containers"),
    ("/var/lib/containerd", True, HIGH, MEDIUM, "the files of other containers"),
    ("/var/lib/containers", True, HIGH, MEDIUM, "the files of other containers"),
    ("/var/lib/kubelet", True, HIGH, MEDIUM, "the volumes and secrets of other containers"),
    ("/var/spool/cron", True, HIGH, LOW, "what the host runs by itself"),
    ("/var/log", False, MEDIUM, LOW, "the host's logs"),
)
_DISKS = ("sd", "hd", "vd", "xvd", "nvme", "mmcblk", "dm-", "md", "loop", "sr")
_SECRETS = (
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".netrc",
    ".git-credentials",
    ".vault-token",
)
_ORDER = (HIGH, MEDIUM, LOW, INFO)
_OF_KERNEL = {
    "debugfs": "shows and steers the kernel's insides",
    "tracefs": "traces the kernel",
    "securityfs": "holds the policy of security modules",
    "bpf": "holds the host's BPF programs",
    "configfs": "makes devices of the kernel",
    "efivarfs": "changes the host's firmware variables",
    "pstore": "shows the kernel's last messages",
    "binfmt_misc": "names programs that the host runs for others",
    "devtmpfs": "holds every device of the host",
}
# Their source is a word.
_WITHOUT_SOURCE = ("proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "cgroup", "cgroup2", "overlay")
_OTHERS_WRITE, _GROUP_WRITES = 0o002, 0o020


def _binds(view: View) -> Iterator[tuple[str, str, bool]]:
    """(JSON path, the normal path of the source, whether it is writable) of the bind mounts of host paths."""
    for index, mount in enumerate(view.config.get("mounts", [])):
        source, options = mount.get("source", ""), mount.get("options", [])
        bind = mount.get("type") == "bind" or {"bind", "rbind"} & set(options)
        if bind and source.startswith("/") and "remount" not in options:
            yield f"mounts[{index}].source", normal(source), not is_readonly(mount)
        elif mount.get("type") == "overlay":
            yield from _layers(index, mount)


def _layers(index: int, mount: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """The same of an overlay's layers: only the upper one is written to."""
    for place, option in enumerate(mount.get("options", [])):
        kind, _, value = option.partition("=")
        for layer in value.split(":") if kind in ("lowerdir", "lowerdir+", "datadir+") else [value]:
            if kind.rstrip("+") in ("lowerdir", "datadir", "upperdir") and layer.startswith("/"):
                writable = kind == "upperdir" and not is_readonly(mount)
                yield f"mounts[{index}].options[{place}]", normal(layer), writable


def _sockets(view: View) -> Iterator[Hit]:
    for path, source, _ in _binds(view):
        name = source.rpartition("/")[2]
        parts = source.split("/")
        if name in _SOCKETS:
            yield Hit(path, f"{quote(source)}: {_SOCKETS[name]}")
        elif source in _SOCKET_PLACES or (parts[1:3] == ["run", "user"] and len(parts) == 4):
            yield Hit(path, f"{quote(source)}: the sockets of the host's services")
        elif parts[1:3] == ["run", "user"] and parts[4:] == ["bus"]:
            yield Hit(
                path, f"{quote(source)}: the user's message bus, on which programs can be started", MEDIUM
            )


def _host_paths(view: View) -> Iterator[Hit]:
    for path, source, writable in _binds(view):
        worst: tuple[int, str] | None = None
        for place, below, if_writable, if_readonly, what in _PLACES:
            meant = source == place or (below and is_below(source, place))
            severity = if_writable if writable else if_readonly
            if meant and severity:
                worst = min(worst or (len(_ORDER), ""), (_ORDER.index(severity), what))
        if worst is not None:
            how = "writable" if writable else "read-only"
            yield Hit(path, f"{quote(source)} ({how}): {worst[1]}", _ORDER[worst[0]])


def _disks(view: View) -> Iterator[Hit]:
    for path, source, _ in (*_binds(view), *_devices(view)):
        name = source.removeprefix("/dev/")
        named = "/" not in name and name.startswith(_DISKS)
        if source.startswith("/dev/") and (named or name.startswith(("mapper/", "disk/"))):
            yield Hit(path, f"{quote(source)} is a disk of the host")


def _devices(view: View) -> Iterator[tuple[str, str, bool]]:
    """The same of what other file systems lie on."""
    for index, mount in enumerate(view.config.get("mounts", [])):
        source = normal(mount.get("source", ""))
        bind = mount.get("type") == "bind" or {"bind", "rbind"} & set(mount.get("options", []))
        if bind or mount.get("type") in _WITHOUT_SOURCE:
            continue
        yield f"mounts[{index}].source", source, True


def _secrets(view: View) -> Iterator[Hit]:
    for path, source, writable in _binds(view):
        parts = source.split("/")
        if set(parts) & set(_SECRETS):
            yield Hit(path, f"{quote(source)}: keys and passwords", HIGH if writable else MEDIUM)
        elif parts[1] == "home" and len(parts) == 3:
            yield Hit(path, f"{quote(source)}: a whole home, with its keys", HIGH if writable else MEDIUM)


def _propagation(view: View) -> Iterator[Hit]:
    for index, mount in enumerate(view.config.get("mounts", [])):
        shared = [word for word in mount.get("options", []) if word in ("shared", "rshared")]
        if shared:
            yield Hit(f"mounts[{index}].options", shared[0])


def _kernel_filesystems(view: View) -> Iterator[Hit]:
    for index, mount in enumerate(view.config.get("mounts", [])):
        kind, path = mount.get("type", ""), f"mounts[{index}]"
        if {"bind", "rbind"} & set(mount.get("options", [])):
            continue
        if kind in _OF_KERNEL:
            yield Hit(f"{path}.type", f"{kind} {_OF_KERNEL[kind]}", LOW if view.in_userns else HIGH)
        elif kind in ("cgroup", "cgroup2") and not is_readonly(mount):
            strong = "CAP_SYS_ADMIN" in view.capabilities and not view.in_userns
            yield Hit(path, "cgroups are writable", HIGH if strong else MEDIUM)
        elif kind == "sysfs" and not is_readonly(mount):
            yield Hit(path, "/sys is writable", LOW if view.in_userns else MEDIUM)


def _tmpfs(view: View) -> Iterator[Hit]:
    for index, mount in enumerate(view.config.get("mounts", [])):
        words = mount.get("options", [])
        if mount.get("type") == "tmpfs" and not any(
            word.startswith(("size=", "nr_blocks=")) for word in words
        ):
            yield Hit(f"mounts[{index}].options", f"the tmpfs on {quote(mount['destination'])} has no size")


def _rootfs(view: View) -> Iterator[Hit]:
    root: dict[str, Any] = view.config.get("root", {})
    # A relative one, such as "../../..", as the bundle's place has it.
    found = {root.get("path", "")} | {place.name for place in view.places if place.kind == "root"}
    for path in sorted(path for path in found if path.startswith("/")):
        if normal(path) in ("/", "/etc", "/usr", "/var", "/home", "/root"):
            yield Hit("root.path", f"{quote(path)} is a directory of the host itself", HIGH)
    if not root.get("readonly"):
        yield Hit("root.readonly", "the rootfs is writable", INFO)


def _places(view: View) -> Iterator[Hit]:
    for place in view.places:
        path = "root.path" if place.kind == "root" else "config.json"
        name = quote(place.name)
        if place.link and place.kind == "root":
            yield Hit(path, f"{name} is a symbolic link: whoever can change it chooses the files", MEDIUM)
        if place.mode & _OTHERS_WRITE and not place.mode & 0o1000:
            yield Hit(path, f"{name} can be written by every user", HIGH)
        elif place.mode & _GROUP_WRITES:
            yield Hit(path, f"{name} can be written by a group", LOW)
        if not place.trusted and place.kind == "config":
            yield Hit(path, f"{name} belongs to another user, who can change it", MEDIUM)


RULES = (
    (
        "engine-socket",
        HIGH,
        _sockets,
        "whoever can connect to it gives orders to a service of the host, also through a read-only mount",
        "remove the mount, or put a proxy that allows single requests between",
    ),
    (
        "host-path",
        HIGH,
        _host_paths,
        "the host's own files lie in the container",
        "mount the one directory that is needed, read-only (rro), or remove the mount",
    ),
    (
        "host-disk",
        HIGH,
        _disks,
        "all files on it can be read and changed, past every permission",
        "remove the mount",
    ),
    (
        "home-secrets",
        HIGH,
        _secrets,
        "with these the container can act as the user elsewhere",
        "mount single files, or the directory of the project",
    ),
    (
        "mount-propagation",
        MEDIUM,
        _propagation,
        "what is mounted inside appears on the host",
        "use rslave or rprivate",
    ),
    (
        "kernel-filesystem",
        MEDIUM,
        _kernel_filesystems,
        "it steers the host's kernel",
        'add "ro" to its options, or remove the mount',
    ),
    ("tmpfs-size", LOW, _tmpfs, "it can fill half of the host's memory", "add size= to its options"),
    (
        "rootfs",
        LOW,
        _rootfs,
        "changes of programs and configuration outlive the process",
        "set root.readonly to true, and mount a tmpfs where it must write",
    ),
    (
        "file-permissions",
        HIGH,
        _places,
        "who can change it decides what the container is",
        "chmod go-w, in directories that only you or root can write",
    ),
)
