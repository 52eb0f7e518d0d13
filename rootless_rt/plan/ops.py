"""The ops: what rt-init can be told to do, and how an op is printed and encoded.

One table, OPS, is the only place where an op's name, number and fields are written down: `rt plan`
prints from it, `encode` writes from it, and `rootless_rt/init/ops.h` is generated from it
by `plan.header` (a test compares them).

Wire form (in the byte order of the machine), read by rt-init from a sealed memfd:

    "rtplan1\\0"  u32 length of all  u32 number of ops
    per op:  u32 number  u32 length of its fields  then the fields in table order
    U  u64                                  S  u32 length, bytes, NUL (no NUL inside)
    L  u32 count, then that many S          V  u32 count, then that many u64
    B  u32 length, bytes

A *slot* is an index in rt-init's table of file descriptors. The first slots are filled by the
descriptors that come with the plan (the plan itself is not one of them); ops fill further ones.
NO_SLOT means none. Nothing here opens or asks anything.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NO_SLOT = 0xFFFF
ANY_DEVICE = 0xFFFFFFFFFFFFFFFF

# Markers of the `sync` op: what the runtime does while rt-init waits there.
SYNC_MAPS = 1
SYNC_HOOKS = 2
SYNC_CREATED = 3

# Of a mount, and of the tree below it: what must hold, and what may be locked (then it stays, and is noted).
_ATTRIBUTES = (
    ("set", "U"),
    ("tree_set", "U"),
    ("soft_set", "U"),
    ("soft_clear", "U"),
    ("tree_soft_set", "U"),
    ("tree_soft_clear", "U"),
)

_ATTEND = (("until", "U"), ("directory", "U"), ("fds", "V"), ("args", "L"), ("env", "L"))

# (name, number, ((field, type), ...), how `rt plan` says it)
OPS: tuple[tuple[str, int, tuple[tuple[str, str], ...], str], ...] = (
    ("dumpable", 1, (("on", "U"),), "set dumpable to {on}"),
    ("join", 2, (("slot", "U"), ("flag", "U"), ("kind", "S")), "join the {kind} namespace of slot {slot}"),
    ("clone", 3, (("flags", "U"), ("cgroup", "U")), "make the container's process with flags {flags:#x}"),
    ("sync", 4, (("marker", "U"),), "wait for the runtime: {marker}"),
    (
        "become",
        5,
        (("uid", "U"), ("gid", "U"), ("drop_groups", "U")),
        "become uid {uid}, gid {gid} of the user namespace",
    ),
    ("unshare", 6, (("flags", "U"),), "unshare {flags:#x}"),
    ("hostname", 7, (("name", "S"),), "set the host name to {name}"),
    ("domainname", 8, (("name", "S"),), "set the domain name to {name}"),
    ("loopback", 9, (), "bring the loopback device up"),
    ("sysctl", 10, (("path", "S"), ("value", "S")), "write {value} to /proc/sys/{path}"),
    ("oom_score_adj", 11, (("value", "S"),), "set oom_score_adj to {value}"),
    ("propagation", 12, (("flag", "U"),), "set the propagation of every mount to {flag:#x}"),
    (
        "source",
        13,
        (
            ("slot", "U"),
            ("path", "S"),
            ("recursive", "U"),
            ("nofollow", "U"),
            ("descriptor", "U"),
            ("below", "S"),
        ),
        "take a copy of the mount at {path} into slot {slot}",
    ),
    (
        "root",
        14,
        (("path", "S"), ("slot", "U"), ("private_parent", "U")),
        "bind the rootfs {path} on itself, slot {slot}",
    ),
    (
        "mount_fs",
        15,
        (
            ("root", "U"),
            ("dest", "S"),
            ("fstype", "S"),
            ("source", "S"),
            ("data", "L"),
            ("attrs", "U"),
            ("propagation", "V"),
            ("strict", "U"),
            ("in_proc", "U"),
            ("fallback", "U"),
            ("from_dest", "U"),
            ("descriptor", "U"),
            ("keep", "U"),
        ),
        "mount {fstype} on {dest}, attributes {attrs:#x}, data {data}",
    ),
    (
        "mount_bind",
        16,
        (
            ("root", "U"),
            ("slot", "U"),
            ("dest", "S"),
            *_ATTRIBUTES,
            ("propagation", "V"),
            ("device", "U"),
            ("in_proc", "U"),
            ("links", "U"),
        ),
        "bind slot {slot} on {dest}, attributes +{set:#x}, the whole tree +{tree_set:#x}",
    ),
    (
        "device",
        17,
        (("root", "U"), ("path", "S"), ("mode", "U"), ("rdev", "U"), ("uid", "U"), ("gid", "U")),
        "make the device {path}, mode {mode:#o}, number {rdev:#x}",
    ),
    ("symlink", 18, (("root", "U"), ("path", "S"), ("target", "S")), "link {path} to {target}"),
    ("mask", 19, (("root", "U"), ("path", "S"), ("null", "U"), ("tmpfs", "U")), "mask {path}"),
    ("readonly", 20, (("root", "U"), ("path", "S")), "make {path} read-only"),
    ("root_attrs", 21, (("root", "U"), ("set", "U")), "set the attributes {set:#x} on the rootfs"),
    (
        "console",
        22,
        (("root", "U"), ("slot", "U"), ("rows", "U"), ("cols", "U"), ("bind", "U")),
        "open a terminal in the container's devpts, bound on /dev/console: {bind}",
    ),
    ("pivot", 23, (("root", "U"), ("how", "U")), "change the root to the rootfs ({how})"),
    ("root_propagation", 24, (("flag", "U"),), "set the propagation of / to {flag:#x}"),
    ("chdir", 25, (("path", "S"), ("create", "U")), "enter {path}, made if missing: {create}"),
    (
        "rlimit",
        26,
        (("resource", "U"), ("soft", "U"), ("hard", "U")),
        "limit resource {resource} to {soft}:{hard}",
    ),
    ("keyring", 27, (("name", "S"),), "join a new session keyring {name}"),
    (
        "hook",
        28,
        (
            ("kind", "S"),
            ("path", "S"),
            ("args", "L"),
            ("env", "L"),
            ("cwd", "S"),
            ("timeout_ms", "U"),
            ("state_head", "S"),
            ("state_tail", "S"),
        ),
        "run the {kind} hook {path}",
    ),
    ("no_new_privs", 29, (), "set no_new_privs"),
    ("bounding", 30, (("keep", "U"),), "reduce the bounding set to {keep:#x}"),
    (
        "ids",
        31,
        (("uid", "U"), ("gid", "U"), ("groups", "V"), ("set_groups", "U"), ("umask", "U")),
        "become user {uid}:{gid}, umask {umask:#o}, groups {groups} (0 keeps the caller's: {set_groups})",
    ),
    (
        "caps",
        32,
        (("effective", "U"), ("permitted", "U"), ("inheritable", "U")),
        "set capabilities {effective:#x}/{permitted:#x}/{inheritable:#x}",
    ),
    ("ambient", 33, (("caps", "U"),), "raise the ambient capabilities {caps:#x}"),
    ("session", 34, (("console", "U"),), "start a new session, terminal slot {console}"),
    ("chown_stdio", 35, (("uid", "U"), ("gid", "U")), "give the pipes of stdio to {uid}:{gid}"),
    ("home", 36, (("root", "U"), ("uid", "U")), "take HOME from the container's passwd for uid {uid}"),
    ("find", 37, (("name", "S"), ("path", "S")), "find the program {name}"),
    ("wait_start", 38, (("listener", "U"),), "wait for start"),
    ("close_others", 45, (("keep", "V"),), "close every descriptor but stdio and those of slots {keep}"),
    (
        "keep_fds",
        39,
        (("slots", "V"),),
        "keep the descriptors of slots {slots} as 3 and up, close all others",
    ),
    ("seccomp", 40, (("flags", "U"), ("program", "B")), "load the seccomp filter, {program}"),
    (
        "seccomp_listen",
        63,
        (("flags", "U"), ("program", "B")),
        "load the seccomp filter, {program}, and give its listener to the runtime",
    ),
    ("exec", 41, (("args", "L"), ("env", "L")), "execute {args}"),
    ("listen_pid", 66, (), "give LISTEN_PID the program's own process id"),
    ("here", 46, (("slot", "U"),), "open the root directory into slot {slot}"),
    ("proc_file", 47, (("slot", "U"), ("path", "S")), "open /proc/{path} for writing into slot {slot}"),
    (
        "proc_write",
        48,
        (("slot", "U"), ("text", "S")),
        "write {text!r} to the file of slot {slot}, and close it",
    ),
    (
        "label_mqueue",
        55,
        (("root", "U"), ("path", "S"), ("label", "S")),
        "label the message queues at {path} {label}",
    ),
    (
        "mask_tmpfs",
        56,
        (("slot", "U"), ("label", "S")),
        "make what masks directories in slot {slot}, labelled {label}",
    ),
    ("trace", 44, (), "report how long each op takes"),
    ("cover", 42, (("path", "S"),), "take away the host's mount at {path}"),
    (
        "nest",
        70,
        (("uid", "U"), ("outer_uid", "U"), ("gid", "U"), ("outer_gid", "U")),
        "make a further user namespace, in which uid {outer_uid} is {uid} and gid {outer_gid} is {gid}",
    ),
    (
        "idmap",
        72,
        (("slot", "U"), ("userns", "U"), ("recursive", "U"), ("propagation", "U")),
        "map the ids of the mount in slot {slot} by the user namespace of slot {userns}",
    ),
    (
        "overlay",
        75,
        (("root", "U"), ("dir", "U"), ("userxattr", "U"), ("fuse", "U")),
        "lay an overlay over the rootfs, written to slot {dir}; where the kernel refuses, by fuse: {fuse}",
    ),
    ("layers", 77, (("lower", "U"), ("dir", "U"), ("slot", "U")), "lay out an overlay's layers, slot {slot}"),
    ("directory", 76, (("slot", "U"), ("path", "S")), "open the directory {path} or a new one, slot {slot}"),
    ("enter_cgroups", 78, (("slots", "V"),), "enter the cgroups of the tasks files in slots {slots}"),
    ("enter_own", 71, (("name", "S"), ("flag", "U")), "enter the own namespace {name}"),
    (
        "remount",
        43,
        (("root", "U"), ("dest", "S"), *_ATTRIBUTES, ("propagation", "V"), ("data", "L")),
        "change the mount at {dest}, attributes +{set:#x} -{soft_clear:#x}, data {data}",
    ),
    # 50 and 51 act on the process that the runtime names with "go on" (`Plan.tuning`).
    (
        "scheduler",
        50,
        (
            ("policy", "U"),
            ("flags", "U"),
            ("nice", "S"),
            ("priority", "U"),
            ("runtime", "U"),
            ("deadline", "U"),
            ("period", "U"),
        ),
        "schedule by policy {policy}, nice {nice}, priority {priority}, "
        "deadline {runtime}/{deadline}/{period}, flags {flags:#x}",
    ),
    ("io_priority", 51, (("class", "U"), ("level", "U")), "set the I/O priority to class {class}, {level}"),
    ("affinity", 52, (("cpus", "V"),), "run on the CPUs {cpus}, or with none named on all of the cgroup's"),
    (
        "memory_policy",
        53,
        (("mode", "U"), ("nodes", "V")),
        "take memory by policy {mode:#x} from the nodes {nodes}",
    ),
    (
        "landlock_rules",
        73,
        (("slot", "U"), ("ro", "L"), ("rw", "L")),
        "make Landlock rules in slot {slot}: read below {ro}, also write below {rw}",
    ),
    ("landlock", 74, (("slot", "U"),), "put the Landlock rules of slot {slot} into force"),
    ("personality", 54, (("domain", "U"),), "set the personality to {domain:#x}"),
    ("attend", 90, _ATTEND, "run {args} until the process of slot {until} ends"),
    (
        "keep",
        91,
        (("caller", "U"), ("dirs", "L")),
        "start what is asked for until the process of slot {caller} ends, then end it and remove {dirs}",
    ),
    ("more", 92, (("first", "U"),), "take the rest of the plan, its descriptors from slot {first} on"),
    (
        "clone_mapped",
        93,
        (("flags", "U"), ("cgroup", "U"), ("uids", "S"), ("gids", "S"), ("deny", "U")),
        "make the container's process with flags {flags:#x}, its ids mapped, setgroups denied: {deny}",
    ),
    ("stdio", 94, (("slots", "V"),), "take the descriptors of slots {slots} as 0, 1 and 2"),
    (
        "new_fs",
        95,
        (("slot", "U"), ("fstype", "S"), ("source", "S"), ("data", "L"), ("attrs", "U")),
        "make {fstype} in slot {slot}, attributes {attrs:#x}, data {data}",
    ),
    (
        "set_attrs",
        96,
        (("slot", "U"), *_ATTRIBUTES),
        "give the mount in slot {slot} the attributes +{set:#x}, the whole tree +{tree_set:#x}",
    ),
)

BY_NAME = {row[0]: row for row in OPS}
# How `pivot` changes the root, and what a mount may have to do with /proc (`in_proc`).
PIVOT_ROOT, MOVE_ROOT, CHROOT = 0, 1, 2
# Whether `ids` sets the groups; IF_ALLOWED notes a refusal and goes on.
NEVER, ALWAYS, IF_ALLOWED = 0, 1, 2
# NO_LINKS (for /sys): not inside, and the way there must hold no symlink; PROC_ITSELF implies that too.
NOT_IN_PROC, IN_PROC, PROC_ITSELF, NO_LINKS = 0, 1, 2, 3
# What a new tmpfs takes from the directory that it covers (`from_dest`), bit by bit.
DEST_MODE, DEST_OWNER, DEST_CONTENT = 1, 2, 4
COPY_UP_FDS = 2 * 256 + 8  # rt-init holds two descriptors a level, and goes 256 levels down
# What a bind mount does with symlinks (`links`), bit by bit.
COPY_SYMLINK, ON_SYMLINK = 1, 2

MAGIC = b"rtplan1\0"


class Op:
    """One step of a plan: a name of OPS and its field values, in the order of the table."""

    __slots__ = ("args", "label", "name")

    def __init__(self, name: str, *args: Any, label: str = "") -> None:
        if len(args) != len(BY_NAME[name][2]):
            raise TypeError(f"op {name} takes {len(BY_NAME[name][2])} fields, got {len(args)}")
        self.name = name
        self.args = args
        self.label = label

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Op) and (self.name, self.args) == (other.name, other.args)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"Op({self.name!r}, {', '.join(map(repr, self.args))})"

    def fields(self) -> dict[str, Any]:
        """The op's values by field name; a blob is replaced by its size."""
        values = {}
        for (field, kind), value in zip(BY_NAME[self.name][2], self.args, strict=True):
            values[field] = f"{len(value)} bytes" if kind == "B" else value
        return values

    def describe(self) -> str:
        """One line for people, as `rt plan` prints it."""
        return BY_NAME[self.name][3].format(**self.fields())


