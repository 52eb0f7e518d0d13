"""What the fuzzers start from: real plans, passwd files of images, and records for the launcher.

    python3 tests/fuzz/seeds.py    writes the small set that is kept in tests/fuzz/corpus

Every run of the tests makes the seeds of today's ops as well, so the kept set need not follow the table.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent)]

from lab.plans import compiled, root_config, root_facts, spec_of, user_config, user_facts  # noqa: E402

from rootless_rt.container import evidence, kept_form  # noqa: E402
from rootless_rt.container.shortcut import compiled as compiled_record  # noqa: E402
from rootless_rt.plan.execute import exec_plan  # noqa: E402
from rootless_rt.plan.model import Policy  # noqa: E402
from rootless_rt.plan.ops import MAGIC, OPS, Op, blank, encode  # noqa: E402

PASSWD = {
    "plain": b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
    "empty": b"",
    "nothing-but-colons": b":::::::::\n:\n::0\n",
    "nul": b"root:x:0\0:0::/root:/bin/sh\nroot:x:0:0::/ro\0ot:/bin/sh\n",
    "not-a-path": b"root:x:0:0::relative:/bin/sh\n",
    "long": b"root:x:0:0::/" + b"a" * 5000 + b":/bin/sh\n",
    "no-end": b"root:x:0:0::/root",
    "signs": b"r:x:+0:0::/a:\nr:x: 0:0::/b:\nr:x:00:0::/c:\nr:x:0:0::/d:\n",
    "highest": b"r:x:4294967295:0::/a:\nr:x:4294967296:0::/b:\n",
}


def _all_ops() -> list[Op]:
    """One op of each kind, with a value in each field."""
    values: dict[str, Any] = {
        "U": (1 << 64) - 1,
        "S": "text",
        "L": ["a", "", "b c"],
        "V": [0, 7],
        "B": b"\0" * 8,
    }
    return [Op(name, *[values[kind] for _, kind in schema]) for name, _, schema, _ in OPS]


def plans() -> dict[str, bytes]:
    """Name -> bytes of plans as rt-init gets them, and of the smallest there can be."""
    files = {kind: f"/proc/7/ns/{kind}" for kind in ("user", "pid", "mount", "network")}
    return {
        "rootless": encode(compiled(user_config()).ops),
        "root": encode(compiled(root_config(), root_facts()).ops),
        "exec": encode(exec_plan(spec_of(user_config()), user_facts(), Policy("box"), files).ops),
        "all-ops": encode(_all_ops()),
        "blank-ops": encode([blank(name) for name, *_ in OPS]),
        "none": encode([]),
        "only-a-count": MAGIC + (16).to_bytes(4, sys.byteorder) + b"\xff\xff\xff\xff",
    }


def records() -> dict[str, bytes]:
    """Name -> bytes of records that the launcher gets."""
    state: dict[str, Any] = {
        "id": "c", "ociVersion": "1.2.0", "phase": "created", "pid": 42, "startTime": "77", "bootId": "b",
        "bundle": "/b", "rootfs": "/r", "created": "2026-01-01T00:00:00Z", "annotations": {"a": "b"},
        "ownPid": True, "maker": {}, "degraded": [], "cgroup": {"kind": "none"},
    }  # fmt: skip
    cgroup = {"kind": "v1", "paths": {"freezer": "/f/x/c", "cpu": "/c/x/c"}, "parents": ["/f/x", "/c/x"]}
    found = {"plain": compiled_record(state, HERE.stat())}
    found["cgroup"] = compiled_record({**state, "cgroup": cgroup}, HERE.stat())
    return {name: data for name, data in found.items() if data is not None}


def kept_plans() -> dict[str, bytes]:
    """Name -> bytes of kept plans that the launcher gets."""

    def item(kind: str, name: bytes, found: bytes) -> bytes:
        head = (evidence.KINDS.index(kind), len(name), len(found))
        return b"".join(number.to_bytes(4, sys.byteorder) for number in head) + name + b"\0" + found + b"\0"

    looked_at = b"".join((
        item("file", b"/proc/self/uid_map", b"0 0 1\n"), item("lines", b"/m", b" - cgroup\na - cgroup\n"),
        item("code", b"/i", bytes(32)), item("node", b"/dev/null", bytes(48)), item("missing", b"/n", b""),
        item("room", b"/r", b""), item("variable", b"PATH", b"=/bin"), item("limit", b"", bytes(24)),
        item("ids", b"", bytes(32)),
    ))  # fmt: skip
    ops = [
        Op("dumpable", 1),
        Op("keyring", "_ses.c"),
        Op("find", "p", "/bin"),
        Op("exec", ["p", "q"], ["A=b"]),
    ]
    wire, ids = kept_form.without_id(ops, "c")
    texts = {
        "bundle": b"/b",
        "config": b"{}",
        "rootfs": b"/b/r",
        "program": b"/i",
        "plan": wire,
        "ids": ids,
        "cgroups": b"/sys/a\0/sys/b\0",
        "settings": b"/sys/a\0f\0text\0",
        "slots": b"/sys/a\0\0/sys/b\0tasks\0",
        "state": b'{"id":"\x01"}',
        "uid_map": b"0 1 1\n",
        "gid_helper": b"/g\0001\0",
        "evidence": looked_at,
    }
    wordless, _, places = kept_form.without_words(ops, "c")
    added = {
        "config": b"{}",
        "program": b"/i",
        "plan": wordless,
        "ids": ids,
        "joined": b"user\0mnt\0",
        "evidence": looked_at,
    }
    found = {
        "run": kept_form.compiled(texts, (1, 0, 0)),
        "exec": kept_form.compiled({**added, "tolerated": b"\1\0\0\0"}, (kept_form.FLAGS["EXEC"], *places)),
    }
    return {name: data for name, data in found.items() if data is not None}


def write(folder: Path, seeds: dict[str, bytes]) -> None:
    """A file a seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in seeds.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    write(CORPUS / "plan_reader", plans())
    write(CORPUS / "passwd", PASSWD)
    write(CORPUS / "shortcut_record", records())
    write(CORPUS / "kept_plan", kept_plans())
