"""The mounts of a running container, and which of them are the host's and not its own.

CRIU makes a container's own mounts anew, content and all; what came in from outside (bind mounts, masked
files, cgroups) it only names in its images, and is told at restore what stands for that name. Reads
mountinfo (proc_pid_mountinfo(5)) and decides; must not know CRIU.
"""

from __future__ import annotations

from rootless_rt import paths
from rootless_rt.errors import RtError
from rootless_rt.plan.mounts import normal
from rootless_rt.spec.names import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Source = dict[str, str]
    """Where a restore finds what stands for an external mount. One of
    {"mount": the destination of a mount in the config}, {"within": a name, "path": below its source},
    {"cgroup": controllers of v1, or ""}, {"host": a path}, {"own": a name in the state directory}."""

MASK = "/dev/null"
_LIMIT = 8 << 20
# New with each mount, or no more than a view of namespaces: CRIU mounts these itself.
_VIEWS = {"proc", "sysfs", "mqueue", "devpts", "cgroup", "cgroup2", "binfmt_misc", "nsfs"}
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


class Mount:
    """A line of mountinfo."""

    __slots__ = ("device", "id", "kind", "options", "parent", "point", "root")

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        self.id = fields[0]
        self.parent = fields[1]
        self.device = fields[2]
        self.root = _plain(fields[3])
        self.point = _plain(fields[4])
        self.kind, _, rest = right.partition(" ")
        self.options = rest.partition(" ")[2]


def _plain(text: str) -> str:
    for escape, char in _ESCAPES.items():
        text = text.replace(escape, char)
    return text


def table(pid: int | str) -> list[Mount]:
    """The mounts that a process sees. Raises RtError."""
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:
            text = file.read(_LIMIT).decode("utf-8", "surrogateescape")
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise RtError(f"cannot read the mounts of process {pid}: {reason}") from None
    return [Mount(line) for line in text.splitlines() if " - " in line]


def below(path: str, top: str) -> bool:
    """Whether `path` is `top`, or lies in it."""
    return top == "/" or path == top or path.startswith(top + "/")


def rest(path: str, top: str) -> str:
    """`path` as seen from `top`, with a slash before it; empty for `top` itself."""
    return path if top == "/" else path[len(top) :]


class Outside:
    """The external mounts of a container: name of each -> where a restore finds it. `points` are the mount
    points of all its mounts."""

    __slots__ = ("names", "points", "sources")

    def __init__(self) -> None:
        self.points: list[str] = []
        self.names: dict[str, str] = {}  # mount point -> its name in the images
        self.sources: dict[str, Source] = {}


def sort_out(inside: list[Mount], host: list[Mount], config: dict[str, Any], state_dir: str) -> Outside:
    """Tell the container's own mounts from the host's. Pure; raises RtError."""
    tops = [mount for mount in inside if mount.point == "/"]
    if not tops:
        raise RtError("the container's process has no root mount")
    top = tops[-1]
    devices = {mount.device for mount in host}
    if top.device not in devices:
        raise RtError(
            "a container on an overlay that rt made (--overlay, --overlay-dir) cannot be checkpointed:"
            " what it has written would be lost",
            hint="run it from a rootfs of its own",
        )
    binds = {normal(mount["destination"]): mount for mount in config.get("mounts", []) if is_bind(mount)}
    views = {normal(mount["destination"]): mount.get("type", "") for mount in config.get("mounts", [])}
    found = Outside()
    external: dict[str, Mount] = {}  # mount id -> those that are
    for mount in inside:
        found.points.append(mount.point)
        if mount in tops:
            continue
        if mount.point not in binds and not _from_host(mount, top, devices, views, config):
            continue
        external[mount.id] = mount
        name = MASK if _is_mask(mount, config) else mount.point
        found.names[mount.point] = name
        found.sources[name] = _source(mount, external, host, binds, config, state_dir)
    return found


def is_bind(mount: dict[str, Any]) -> bool:
    """Whether a mount of a config is a bind mount."""
    options = mount.get("options", [])
    return mount.get("type") == "bind" or "bind" in options or "rbind" in options


def _from_host(
    mount: Mount, top: Mount, devices: set[str], views: dict[str, str], config: dict[str, Any]
) -> bool:
    if mount.device not in devices:
        return False
    if mount.kind in ("cgroup", "cgroup2"):
        namespaces = {item["type"] for item in config.get("linux", {}).get("namespaces", [])}
        return "cgroup" not in namespaces
    if mount.kind in _VIEWS:
        # Bound from the host, as /sys is without a network namespace: nothing that the config has as a view.
        nearest = max((dest for dest in views if below(mount.point, dest)), key=len, default="")
        return views.get(nearest, "") not in _VIEWS
    return not (mount.device == top.device and below(mount.root, top.root))


def _is_mask(mount: Mount, config: dict[str, Any]) -> bool:
    masked = {normal(path) for path in config.get("linux", {}).get("maskedPaths", [])}
    return mount.point in masked and mount.root == "/null"


def _source(
    mount: Mount,
    external: dict[str, Mount],
    host: list[Mount],
    binds: dict[str, dict[str, Any]],
    config: dict[str, Any],
    state_dir: str,
) -> Source:
    if mount.point in binds:
        return {"mount": mount.point}
    if _is_mask(mount, config):
        return {"host": MASK}
    if mount.kind in ("cgroup", "cgroup2"):
        return {"cgroup": mount.options if mount.kind == "cgroup" else ""}
    place = _host_path(mount, host)
    for dest, bind in binds.items():
        # A destination behind a symbolic link of the image: known by what is mounted there.
        if place is not None and paths.normal(bind.get("source", "")) == place:
            return {"mount": dest}
    parent = external.get(mount.parent)
    if parent is not None and mount.kind not in _VIEWS:
        return {"within": parent.point, "path": rest(mount.point, parent.point)}
    if place is None:
        raise RtError(
            f"the mount at {mount.point} comes from where the host cannot see it: it cannot be restored"
        )
    if below(place, state_dir) and place != state_dir:
        return {"own": rest(place, state_dir)[1:]}
    return {"host": place}


def _host_path(mount: Mount, host: list[Mount]) -> str | None:
    """The path of the host that leads to what is mounted there."""
    for seen in reversed(host):
        if seen.device == mount.device and below(mount.root, seen.root):
            return paths.normal(seen.point + "/" + rest(mount.root, seen.root))
    return None


def controllers(options: str) -> list[str]:
    """The controllers of a v1 hierarchy, by the options of its mount."""
    return [
        word for word in options.split(",") if word and word not in ("rw", "ro", "xattr", "clone_children")
    ]


def mount_id(fdinfo: str) -> int | None:
    """The mount that a descriptor is on, by its fdinfo (proc_pid_fdinfo(5))."""
    for line in fdinfo.splitlines():
        name, _, value = line.partition(":")
        if name == "mnt_id":
            return decimal(value.strip())
    return None
