"""The record by which the launcher performs `state`, `kill`, `start` and `delete` without an interpreter.

Theory of operation: deciding and explaining stay here, in Python; what these verbs will most often have to do
is compiled ahead, whenever state.json is written, into a small file beside it. `cli/shortcut*.c` reads it. It
is tied to the very state.json it was made from (inode, size, times), so whatever changes that makes it void,
and the launcher starts Python as if there were no record. Must not know how the file is kept: see `store`.

The form, in the machine's byte order: MAGIC, a u64 for each of NUMBERS, then for each of TEXTS its length as
u32, its bytes, a NUL. `leaves` and `parents` hold one path after the other, each ended by a NUL.
"""

from __future__ import annotations

import sys

from rootless_rt import paths
from rootless_rt.container.record import has_cgroup, shown
from rootless_rt.plan.ops import encode_text
from rootless_rt.spec.jsonio import dumps
from rootless_rt.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    import posix
    from collections.abc import Sequence
    from typing import Any

    from rootless_rt import cgroups

NAME = "shortcut"
MAGIC = b"rtshort1"
NUMBERS = ("size", "flags", "pid", "state_inode", "state_size", "state_mtime", "state_ctime")
TEXTS = ("version", "started", "boot", "head", "middle", "tail", "freezer", "leaves", "parents")
LIMIT = 1 << 18
"""A larger record is not written: a container with that many annotations takes the long way."""
FLAGS = {"OWN_PID": 1, "CGROUP": 2, "STARTS": 4, "DELETES": 8, "EXECS": 16}
"""OWN_PID: its first process takes all others with it. CGROUP: it has one. STARTS, DELETES: can be short.
EXECS: what a process that is added gets depends on the config, and on nothing else that the state tells."""

# What a state may hold for the verbs to be as simple as they usually are. Of a field that is not named here,
# nothing is known: the long way.
_PLAIN = {
    *("version", "id", "ociVersion", "phase", "pid", "startTime", "bootId", "bundle", "rootfs", "created"),
    *("annotations", "ownPid", "maker", "cgroup", "degraded", "keepGroups", "startOps", "resources"),
}
_OUTSIDE = {"network", "rdt"}  # put away by `delete`
_PID, _STATUS = '\n  "pid": ', ',\n  "status": "'


def compiled(state: dict[str, Any], status: posix.stat_result) -> bytes | None:
    """The record of a created container; None where every verb has to take the long way.

    `status` is that of the file which holds `state`.
    """
    if state["phase"] != "created":
        return None
    # No text of JSON holds a line break: the first of these is the one of the outermost object.
    head, found, tail = dumps(shown(state, "stopped"), "  ").partition(f'{_PID}0{_STATUS}stopped"')
    cgroup = _cgroup(state)
    removal = ([], []) if cgroup is None else cgroup.removal()
    other = state.keys() - _PLAIN
    flags = FLAGS["OWN_PID"] if state["ownPid"] else 0
    if cgroup is not None:
        flags |= FLAGS["CGROUP"]
    listens = any(name == "seccomp_listen" for name, _ in state.get("startOps", {}).get("ops", []))
    if not listens and not other - _OUTSIDE:
        flags |= FLAGS["STARTS"]
    if not (state.get("keepGroups") or "rdt" in state):
        flags |= FLAGS["EXECS"]
    if removal is not None and not other:
        flags |= FLAGS["DELETES"]
    leaves, parents = removal or ([] if cgroup is None else cgroup.paths, [])
    texts = [
        VERSION, state["startTime"], state["bootId"],
        head + _PID, _STATUS, '"' + tail + "\n",
        (cgroup.freezer() if cgroup is not None else None) or "",
    ]  # fmt: skip
    encoded = [*map(paths.fsencode, texts), listed(leaves), listed(parents)]
    body = b"".join([encode_text(text) for text in encoded])
    size = len(MAGIC) + 8 * len(NUMBERS) + len(body)
    if not found or size > LIMIT:
        return None
    numbers = (
        size,
        flags,
        state["pid"],
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
    return MAGIC + b"".join([number.to_bytes(8, sys.byteorder) for number in numbers]) + body


def process_of(record: bytes) -> dict[str, Any]:
    """Who a record says the container's first process is, as state.json has it; {} for what is no record.

    For a container whose state.json is lost: the record was made of that by `rt`, never by hand, and whoever
    the process is, it counts only while it has the start time that stands here.
    """
    count = len(MAGIC) + 8 * len(NUMBERS)
    if len(record) < count or not record.startswith(MAGIC):
        return {}
    words = [record[at : at + 8] for at in range(len(MAGIC), count, 8)]
    numbers = dict(zip(NUMBERS, [int.from_bytes(word, sys.byteorder) for word in words], strict=True))
    found = {}
    at = count
    for name in TEXTS[: TEXTS.index("boot") + 1]:
        length = int.from_bytes(record[at : at + 4], sys.byteorder)
        found[name] = paths.fsdecode(record[at + 4 : at + 4 + length])
        at += 4 + length + 1
    whole = numbers["size"] == len(record) and at <= len(record) and numbers["pid"] < 1 << 31
    if not whole or found["version"] != VERSION:
        return {}
    own_pid = bool(numbers["flags"] & FLAGS["OWN_PID"])
    return {"pid": numbers["pid"], "startTime": found["started"], "bootId": found["boot"], "ownPid": own_pid}


def _cgroup(state: dict[str, Any]) -> cgroups.Manager | None:
    if not has_cgroup(state):
        return None
    from rootless_rt import cgroups

    return cgroups.load(state["cgroup"])


def listed(items: Sequence[str]) -> bytes:
    """Texts as a list, each ended by a NUL."""
    return b"".join([paths.fsencode(item) + b"\0" for item in items])


def header() -> str:
    """The C side: rootless_rt/cli/shortcut_tables.h."""
    from rootless_rt.spec.names import SIGNALS, SIGRTMAX, SIGRTMIN

    lines = [
        "/* Generated by `python3 -m rootless_rt.container.shortcut`: change it there, not this file. */",
        "#ifndef RT_SHORTCUT_TABLES_H",
        "#define RT_SHORTCUT_TABLES_H",
        "",
        f'#define RECORD_NAME "{NAME}"',
        f'#define RECORD_MAGIC "{MAGIC.decode()}"',
        f"#define RECORD_LIMIT {LIMIT}",
        *[f"#define RECORD_{name} {bit}" for name, bit in FLAGS.items()],
        f"#define SIGNAL_RTMIN {SIGRTMIN}",
        f"#define SIGNAL_RTMAX {SIGRTMAX}",
        "",
        *c_enum("record_number", "N_", NUMBERS, "RECORD_NUMBERS"),
        *c_enum("record_text", "T_", TEXTS, "RECORD_TEXTS"),
        "/* X(name without SIG, number) */",
        "#define SIGNAL_TABLE(X) \\",
        " \\\n".join(f'\tX("{name[3:]}", {number})' for name, number in SIGNALS.items()),
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def c_enum(name: str, prefix: str, items: Sequence[str], count: str) -> list[str]:
    """The lines of a C enum of items, and behind it an empty one; `count` is how many there are."""
    return [f"enum {name} {{", *[f"\t{prefix}{item.upper()}," for item in items], f"\t{count}", "};", ""]


if __name__ == "__main__":
    print(header(), end="")
