"""config.json's mounts as ops, and the fall-backs for those an ordinary user cannot make.

A bind mount is two ops: its source is copied (open_tree(2)) before anything is changed, then attached.
"""

from __future__ import annotations

from rootless_rt.errors import SpecError
from rootless_rt.plan.attributes import (
    bind_op,
    empty_op,
    filesystem_op,
    is_soft,
    of_existing,
    of_new,
    remount_op,
    restricting,
)
from rootless_rt.plan.model import Degradation, Draft
from rootless_rt.plan.ops import (
    COPY_SYMLINK,
    COPY_UP_FDS,
    DEST_CONTENT,
    DEST_MODE,
    DEST_OWNER,
    IN_PROC,
    NO_LINKS,
    NO_SLOT,
    NOT_IN_PROC,
    ON_SYMLINK,
    PROC_ITSELF,
    Op,
)
from rootless_rt.spec.jsonio import quote
from rootless_rt.spec.mountopts import ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, parse_options
from rootless_rt.spec.names import MS_REC, decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_rt.plan.attributes import Attributes
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
_SAFE = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC
# Filesystems that are new with each mount; the superblocks of others are the host's as well.
_OWN_SUPERBLOCK = ("tmpfs", "ramfs", "overlay", "devpts")
_VALUE_MAX = 255  # of a string for fsconfig(2)


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
    made: set[str] = set()  # destinations where a filesystem of this config's own lies on top
    _note_places(draft)
    for index, mount in enumerate(draft.config.get("mounts", [])):
        where = f"mounts[{index}]"
        options = parse_options(mount.get("options", []), f"{where}.options", mount.get("type", ""))
        dest = normal(mount["destination"])
        if dest == "/":
            raise SpecError(f"{where}.destination", "the rootfs itself is not a place for a mount")
        if options.remount:
            ops.append(_remount(draft, mount, options, dest, where, dest in made))
            continue
        more = _mount(draft, mount, options, dest, where)
        ops += more
        made.discard(dest)
        if more[-1].name == "mount_fs" and more[-1].args[2] in _OWN_SUPERBLOCK:
            made.add(dest)
    return ops


def _note_places(draft: Draft) -> None:
    """Which mounts hold a masked or read-only path: it is looked for in them, not by way of the rootfs.

    Whoever can write to the rootfs could put a link in the mount point's place for a moment, and the path
    would not be found.
    """
    dests = {normal(mount["destination"]) for mount in draft.config.get("mounts", [])}
    for key in ("maskedPaths", "readonlyPaths"):
        for path in draft.linux.get(key, []):
            found = [dest for dest in dests if normal(path).startswith(dest + "/")]
            if found:
                draft.wanted_places.add(max(found, key=len))


def _mount(draft: Draft, mount: dict[str, Any], options: MountOptions, dest: str, where: str) -> list[Op]:
    propagation = [flag | (MS_REC if recursive else 0) for flag, recursive in options.propagation]
    kind = mount.get("type", "")
    if options.bind:
        return [_bind(draft, mount, options, dest, where, propagation)]
    if not kind:
        raise SpecError(f"{where}.type", "is needed unless the mount is a bind mount")
    if kind == "cgroup":
        from rootless_rt.plan.cgroupfs import cgroup_mounts

        return cgroup_mounts(draft, options, dest, where, propagation)
    substitute = _substitute(draft, kind, where)
    if substitute == "":
        return [empty_op(draft, dest, propagation, where)]
    if substitute is not None:
        slot = draft.source(substitute, kind != "mqueue", label=where)
        attrs = of_new(options) | _SAFE & ~(0 if kind != "proc" else ATTR_RDONLY)
        right = {"proc": "/proc", "sysfs": "/sys"}.get(kind) == dest
        in_proc = _kernel_place(dest, where) if right else _in_proc(dest, where)
        # What is mounted below /sys, the cgroups above all, is to be read-only as well (CVE-2023-25809).
        attributes = restricting(attrs, tree=kind == "sysfs")
        return [bind_op(draft, slot, dest, attributes, propagation=propagation, in_proc=in_proc, label=where)]
    ops = [_filesystem(draft, mount, options, dest, where, propagation)]
    if kind == "mqueue" and draft.linux.get("mountLabel"):
        from rootless_rt.plan import lsm

        ops += lsm.after_mount(draft, kind, dest, where)
    return ops


