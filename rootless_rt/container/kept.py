"""The plan of a container that runs, kept for the launcher: the next `rt run` of it needs no interpreter.

Theory of operation: a plan depends on the config and on the facts of host and caller, on nothing else. When a
plain `rt run` has got its program running, the plan is written down in the user's cache, with the very bytes
of the config and with the *evidence*: everything that was looked at to make it, as it was found
(`evidence`). The launcher (`cli/kept*.c`) compares all of that with what it finds itself, and only if nothing
has changed does it perform the plan again. Whatever is not plain is not kept, and when anything goes wrong
before the program runs, the launcher takes it back and starts Python, which begins at the beginning and
explains. Must not know how a plan is made.

The form, in the machine's byte order: MAGIC, a u64 for each of NUMBERS, then for each of TEXTS its length as
u32, its bytes, a NUL. `state` is the text of state.json with a byte of HOLES wherever the next container's
differs. The id is also in the plan, once, as the name of the session keyring: `name_at` tells where, and
`op_at` and `text_at` where the two lengths around it are (0: it is nowhere).
"""

from __future__ import annotations

import posix
import sys

from rootless_rt import paths
from rootless_rt.container import evidence
from rootless_rt.init.launch import program_path
from rootless_rt.plan.ops import Op, encode, encode_op
from rootless_rt.spec.jsonio import dumps
from rootless_rt.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless_rt.container.create import Container
    from rootless_rt.container.prepare import Options, Prepared

FOLDER = "plans"
MAGIC = b"rtkept01"
NUMBERS = ("size", "flags", "name_at", "op_at", "text_at")
TEXTS = (
    *("version", "bundle", "config", "rootfs", "program", "plan", "state"),
    *("uid_map", "gid_map", "uid_helper", "gid_helper", "evidence"),
)
FLAGS = {"MAPS": 1, "DENY_GROUPS": 2}
"""MAPS: the maps of a user namespace are to be written. DENY_GROUPS: setgroups(2) is denied in it first."""
HOLES = ("id", "phase", "pid", "started", "boot", "created", "maker_pid", "maker_started")
"""What is filled into `state`: byte 1 stands for the first, and so on. No text of JSON holds such a byte."""
LIMIT = 1 << 20
SLOTS = 64
"""Plans are kept in so many files; a bundle's path tells in which, and the last one there stays."""

_HOLE = 1 << 60  # no number of a state is as large


def keep(container: Container, prepared: Prepared, options: Options) -> None:
    """Keep the plan of a container whose program runs, if it is plain. Never fails: it is only for speed."""
    if not is_plain(container, prepared, options):
        return
    directory = -1
    try:
        flags, maps = _maps(prepared)
        found = evidence.gather(prepared.spec.data, prepared.facts, helpers=any(maps[2:]))
        data = None if found is None else compiled(container, prepared, flags, maps, found)
        if data is None:
            return
        directory = _open_folder()
        if directory >= 0:
            _write(directory, slot(prepared.spec.bundle), data)
    except OSError:
        pass  # no room, or no right: the next run takes as long as this one
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


def compiled(
    container: Container, prepared: Prepared, flags: int, maps: list[str], found: bytes
) -> bytes | None:
    """The plan with its maps and the evidence `found`, as it is kept; None where it would be too long."""
    wire, places = without_name(prepared.plan.ops, container.handle.id)
    body = b"".join(
        _text(text)
        for text in (
            paths.fsencode(VERSION),
            paths.fsencode(prepared.spec.bundle),
            prepared.spec.raw,
            paths.fsencode(prepared.spec.rootfs),
            paths.fsencode(program_path()),
            wire,
            with_holes(container.state),
            *(paths.fsencode(text) for text in maps),
            found,
        )
    )
    size = len(MAGIC) + 8 * len(NUMBERS) + len(body)
    if size > LIMIT:
        return None
    numbers = (size, flags, *places)
    return MAGIC + b"".join([number.to_bytes(8, sys.byteorder) for number in numbers]) + body


def without_name(ops: Sequence[Op], container_id: str) -> tuple[bytes, tuple[int, int, int]]:
    """The encoded plan without the id, and the places of the id and of the lengths of its op and its text."""
    name = f"_ses.{container_id}"
    nameless = [Op("keyring", "_ses.") if op.name == "keyring" and op.args == (name,) else op for op in ops]
    wire = encode(nameless)
    at = len(wire) - sum(len(encode_op(op)) for op in nameless)
    for before, op in zip(ops, nameless, strict=True):
        size = len(encode_op(op))
        if before is not op:
            return wire, (at + size - 1, at + 4, at + 8)
        at += size
    return wire, (0, 0, 0)


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


def slot(bundle: str) -> str:
    """The name of the file for a bundle: FNV-1a of its path, 64 bits."""
    number = 0xCBF29CE484222325
    for byte in paths.fsencode(bundle):
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
        *[f"#define KEPT_{name} {bit}" for name, bit in FLAGS.items()],
        "",
        *_enum("kept_number", "K_", NUMBERS, "KEPT_NUMBERS"),
        *_enum("kept_text", "P_", TEXTS, "KEPT_TEXTS"),
        *_enum("hole", "HOLE_", HOLES, "HOLES"),
        *_enum("evidence_kind", "E_", evidence.KINDS, "EVIDENCE_KINDS"),
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _enum(name: str, prefix: str, items: Sequence[str], count: str) -> list[str]:
    return [f"enum {name} {{", *[f"\t{prefix}{item.upper()}," for item in items], f"\t{count}", "};", ""]


if __name__ == "__main__":
    print(header(), end="")
