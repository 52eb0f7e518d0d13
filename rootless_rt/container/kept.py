"""The plan of a container that runs, kept for the launcher: the next `rt run` of it needs no interpreter.

Theory of operation: a plan depends on the config and on the facts of host and caller, on nothing else. When a
plain `rt run` has got its program running, the plan is written down in the user's cache, with the very bytes
of the config and with the *evidence*: everything that was looked at to make it, as it was found
(`evidence`). The launcher (`cli/kept*.c`) compares all of that with what it finds itself, and only if nothing
has changed does it perform the plan again. Whatever is not plain is not kept, and when anything goes wrong
before the program runs, the launcher takes it back and starts Python, which begins at the beginning and
explains. So it is with a plain `rt exec`: which namespaces are joined, and the maps of the user namespace
among them, are part of the evidence then, and the command's words are left out of the plan. Must not know how
a plan is made.

The form, in the machine's byte order: MAGIC, a u64 for each of NUMBERS, then for each of TEXTS its length as
u32, its bytes, a NUL.

    state       the text of state.json, with a byte of HOLES wherever the next container's differs
    keyring_at  where the op of the session keyring is, whose name the id ends; 0: there is none
    process     of an exec with --process: the bytes of that file; then the words are in the plan
    find_at     of an exec: where the op is that looks for the program, without the first word of the command
    exec_at     of an exec: where the op is that executes it, without the words
    joined      of an exec: the names in /proc/PID/ns of the namespaces to join, in that order
    tolerated   the ops, each as u32, of which rt-init's note that they failed makes a difference
"""

from __future__ import annotations

import posix
import sys

from rootless_rt import paths
from rootless_rt.container import evidence
from rootless_rt.container.record import has_cgroup
from rootless_rt.init.launch import program_path
from rootless_rt.plan.ops import Op, encode
from rootless_rt.spec.jsonio import dumps
from rootless_rt.spec.names import NAMESPACES
from rootless_rt.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from rootless_rt.container.create import Container
    from rootless_rt.container.prepare import Options, Prepared
    from rootless_rt.host.facts import HostFacts
    from rootless_rt.plan.model import Plan

FOLDER = "plans"
MAGIC = b"rtkept01"
NUMBERS = ("size", "flags", "keyring_at", "find_at", "exec_at")
TEXTS = (
    *("version", "bundle", "config", "process", "rootfs", "program", "plan", "state"),
    *("uid_map", "gid_map", "uid_helper", "gid_helper", "joined", "tolerated", "evidence"),
)
FLAGS = {"MAPS": 1, "DENY_GROUPS": 2, "EXEC": 4}
"""MAPS: the maps of a user namespace are to be written. DENY_GROUPS: setgroups(2) is denied in it first.
EXEC: it is the plan of an exec."""
HOLES = ("id", "phase", "pid", "started", "boot", "created", "maker_pid", "maker_started")
"""What is filled into `state`: byte 1 stands for the first, and so on. No text of JSON holds such a byte."""
LIMIT = 1 << 20
SLOTS = 64
"""Plans of each kind are kept in so many files: the last one in each stays."""
EXEC_PREFIX = "e"
HASHED = 4096
"""Of config and process, so many bytes each tell in which file the plan of an exec is."""

_MAPS = ("uid_map", "gid_map", "uid_helper", "gid_helper")
_HOLE = 1 << 60  # no number of a state is as large


def keep(container: Container, prepared: Prepared, options: Options) -> None:
    """Keep the plan of a container whose program runs, if it is plain. Never fails: it is only for speed."""
    if not is_plain(container, prepared, options):
        return
    spec = prepared.spec

    def made() -> bytes | None:
        flags, maps = _maps(prepared)
        found = evidence.gather(spec.data, prepared.facts, helpers=any(maps[2:]))
        if found is None:
            return None
        wire, keyring_at = without_name(prepared.plan.ops, container.handle.id)
        return compiled(
            {
                "bundle": paths.fsencode(spec.bundle),
                "config": spec.raw,
                "rootfs": paths.fsencode(spec.rootfs),
                "plan": wire,
                "state": with_holes(container.state),
                "tolerated": tolerated(prepared.plan),
                "evidence": found,
                **{name: paths.fsencode(text) for name, text in zip(_MAPS, maps, strict=True)},
            },
            (flags, keyring_at, 0, 0),
        )

    _keep(slot(paths.fsencode(spec.bundle)), made)