def _remount(
    draft: Draft, mount: dict[str, Any], options: MountOptions, dest: str, where: str, made: bool
) -> Op:
    """Change a mount; its filesystem too if this config has `made` it: that of a bind's source is others'."""
    propagation = [flag | (MS_REC if recursive else 0) for flag, recursive in options.propagation]
    data: list[str] = []
    if made and not options.bind:
        data = [*options.sb_set, *options.sb_clr, *_data(draft, options.data, where, mount.get("type", ""))]
    elif options.data:
        raise SpecError(
            f"{where}.options",
            f"{quote(options.data[0])} is for a filesystem, and mounts has none at {dest} to change",
            hint="give it to the mount that makes the filesystem",
        )
    op = remount_op(draft, dest, of_existing(options), propagation=propagation, data=data, label=where)
    return _tolerant(draft, op, mount, of_existing(options), where)


def _tolerant(draft: Draft, op: Op, mount: dict[str, Any], attributes: Attributes, where: str) -> Op:
    if is_soft(attributes):
        asked = ",".join(mount.get("options", []))
        why = "the mount it comes from has some of these flags locked (it is not yours)"
        degradation = Degradation(
            f"{where}.options", asked, "the flags of its source", why, id="RT-MOUNT-LOCKED"
        )
        draft.tolerate(op, degradation)
    return op


def _filesystem(
    draft: Draft, mount: dict[str, Any], options: MountOptions, dest: str, where: str, propagation: list[int]
) -> Op:
    kind = mount["type"]
    # A tmpfs to be filled is writable until it is full; rt-init sets the attribute then.
    flags = [word for word in options.sb_set if word != "ro" or not options.copy_up]
    data = flags + _data(draft, options.data, where, kind)
    if kind == "overlay":
        data = [part for word in data for part in _layers(word)]
    source = mount.get("source") or kind
    _check_lengths(kind, source, data, where)
    descriptor = NO_SLOT
    if kind == "fuse" or kind.startswith("fuse."):
        from rootless_rt.plan.descriptors import fuse

        kind, data, descriptor = fuse(draft, kind, data, where)
    fallback, what = _fallback(draft, kind, where)
    op = filesystem_op(
        draft,
        dest,
        kind,
        source,
        data,
        of_new(options),
        propagation=propagation,
        strict=kind in ("proc", "sysfs"),
        in_proc=IN_PROC if kind == "proc" and dest == "/proc" else _in_proc(dest, where),
        fallback=fallback,
        from_dest=_from_dest(data, options.copy_up) if kind == "tmpfs" else 0,
        descriptor=descriptor,
        label=where,
    )
    if fallback != NO_SLOT:
        why = "the joined namespace belongs to another user namespace"
        draft.tolerate(op, Degradation(where, f"a new {kind}", what, why, id="RT-MOUNT-OWNER"))
    elif options.copy_up:
        why = "only files, directories, symlinks and FIFOs are copied"
        got = "without the device nodes, sockets and mounts in it"
        draft.spare_fds = COPY_UP_FDS
        degradation = Degradation(where, f"a copy of {dest}", got, why, id="RT-BUNDLE-PLAN", always=True)
        draft.tolerate(op, degradation)
    return op


def _from_dest(data: list[str], copy_up: bool) -> int:
    """What a tmpfs takes from the directory it covers: unless given, its mode, as with runc and crun."""
    given = {word.partition("=")[0] for word in data}
    bits = 0 if "mode" in given else DEST_MODE
    if copy_up:
        bits |= DEST_CONTENT | (0 if given & {"uid", "gid"} else DEST_OWNER)
    return bits


def _data(draft: Draft, words: list[str], where: str, kind: str) -> list[str]:
    """The options for the filesystem itself, one by one, without ids that it would refuse."""
    split = [part for word in words for part in split_data(word)]
    return [word for word in split if _mapped_option(draft, word, where, kind)]


