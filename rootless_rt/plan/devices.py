"""Devices: nodes, their fall-back in a user namespace, and the links of /dev.

The kernel makes device nodes for the initial user namespace only (mknod(2), EPERM otherwise), and ignores
them on filesystems that a user namespace mounted: inside one the host's node of the same path and number is
bound instead.
"""

from __future__ import annotations

from rootless_rt.plan.attributes import bind_op
from rootless_rt.plan.model import Draft
from rootless_rt.plan.mounts import normal
from rootless_rt.plan.ops import Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_S_IFCHR, _S_IFBLK, _S_IFIFO = 0o020000, 0o060000, 0o010000

# What every container has (runtime-spec, "Default Devices"); ptmx, console and pts come by mounts.
DEFAULT_DEVICES: tuple[dict[str, Any], ...] = tuple(
    {
        "path": f"/dev/{name}",
        "type": "c",
        "major": major,
        "minor": minor,
        "fileMode": 0o666,
        "uid": 0,
        "gid": 0,
    }
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("tty", 5, 0),
        ("random", 1, 8),
        ("urandom", 1, 9),
    )
)
LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
)


def rdev(major: int, minor: int) -> int:
    """A device number as the C library encodes it (makedev(3))."""
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12 | (major & ~0xFFF) << 32


def wanted(config: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """The devices to make, each with its JSON path ("" for a default one); config.json's win."""
    if has_own_dev(config):
        return []
    asked = config.get("linux", {}).get("devices", [])
    listed = [(device, f"linux.devices[{index}]") for index, device in enumerate(asked)]
    paths = {normal(device["path"]) for device in asked}
    defaults = [(device, "") for device in DEFAULT_DEVICES if device["path"] not in paths]
    return [pair for pair in defaults + listed if normal(pair[0]["path"]) != "/dev/ptmx"]


def has_own_dev(config: dict[str, Any]) -> bool:
    """Whether /dev is a bind mount: then it is the user's, and nothing is made in it."""
    for mount in config.get("mounts", []):
        if normal(mount["destination"]) == "/dev":
            options = mount.get("options", [])
            return mount.get("type") == "bind" or "bind" in options or "rbind" in options
    return False


def devices(draft: Draft) -> list[Op]:
    """The ops that put devices and links into /dev."""
    ops = []
    for device, where in wanted(draft.config):
        op = _device(draft, device, where)
        if op is not None:
            ops.append(op)
    if has_own_dev(draft.config):
        return ops
    for path, target in LINKS:
        ops.append(Op("symlink", draft.root_slot, path, target))
    if "/proc/kcore" in draft.facts.paths:
        ops.append(Op("symlink", draft.root_slot, "/dev/core", "/proc/kcore"))
    if any(normal(mount["destination"]) == "/dev/pts" for mount in draft.config.get("mounts", [])):
        ops.append(Op("symlink", draft.root_slot, "/dev/ptmx", "pts/ptmx"))
    return ops


def _device(draft: Draft, device: dict[str, Any], where: str) -> Op | None:
    path = normal(device["path"])
    kind = {"c": _S_IFCHR, "u": _S_IFCHR, "b": _S_IFBLK, "p": _S_IFIFO}[device["type"]]
    # Only permissions: a type among the bits of fileMode would make another kind of node.
    mode = kind | device.get("fileMode", 0o666) & 0o7777
    number = 0 if kind == _S_IFIFO else rdev(device["major"], device["minor"])
    uid, gid = device.get("uid") or 0, device.get("gid") or 0
    if not draft.in_userns or kind == _S_IFIFO:
        return Op("device", draft.root_slot, path, mode, number, uid, gid, label=where)
    if draft.facts.paths.get(path) != number:
        missing = path not in draft.facts.paths
        draft.degrade(
            where or f"the default device {path}",
            f"{path} ({device['major']}:{device['minor']})",
            "no such device in the container",
            f"the host's {path} {'does not exist' if missing else 'is another device'},"
            " and a user namespace cannot make one",
            id="RT-BUNDLE-DEVICES",
        )
        return None
    slot = draft.source(path, False, label=where)
    return bind_op(draft, slot, path, device=number, label=where)