def keep_exec(container: Container, document: bytes = b"") -> None:
    """The same with the plan of a process that was added to a container.

    `document` is what --process names, the words of the command included.
    """
    facts = container.facts
    if facts is None or not is_plain_exec(container, facts):
        return
    spec, first = container.spec, container.state["pid"]

    def made() -> bytes | None:
        found = evidence.gather(spec.data, facts, added=True)
        if found is None:
            return None
        if document:
            wire, keyring_at = without_name(container.plan.ops, container.handle.id)
            places = (keyring_at, 0, 0)
        else:
            wire, places = without_words(container.plan.ops, container.handle.id)
        joined = "".join(paths.basename(path) + "\0" for _, path in container.plan.fds)
        return compiled(
            {
                "config": spec.raw,
                "process": document,
                "plan": wire,
                "joined": joined.encode(),
                "tolerated": tolerated(container.plan),
                "evidence": found,
                **{name: evidence.read(f"/proc/{first}/{name}") for name in ("uid_map", "gid_map")},
            },
            (FLAGS["EXEC"], *places),
        )

    _keep(EXEC_PREFIX + slot(spec.raw[:HASHED] + document[:HASHED]), made)


def _keep(name: str, made: Callable[[], bytes | None]) -> None:
    directory = -1
    try:
        data = made()
        directory = -1 if data is None else _open_folder()
        if data is not None and directory >= 0:
            _write(directory, name, data)
    except OSError:
        pass  # no room, or no right: the next time takes as long as this one
    finally:
        if directory >= 0:
            posix.close(directory)


def is_plain(container: Container, prepared: Prepared, options: Options) -> bool:
    """Whether the launcher could do all of what this container took, and nothing had to be said of it."""
    plan, spec, facts = prepared.plan, prepared.spec, prepared.facts
    asked = (
        options.console_socket, options.pidfd_socket, options.pid_file, options.keep_fds,
        options.listen_fds, options.keep_groups, options.network, options.notify, options.stdio,
        options.debug, options.start_later,
    )  # fmt: skip
    return (
        not any(asked)
        and options.overlay is None
        and options.new_keyring
        and options.pivot
        and options.foreground
        and prepared.cgroup.kind == "none"
        and not prepared.limits
        and prepared.outside is None
        and container.served is None
        and container.console < 0
        and plan.own_pid
        and not (plan.fds or plan.lent or plan.tuning or plan.outside or plan.notifies)
        and not (plan.degradations or plan.warnings)
        and not (spec.changes or any(spec.data.get("hooks", {}).values()))
        and not (facts.lsm or facts.join_order or spec.data["process"].get("scheduler"))
        and not spec.data.get("linux", {}).get("cgroupsPath")
    )


def is_plain_exec(process: Container, facts: HostFacts) -> bool:
    """Whether the launcher could do all of what this process took, and nothing had to be said of it."""
    plan, spec, options = process.plan, process.spec, process.options
    namespaces = spec.data.get("linux", {}).get("namespaces", [])
    given = spec.data["process"]
    asked = (
        options.console_socket, options.pidfd_socket, options.pid_file, options.keep_fds, options.listen_fds,
        options.keep_groups, options.stdio, options.debug, options.below, process.state.get("keepGroups"),
    )  # fmt: skip
    return (
        not any(asked)
        and options.new_keyring
        and options.foreground
        and process.console < 0
        and not has_cgroup(process.state)
        and "rdt" not in process.state
        and all(kind in NAMESPACES for kind, _ in plan.fds)
        and not any(entry.get("path") for entry in namespaces)
        and not (plan.tuning or plan.notifies or plan.degradations or plan.warnings)
        and not (facts.lsm or given.get("scheduler") or given.get("execCPUAffinity"))
    )


def compiled(texts: dict[str, bytes], numbers: Sequence[int]) -> bytes | None:
    """What is kept: the texts that there are, and the numbers behind the size; None if that is too long."""
    texts = {"version": paths.fsencode(VERSION), "program": paths.fsencode(program_path()), **texts}
    body = b"".join([_text(texts.get(name, b"")) for name in TEXTS])
    size = len(MAGIC) + 8 * len(NUMBERS) + len(body)
    if size > LIMIT:
        return None
    return MAGIC + b"".join([number.to_bytes(8, sys.byteorder) for number in (size, *numbers)]) + body


def tolerated(plan: Plan) -> bytes:
    """The ops whose failure is a degradation."""
    return b"".join([index.to_bytes(4, sys.byteorder) for index in sorted(plan.tolerated)])


def without_name(ops: Sequence[Op], container_id: str) -> tuple[bytes, int]:
    """The encoded plan without the id, and the place of the op that is to have it."""
    name = f"_ses.{container_id}"
    nameless = [Op("keyring", "_ses.") if op.name == "keyring" and op.args == (name,) else op for op in ops]
    return encode(nameless), _place(nameless, lambda index: nameless[index] is not ops[index])