def _check_lengths(kind: str, source: str, data: list[str], where: str) -> None:
    """Refuse what fsconfig(2) answers with a bare EINVAL. Overlays take directories by descriptor as well."""
    if len(_bytes(source)) > _VALUE_MAX:
        raise SpecError(f"{where}.source", f"longer than the {_VALUE_MAX} bytes that the kernel takes")
    for word in data:
        key, _, value = word.partition("=")
        by_descriptor = kind == "overlay" and key in ("upperdir", "workdir", "lowerdir+", "datadir+")
        if len(_bytes(key)) > _VALUE_MAX or (len(_bytes(value)) > _VALUE_MAX and not by_descriptor):
            raise SpecError(
                f"{where}.options",
                f"{quote(key[:40])} is longer than the {_VALUE_MAX} bytes that the kernel takes",
                hint="use shorter paths, by symbolic links for example" if "/" in value else None,
            )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _bind(
    draft: Draft, mount: dict[str, Any], options: MountOptions, dest: str, where: str, propagation: list[int]
) -> Op:
    source = mount.get("source")
    if not source:
        raise SpecError(f"{where}.source", "is needed for a bind mount")
    if not source.startswith("/"):
        source = draft.spec.bundle + "/" + source
    how: dict[str, Any] = {"nofollow": options.source_nofollow or options.copy_symlink}
    if source.startswith(("/proc/", "/dev/fd/")):
        from rootless_rt.plan.descriptors import preserved

        how["descriptor"], how["below"] = preserved(draft, source, f"{where}.source")
    index = draft.config["mounts"].index(mount)
    if index in draft.idmaps:
        from rootless_rt.plan.idmapped import source as mapped

        slot = mapped(draft, index, source, options.rbind, where, how)
    else:
        slot = draft.source(source, options.rbind, where, **how)
    in_proc = _kernel_place(dest, where)
    attributes = of_existing(options)
    if options.rbind and normal(source) == "/sys":  # as for a substituted sysfs
        attributes = (0, attributes[0] | attributes[1] & ~options.tree_clr, *attributes[2:])
    links = (COPY_SYMLINK if options.copy_symlink else 0) | (ON_SYMLINK if options.dest_nofollow else 0)
    op = bind_op(
        draft,
        slot,
        dest,
        attributes,
        propagation=propagation,
        in_proc=in_proc,
        # There no link may be at all.
        links=links if in_proc in (NOT_IN_PROC, IN_PROC) else 0,
        label=where,
    )
    return _tolerant(draft, op, mount, attributes, where)


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
    """A long lowerdir layer by layer (Linux 6.7): fsconfig(2) takes no value of more than 255 bytes.

    There a name needs no escapes; the layers behind "::" are for data only (overlayfs.rst).
    """
    layers = word.removeprefix("lowerdir=")
    if layers == word or len(_bytes(layers)) <= _VALUE_MAX:
        return [word]
    found: list[str] = []
    key, name, escaped = "lowerdir+=", "", False
    for char in layers + ":":
        if char == ":" and not escaped:
            if name:
                found.append(key + name)
            else:
                key = "datadir+="
            name = ""
            continue
        escaped = char == "\\" and not escaped
        name += "" if escaped else char
    return found


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
        id="RT-IDS-UNMAPPED",
    )
    return False


def _substitute(draft: Draft, kind: str, where: str) -> str | None:
    """A path of the host to bind instead of making a filesystem that only the namespace's owner may make.

    "" for an empty directory: what would be bound does not exist.
    """
    if not draft.in_userns:
        return None
    owner = {"sysfs": "network", "proc": "pid", "mqueue": "ipc"}.get(kind)
    if owner is None or owner in draft.new or owner in draft.joined:
        return None
    path = {"sysfs": "/sys", "proc": "/proc", "mqueue": "/dev/mqueue"}[kind]
    got = f"the host's {path}" + (", read-only" if kind != "proc" else "")
    if kind == "mqueue" and path not in draft.facts.paths:
        # Message queues are reached by system calls; the mount only shows them.
        path, got = "", "an empty read-only directory"
    draft.degrade(
        where,
        f"a new {kind}",
        got,
        f"only the owner of the {owner} namespace may mount {kind}",
        f'add {{"type": "{owner}"}} to linux.namespaces',
        id="RT-MOUNT-OWNER",
    )
    return path


def _fallback(draft: Draft, kind: str, where: str) -> tuple[int, str]:
    """A slot to use when a joined namespace turns out to belong to somebody else, and what it holds."""
    if draft.policy.strict or not draft.in_userns:
        return NO_SLOT, ""
    if kind == "sysfs" and "network" in draft.joined:
        return draft.source("/sys", True, label=where), "the host's /sys, read-only"
    return NO_SLOT, ""
