"""The bytes of a kept plan, which `cli/kept_entry.c` reads. Opens nothing.

The form, in the machine's byte order: MAGIC, a u64 for each of NUMBERS, then for each of TEXTS its length as
u32, its bytes, a NUL.

    state       the text of state.json, with a byte of HOLES wherever the next container's differs
    ids         where the id ends a text of the plan: places of the op and of the text's length, each u32
    process     of an exec with --process: the bytes of that file; then the words are in the plan
    find_at     of an exec: where the op is that looks for the program, without the first word of the command
    exec_at     of an exec: where the op is that executes it, without the words
    joined      of an exec: the names in /proc/PID/ns of the namespaces to join, in that order
    manager     what --cgroup-manager said; empty: nothing
    cgroups     directories in which the container's cgroups are made; cgroup_name: their name, if not the id
    settings    what is written there: directory, file and text, each ended by a NUL
    slots       what of them goes with the plan: directory and file, each ended by a NUL. No file: itself
    tolerated   the ops, each as u32, of which rt-init's note that they failed makes a difference
"""

from __future__ import annotations

import posix
import sys

from rootless_rt import paths
from rootless_rt.container import evidence
from rootless_rt.container.shortcut import c_enum
from rootless_rt.init.launch import program_path
from rootless_rt.plan.ops import Op, encode, encode_op, encode_text
from rootless_rt.spec.jsonio import dumps
from rootless_rt.spec.names import NAMESPACES
from rootless_rt.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless_rt.plan.model import Plan

FOLDER = "plans"
MAGIC = b"rtkept01"
NUMBERS = ("size", "flags", "find_at", "exec_at")
TEXTS = (
    *("version", "bundle", "config", "process", "rootfs", "program", "plan", "state"),
    *("uid_map", "gid_map", "uid_helper", "gid_helper", "joined", "tolerated", "ids", "evidence"),
    *("manager", "cgroups", "cgroup_name", "settings", "slots"),
)
FLAGS = {"MAPS": 1, "DENY_GROUPS": 2, "EXEC": 4}
"""MAPS: the maps of a user namespace are to be written. DENY_GROUPS: setgroups(2) is denied in it first.
EXEC: it is the plan of an exec."""
HOLES = ("id", "phase", "pid", "started", "boot", "created", "maker_pid", "maker_started")
"""What is filled into `state`: byte 1 stands for the first, and so on. No text of JSON holds such a byte."""
LIMIT = 1 << 20
EXEC_PREFIX = "e"
HASHED = 4096
"""Of config and process, so many bytes each tell in which file the plan of an exec is."""

MAPS = ("uid_map", "gid_map", "uid_helper", "gid_helper")
_HOLE = 1 << 60  # no number of a state is as large


def compiled(texts: dict[str, bytes], numbers: Sequence[int]) -> bytes | None:
    """What is kept: the texts that there are, and the numbers behind the size; None if that is too long."""
    texts = {"version": paths.fsencode(VERSION), "program": paths.fsencode(program_path()), **texts}
    body = b"".join([encode_text(texts.get(name, b"")) for name in TEXTS])
    size = len(MAGIC) + 8 * len(NUMBERS) + len(body)
    if size > LIMIT:
        return None
    return MAGIC + b"".join([number.to_bytes(8, sys.byteorder) for number in (size, *numbers)]) + body


def tolerated(plan: Plan) -> bytes:
    """The ops whose failure is a degradation."""
    return b"".join([index.to_bytes(4, sys.byteorder) for index in sorted(plan.tolerated)])


