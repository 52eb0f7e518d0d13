"""config.json's mounts as ops, and the fall-backs for those an ordinary user cannot make.

A bind mount is two ops: its source is copied (open_tree(2)) before anything is changed, then attached.
Attributes that restrict (ro, nosuid, nodev, noexec, nosymfollow) are set or the container fails; those that
only concern access times, or take a restriction back, may be locked by the mount they come from
(mount_namespaces(7)): then they stay, which is noted.
"""

from __future__ import annotations

from rootless_rt.errors import RtError, SpecError
from rootless_rt.plan.model import Degradation, Draft
from rootless_rt.plan.ops import ANY_DEVICE, IN_PROC, NO_LINKS, NO_SLOT, NOT_IN_PROC, PROC_ITSELF, Op
from rootless_rt.spec.mountopts import (
    ATTR_ATIME,
    ATTR_NODEV,
    ATTR_NOEXEC,
    ATTR_NOSUID,
    ATTR_NOSYMFOLLOW,
    ATTR_RDONLY,
    parse_options,
)
from rootless_rt.spec.names import MS_REC, decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_rt.spec.mountopts import MountOptions

# What may be mounted inside /proc: files that LXCFS and its like stand in for, never a way into the kernel.
IN_PROC_ALLOWED = {
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
}
_RESTRICT = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | ATTR_NOSYMFOLLOW
_SAFE = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC


