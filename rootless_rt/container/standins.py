"""What of the host stands for a checkpoint's external mounts at restore, and the mount points of all.

A mount of the config is found by the config that is there now; everything else by what the checkpoint has
written down of it (mounttable.Source). A checkpoint of another runtime has nothing but
the config. Must not know CRIU.
"""

from __future__ import annotations

import os
import stat

from rootless_rt.container import mountpoints, mounttable
from rootless_rt.errors import RtError
from rootless_rt.plan.mounts import normal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.container.image import Record
    from rootless_rt.container.mounttable import Source
    from rootless_rt.container.prepare import Prepared
    from rootless_rt.container.store import Handle


def find(record: Record | None, prepared: Prepared, handle: Handle) -> dict[str, str]:
    """Name of each external mount -> the path of the host that stands for it. Raises RtError."""
    found = _of_config(prepared)
    for name, source in record.sources.items() if record is not None else ():
        try:
            found[name] = _one(source, found, prepared, handle)
        except KeyError:
            raise RtError(f"the checkpoint does not tell what the mount at {name} was of") from None
        if "cgroup" not in source and not os.path.exists(found[name]):
            raise RtError(
                f"the mount at {name} was of {found[name]}, which does not exist here",
                hint="make it, or name a bundle whose config has another source for it",
            )
    return found


def _one(source: Source, found: dict[str, str], prepared: Prepared, handle: Handle) -> str:
    if "mount" in source:
        return found[source["mount"]]
    if "within" in source:
        return found[source["within"]] + source["path"]
    if "own" in source:
        return f"{handle.path}/{source['own']}"
    if "cgroup" in source:
        return _cgroup_dir(source["cgroup"], prepared)
    return source["host"]


def _of_config(prepared: Prepared) -> dict[str, str]:
    """What the bundle's config says of the mounts that come from the host."""
    found = {mounttable.MASK: mounttable.MASK}
    bundle = prepared.spec.bundle
    for mount in prepared.spec.data.get("mounts", []):
        if mounttable.is_bind(mount):
            source = mount.get("source", "")
            found[normal(mount["destination"])] = source if source[:1] == "/" else f"{bundle}/{source}"
    for device in prepared.spec.data["linux"].get("devices", []):
        found.setdefault(normal(device["path"]), device["path"])
    return found


def _cgroup_dir(options: str, prepared: Prepared) -> str:
    """The container's directory in the hierarchy of these controllers."""
    known = prepared.facts.cgroup.container_dirs
    for name in mounttable.controllers(options) or [""]:
        if name in known:
            return known[name]
    raise RtError(
        f"the cgroup hierarchy {options} of the checkpoint is not mounted here",
        hint="restore on a host with the same cgroups",
    )


def make_points(record: Record | None, prepared: Prepared, sources: dict[str, str]) -> None:
    """Make missing mount points where the container's files lie on the host. Raises RtError."""
    if record is not None:
        points = record.points
    else:
        points = [normal(mount["destination"]) for mount in prepared.spec.data.get("mounts", [])]
    for point in sorted(set(points) - {"/"}):
        above = max((other for other in {*points, "/"} if _is_above(other, point)), key=len)
        file = point in sources and _is_file(sources[point])
        what = f"the mount at {point}"
        if above == "/":
            mountpoints.ensure(prepared.spec.rootfs, point, file=file, what=what)
        elif above in sources and not _is_file(sources[above]) and point not in _masks(prepared):
            mountpoints.ensure(sources[above], mounttable.rest(point, above), file=file, what=what)


def _masks(prepared: Prepared) -> set[str]:
    return {normal(path) for path in prepared.spec.data["linux"].get("maskedPaths", [])}


def _is_above(other: str, point: str) -> bool:
    return other != point and mounttable.below(point, other)


def _is_file(path: str) -> bool:
    """Whether a path of the host is anything but a directory. A cgroup may not be there yet: systemd makes it
    for a process. Raises OSError."""
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return False