def without_id(ops: Sequence[Op], container_id: str, cgroups: Sequence[str] = ()) -> tuple[bytes, bytes]:
    """The encoded plan without the id, and the places where it belongs.

    It ends the name of the session keyring, and the paths of the container's own `cgroups`.
    """
    wire = bytearray(encode([]))
    places = []
    for op in ops:
        behind = -1  # of the text that the id ends, in the op's fields
        if op.name == "keyring" and op.args == (f"_ses.{container_id}",):
            op, behind = Op("keyring", "_ses."), 0
        elif op.name == "source" and op.args[1] in cgroups:
            slot_, path, *others = op.args
            op, behind = Op("source", slot_, path.removesuffix(container_id), *others, label=op.label), 8
        if behind >= 0:
            places += [len(wire), len(wire) + 8 + behind]
        wire += encode_op(op)
    wire[8:12] = len(wire).to_bytes(4, sys.byteorder)
    wire[12:16] = len(ops).to_bytes(4, sys.byteorder)
    return bytes(wire), b"".join([place.to_bytes(4, sys.byteorder) for place in places])


def without_words(ops: Sequence[Op], container_id: str) -> tuple[bytes, bytes, tuple[int, int]]:
    """`without_id`, and without the words of the program; places of the two ops that have them."""
    wordless = []
    for op in ops:
        if op.name == "find":
            op = Op("find", "", op.args[1], label=op.label)
        elif op.name == "exec":
            op = Op("exec", [], op.args[1], label=op.label)
        wordless.append(op)
    wire, ids = without_id(wordless, container_id)
    places = {}
    at = 16
    for op in wordless:
        places[op.name] = at
        at += 8 + int.from_bytes(wire[at + 4 : at + 8], sys.byteorder)
    return wire, ids, (places["find"], places["exec"])


def with_holes(state: dict[str, Any], *, by_id: bool = False) -> bytes:
    """The text of state.json, for a container whose id, process and times are not known yet.

    `by_id`: its cgroups have its id as their name.
    """
    mark = posix.urandom(8).hex()
    words = {name: f"{mark}-{name}" for name in HOLES}
    numbers = {"pid": _HOLE + 1, "maker_pid": _HOLE + 2}
    holey = {
        **state,
        "id": words["id"],
        "phase": words["phase"],
        "pid": numbers["pid"],
        "startTime": words["started"],
        "bootId": words["boot"],
        "created": words["created"],
        "maker": {**state["maker"], "pid": numbers["maker_pid"], "startTime": words["maker_started"]},
    }
    cgroup = state["cgroup"]
    if by_id:
        named = {
            names: path.removesuffix(state["id"]) + words["id"] for names, path in cgroup["paths"].items()
        }
        holey["cgroup"] = {**cgroup, "paths": named}
    text = paths.fsencode(dumps(holey))
    for index, name in enumerate(HOLES):
        sought = str(numbers[name]) if name in numbers else words[name]
        assert sought.encode() in text, name
        text = text.replace(sought.encode(), bytes([1 + index]))
    return text


def file_name(key: bytes) -> str:
    """Of the file that a plan is kept in: FNV-1a of its key, 64 bits."""
    number = 0xCBF29CE484222325
    for byte in key:
        number = (number ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{number:016x}"


def header() -> str:
    """The C side: rootless_rt/cli/kept_tables.h."""
    lines = [
        "/* Generated by `python3 -m rootless_rt.container.kept_form`: change it there, not this file. */",
        "#ifndef RT_KEPT_TABLES_H",
        "#define RT_KEPT_TABLES_H",
        "",
        f'#define KEPT_FOLDER "{FOLDER}"',
        f'#define KEPT_MAGIC "{MAGIC.decode()}"',
        f"#define KEPT_LIMIT {LIMIT}",
        f'#define KEPT_EXEC_PREFIX "{EXEC_PREFIX}"',
        f"#define KEPT_HASHED {HASHED}",
        *[f"#define KEPT_{name} {bit}" for name, bit in FLAGS.items()],
        "",
        *c_enum("kept_number", "K_", NUMBERS, "KEPT_NUMBERS"),
        *c_enum("kept_text", "P_", TEXTS, "KEPT_TEXTS"),
        *c_enum("hole", "HOLE_", HOLES, "HOLES"),
        *c_enum("evidence_kind", "E_", evidence.KINDS, "EVIDENCE_KINDS"),
        "/* X(name in /proc/PID/ns) */",
        "#define NAMESPACE_TABLE(X) \\",
        " \\\n".join(f'\tX("{name}")' for _, name in NAMESPACES.values()),
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(header(), end="")