def normal(path: str) -> str:
    """A destination as an absolute path without "." and "..", which are undone by name as runc does."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def mounts(draft: Draft) -> list[Op]:
    """The ops of all mounts, in the order of config.json. Raises RtError."""
    ops: list[Op] = []
    for index, mount in enumerate(draft.config.get("mounts", [])):
        where = f"mounts[{index}]"
        options = parse_options(mount.get("options", []), f"{where}.options", mount.get("type", ""))
        dest = normal(mount["destination"])
        if dest == "/":
            raise SpecError(f"{where}.destination", "the rootfs itself is not a place for a mount")
        ops += _mount(draft, mount, options, dest, where)
    return ops


def _mount(draft: Draft, mount: dict[str, Any], options: MountOptions, dest: str, where: str) -> list[Op]:
    propagation = [flag | (MS_REC if recursive else 0) for flag, recursive in options.propagation]
    kind = mount.get("type", "")
    if options.remount:
        return [
            Op("remount", draft.root_slot, dest, options.attr_set, options.attr_clr, propagation, label=where)
        ]
    if options.bind:
        return [_bind(draft, mount, options, dest, where, propagation)]
    if not kind:
        raise SpecError(f"{where}.type", "is needed unless the mount is a bind mount")
    if kind == "cgroup":
        from rootless_rt.plan.cgroupfs import cgroup_mounts

        return cgroup_mounts(draft, options, dest, where, propagation)
    substitute = _substitute(draft, kind, where)
    if substitute is not None:
        path, recursive = substitute
        slot = draft.source(path, recursive, label=where)
        attrs = options.attr_set | _SAFE & ~(0 if kind != "proc" else ATTR_RDONLY)
        right = {"proc": "/proc", "sysfs": "/sys"}.get(kind) == dest
        in_proc = _kernel_place(dest, where) if right else _in_proc(dest, where)
        bind = ("mount_bind", draft.root_slot, slot, dest, attrs & _RESTRICT, 0, 0, 0, propagation)
        # What is mounted below /sys, the cgroups above all, is to be read-only as well (CVE-2023-25809).
        return [Op(*bind, ANY_DEVICE, in_proc, int(kind == "sysfs"), label=where)]
    ops = [_filesystem(draft, mount, options, dest, where, propagation)]
    if kind == "mqueue" and draft.linux.get("mountLabel"):
        from rootless_rt.plan import lsm

        ops += lsm.after_mount(draft, kind, dest, where)
    return ops


def _filesystem(
    draft: Draft, mount: dict[str, Any], options: MountOptions, dest: str, where: str, propagation: list[int]
) -> Op:
    kind = mount["type"]
    data = list(options.sb_set) + [part for word in options.data for part in split_data(word)]
    data = [word for word in data if _mapped_option(draft, word, where, kind)]
    if kind == "overlay":
        data = [part for word in data for part in _layers(word)]
    if draft.linux.get("mountLabel") or any("context=" in word for word in data):
        from rootless_rt.plan import lsm

        data = lsm.mount_data(draft, kind, data)
    source = mount.get("source") or kind
    in_proc = IN_PROC if kind == "proc" and dest == "/proc" else _in_proc(dest, where)
    fallback, what = _fallback(draft, kind, where)
    op = Op(
        "mount_fs",
        draft.root_slot,
        dest,
        kind,
        source,
        data,
        options.attr_set,
        propagation,
        int(kind in ("proc", "sysfs")),
        in_proc,
        fallback,
        label=where,
    )
    if fallback != NO_SLOT:
        why = "the joined namespace belongs to another user namespace"
        draft.tolerate(op, Degradation(where, f"a new {kind}", what, why))
    return op


def _bind(
    draft: Draft, mount: dict[str, Any], options: MountOptions, dest: str, where: str, propagation: list[int]
) -> Op:
    source = mount.get("source")
    if not source:
        raise SpecError(f"{where}.source", "is needed for a bind mount")
    if not source.startswith("/"):
        source = draft.spec.bundle + "/" + source
    index = draft.config["mounts"].index(mount)
    if index in draft.idmaps:
        from rootless_rt.plan.idmapped import source as mapped

        slot = mapped(draft, index, source, options.rbind, where)
    else:
        slot = draft.source(source, options.rbind, label=where)
    in_proc = _kernel_place(dest, where)
    soft_clear = options.attr_clr & ~ATTR_ATIME
    soft_set = options.attr_set & ~_RESTRICT
    if options.attr_clr & ATTR_ATIME and soft_set & ATTR_ATIME:
        soft_clear |= ATTR_ATIME
    op = Op(
        "mount_bind",
        draft.root_slot,
        slot,
        dest,
        options.attr_set & _RESTRICT,
        0,
        soft_set,
        soft_clear,
        propagation,
        ANY_DEVICE,
        in_proc,
        int(options.rbind and normal(source) == "/sys"),  # as for a substituted sysfs
        label=where,
    )
    if soft_set or soft_clear:
        asked = ",".join(mount.get("options", []))
        why = "the mount it comes from has these flags locked (it is not yours)"
        draft.tolerate(op, Degradation(f"{where}.options", asked, "the flags of its source", why))
    return op


def _kernel_place(dest: str, where: str) -> int:
    """The in_proc field of a bind mount.

    For /proc and /sys a link in the image would put the mount into a directory that another container may
    exchange behind it, and masked paths would then not be found (CVE-2019-19921): there must be none.
    """
    if dest == "/proc":
        return PROC_ITSELF
    return NO_LINKS if dest == "/sys" else _in_proc(dest, where)


def _in_proc(dest: str, where: str) -> int:
    """Whether a destination may lie on procfs. Raises SpecError for places that must not be mounted over."""
    if dest == "/proc":
        raise SpecError(f"{where}.destination", "only a proc filesystem can be mounted on /proc")
    if not dest.startswith("/proc/"):
        return NOT_IN_PROC
    if dest not in IN_PROC_ALLOWED:
        raise SpecError(
            f"{where}.destination",
            f"{dest} is inside /proc",
            hint="inside /proc only these can be mounted over: " + " ".join(sorted(IN_PROC_ALLOWED)),
        )
    return IN_PROC


def split_data(word: str) -> list[str]:
    """Parts of a comma-separated option; a comma behind a backslash, or inside quotes, does not separate."""
    if "," not in word:
        return [word]
    parts, part, quoted, escaped = [], "", False, False
    for char in word:
        if char == "," and not quoted and not escaped:
            parts.append(part)
            part = ""
            continue
        quoted ^= char == '"'
        escaped = char == "\\" and not escaped
        part += char
    parts.append(part)
    return [part for part in parts if part]


def _layers(word: str) -> list[str]:
    """A long lowerdir layer by layer (Linux 6.7): fsconfig(2) takes no value of more than 255 bytes."""
    layers = word.removeprefix("lowerdir=")
    if layers == word or "\\" in word or "::" in word or len(layers.encode("utf-8", "surrogateescape")) < 256:
        return [word]
    return ["lowerdir+=" + layer for layer in layers.split(":")]


def _mapped_option(draft: Draft, word: str, where: str, kind: str) -> bool:
    """False for a uid= or gid= that the user namespace does not know: the kernel would refuse the mount."""
    name, _, value = word.partition("=")
    number = decimal(value)
    if name not in ("uid", "gid") or not draft.in_userns or number is None:
        return True
    if draft.uid_mapped(number) if name == "uid" else draft.gid_mapped(number):
        return True
    draft.degrade(
        f"{where}.options",
        word,
        f"the default owner of {kind}",
        f"{name} {value} is not mapped into the user namespace",
        f"remove {word}, or map {name} {value} (rt spec --rootless --idmap full)",
    )
    return False


def _substitute(draft: Draft, kind: str, where: str) -> tuple[str, bool] | None:
    """A path of the host to bind instead of making a filesystem that only the namespace's owner may make."""
    if not draft.in_userns:
        return None
    owner = {"sysfs": "network", "proc": "pid", "mqueue": "ipc"}.get(kind)
    if owner is None or owner in draft.new or owner in draft.joined:
        return None
    if kind == "mqueue" and "/dev/mqueue" not in draft.facts.paths:
        raise RtError(
            f"config.json: {where}: mqueue needs an ipc namespace of its own",
            hint='add {"type": "ipc"} to linux.namespaces, or remove the mount',
        )
    path, recursive = {"sysfs": ("/sys", True), "proc": ("/proc", True), "mqueue": ("/dev/mqueue", False)}[
        kind
    ]
    draft.degrade(
        where,
        f"a new {kind}",
        f"the host's {path}" + (", read-only" if kind != "proc" else ""),
        f"only the owner of the {owner} namespace may mount {kind}",
        f'add {{"type": "{owner}"}} to linux.namespaces',
    )
    return path, recursive


def _fallback(draft: Draft, kind: str, where: str) -> tuple[int, str]:
    """A slot to use when a joined namespace turns out to belong to somebody else, and what it holds."""
    if draft.policy.strict or not draft.in_userns:
        return NO_SLOT, ""
    if kind == "sysfs" and "network" in draft.joined:
        return draft.source("/sys", True, label=where), "the host's /sys, read-only"
    return NO_SLOT, ""