def without_words(ops: Sequence[Op], container_id: str) -> tuple[bytes, tuple[int, int, int]]:
    """`without_name`, and without the words of the program; the places of those three ops."""
    wordless = []
    for op in ops:
        if op.name == "find":
            op = Op("find", "", op.args[1], label=op.label)
        elif op.name == "exec":
            op = Op("exec", [], op.args[1], label=op.label)
        wordless.append(op)
    wire, keyring_at = without_name(wordless, container_id)
    # The id comes before both.
    shift = len(wire) - len(encode(wordless))
    find_at = shift + _place(wordless, lambda index: wordless[index].name == "find")
    exec_at = shift + _place(wordless, lambda index: wordless[index].name == "exec")
    return wire, (keyring_at, find_at, exec_at)


def _place(ops: Sequence[Op], sought: Callable[[int], bool]) -> int:
    """Where the first op so sought begins in the encoded plan; 0 for none."""
    for index in range(len(ops)):
        if sought(index):
            return len(encode(list(ops[:index])))
    return 0


def with_holes(state: dict[str, Any]) -> bytes:
    """The text of state.json, for a container whose id, process and times are not known yet."""
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
    text = paths.fsencode(dumps(holey))
    for index, name in enumerate(HOLES):
        sought = str(numbers[name]) if name in numbers else words[name]
        before, found, after = text.partition(sought.encode())
        assert found, name
        text = before + bytes([1 + index]) + after
    return text


def slot(key: bytes) -> str:
    """In which file a plan is kept: FNV-1a of its key, 64 bits."""
    number = 0xCBF29CE484222325
    for byte in key:
        number = (number ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{number % SLOTS:02x}"


def _maps(prepared: Prepared) -> tuple[int, list[str]]:
    """(flags, [uid map, gid map, command for the uid map, for the gid map]): of each pair one is empty.

    A command is its words, each ended by a NUL, with the process id left out.
    """
    from idmap.write import way

    plan, facts = prepared.plan, prepared.facts
    if plan.uid_map is None or plan.gid_map is None:
        return 0, ["", "", "", ""]
    chosen = way(
        plan.uid_map,
        plan.gid_map,
        euid=facts.euid,
        egid=facts.egid,
        privileged=facts.can_map_all,
        setgroups=None if plan.set_groups else "deny",
    )
    texts = [chosen.texts.get("uid", ""), chosen.texts.get("gid", "")]
    for kind in ("uid", "gid"):
        program, *rest = chosen.commands.get(kind, [""])
        texts.append("".join(word + "\0" for word in (program, *rest)) if program else "")
    return FLAGS["MAPS"] | (FLAGS["DENY_GROUPS"] if chosen.denies else 0), texts


def _open_folder() -> int:
    """The directory of kept plans, made when it is missing; -1 where there is no safe place for it."""
    from rootless_rt.host.cache import default_cache_dir, open_directory

    place = default_cache_dir(paths.environment(), FOLDER)
    return -1 if place is None else open_directory(place)[0]


def _write(directory: int, name: str, data: bytes) -> None:
    partial = f".{name}.{posix.urandom(8).hex()}"
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
    fd = posix.open(partial, flags, 0o600, dir_fd=directory)
    try:
        try:
            written = posix.write(fd, data)
        finally:
            posix.close(fd)
        if written == len(data):
            posix.rename(partial, name, src_dir_fd=directory, dst_dir_fd=directory)
            return
    except OSError:
        pass
    posix.unlink(partial, dir_fd=directory)


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(4, sys.byteorder) + data + b"\0"


def header() -> str:
    """The C side: rootless_rt/cli/kept_tables.h."""
    lines = [
        "/* Generated by `python3 -m rootless_rt.container.kept`: change it there, not this file. */",
        "#ifndef RT_KEPT_TABLES_H",
        "#define RT_KEPT_TABLES_H",
        "",
        f'#define KEPT_FOLDER "{FOLDER}"',
        f'#define KEPT_MAGIC "{MAGIC.decode()}"',
        f"#define KEPT_LIMIT {LIMIT}",
        f"#define KEPT_SLOTS {SLOTS}",
        f'#define KEPT_EXEC_PREFIX "{EXEC_PREFIX}"',
        f"#define KEPT_HASHED {HASHED}",
        *[f"#define KEPT_{name} {bit}" for name, bit in FLAGS.items()],
        "",
        *_enum("kept_number", "K_", NUMBERS, "KEPT_NUMBERS"),
        *_enum("kept_text", "P_", TEXTS, "KEPT_TEXTS"),
        *_enum("hole", "HOLE_", HOLES, "HOLES"),
        *_enum("evidence_kind", "E_", evidence.KINDS, "EVIDENCE_KINDS"),
        "/* X(name in /proc/PID/ns) */",
        "#define NAMESPACE_TABLE(X) \\",
        " \\\n".join(f'\tX("{name}")' for _, name in NAMESPACES.values()),
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _enum(name: str, prefix: str, items: Sequence[str], count: str) -> list[str]:
    return [f"enum {name} {{", *[f"\t{prefix}{item.upper()}," for item in items], f"\t{count}", "};", ""]


if __name__ == "__main__":
    print(header(), end="")