def blank(name: str, label: str = "") -> Op:
    """An op of that name without values, where only name and label count."""
    values: dict[str, Any] = {"U": 0, "S": "", "L": [], "V": [], "B": b""}
    return Op(name, *[values[kind] for _, kind in BY_NAME[name][2]], label=label)


def encode_text(raw: bytes) -> bytes:
    """The wire form of a text: C programs read it where it is."""
    return len(raw).to_bytes(4, sys.byteorder) + raw + b"\0"


def _text(value: str) -> bytes:
    return encode_text(value.encode("utf-8", "surrogateescape"))


def encode_op(op: Op) -> bytes:
    """The wire form of one op."""
    _, number, schema, _ = BY_NAME[op.name]
    parts = []
    for (_, kind), value in zip(schema, op.args, strict=True):
        if kind == "U":
            parts.append(int(value).to_bytes(8, sys.byteorder))
        elif kind == "S":
            parts.append(_text(value))
        elif kind == "B":
            parts.append(len(value).to_bytes(4, sys.byteorder) + bytes(value))
        else:
            parts.append(len(value).to_bytes(4, sys.byteorder))
            if kind == "L":
                parts.extend([_text(item) for item in value])
            else:
                parts.extend([item.to_bytes(8, sys.byteorder) for item in value])
    body = b"".join(parts)
    return number.to_bytes(4, sys.byteorder) + len(body).to_bytes(4, sys.byteorder) + body


def encode(ops: list[Op]) -> bytes:
    """The wire form of a whole plan. The caller has made sure that no text holds a NUL."""
    body = b"".join([encode_op(op) for op in ops])
    return MAGIC + (16 + len(body)).to_bytes(4, sys.byteorder) + len(ops).to_bytes(4, sys.byteorder) + body
