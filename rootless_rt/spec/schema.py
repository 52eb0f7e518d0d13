"""The fields of config.json that Linux uses in runtime-spec 1.3: types, ranges, names, and what is required.

One table, and the checker that walks it. Knows only single values: what fields mean together is in `rules`,
what a mount option means in `mountopts`. Fields outside the table are tolerated, as the runtime-spec asks; a
null counts as an absent field, as in the runtimes written in Go.

A node of the table is a tuple, its kind first: (STRING,) (BOOLEAN,) (INTEGER, low, high) (NAME, allowed)
(LIST, node) (MAP, node) (OBJECT, {field: node}, required).
"""

from __future__ import annotations

from rootless_rt.errors import SpecError
from rootless_rt.spec import names
from rootless_rt.spec.jsonio import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Node = tuple[Any, ...]

STRING, BOOLEAN, INTEGER, NAME, LIST, MAP, OBJECT = range(7)

_STR = (STRING,)
_BOOL = (BOOLEAN,)
_STRINGS = (LIST, _STR)
_STRING_MAP = (MAP, _STR)
_I32 = (INTEGER, -(1 << 31), (1 << 31) - 1)
_I64 = (INTEGER, -(1 << 63), (1 << 63) - 1)
_U16 = (INTEGER, 0, (1 << 16) - 1)
_U32 = (INTEGER, 0, (1 << 32) - 1)
_U64 = (INTEGER, 0, (1 << 64) - 1)


def _object(fields: dict[str, Node], *required: str) -> Node:
    return (OBJECT, fields, required)


PROCESS = _object(
    {
        "terminal": _BOOL,
        "consoleSize": _object({"height": _U16, "width": _U16}, "height", "width"),
        "user": _object(
            {"uid": _U32, "gid": _U32, "umask": (INTEGER, 0, 0o777), "additionalGids": (LIST, _U32)}
        ),
        "args": _STRINGS,
        "env": _STRINGS,
        "cwd": _STR,
        "capabilities": _object(dict.fromkeys(names.CAPABILITY_SETS, _STRINGS)),
        "rlimits": (
            LIST,
            _object({"type": (NAME, names.RLIMITS), "soft": _U64, "hard": _U64}, "type", "soft", "hard"),
        ),
        "noNewPrivileges": _BOOL,
        "apparmorProfile": _STR,
        "oomScoreAdj": (INTEGER, -1000, 1000),
        "selinuxLabel": _STR,
        "scheduler": _object(
            {
                "policy": _STR,
                "nice": _I32,
                "priority": _I32,
                "flags": _STRINGS,
                "runtime": _U64,
                "deadline": _U64,
                "period": _U64,
            }
        ),
        "ioPriority": _object({"class": _STR, "priority": (INTEGER, 0, 7)}),
        "execCPUAffinity": _object({"initial": _STR, "final": _STR}),
    },
    "cwd",
)

_MAPPINGS = (
    LIST,
    _object({"containerID": _U32, "hostID": _U32, "size": _U32}, "containerID", "hostID", "size"),
)
ID_MAPS = _object({"uidMappings": _MAPPINGS, "gidMappings": _MAPPINGS}, "uidMappings", "gidMappings")
_MOUNTS = (
    LIST,
    _object(
        {
            "destination": _STR,
            "type": _STR,
            "source": _STR,
            "options": _STRINGS,
            "uidMappings": _MAPPINGS,
            "gidMappings": _MAPPINGS,
        },
        "destination",
    ),
)
_HOOK = _object({"path": _STR, "args": _STRINGS, "env": _STRINGS, "timeout": _I64}, "path")
_THROTTLE = (LIST, _object({"major": _I64, "minor": _I64, "rate": _U64}, "major", "minor", "rate"))

RESOURCES = _object(
    {
        "devices": (
            LIST,
            _object(
                {
                    "allow": _BOOL,
                    "type": (NAME, ("", "a", "b", "c")),
                    "major": _I64,
                    "minor": _I64,
                    "access": _STR,
                },
                "allow",
            ),
        ),
        "memory": _object(
            {
                "limit": _I64,
                "reservation": _I64,
                "swap": _I64,
                "kernel": _I64,
                "kernelTCP": _I64,
                "swappiness": _U64,
                "disableOOMKiller": _BOOL,
                "useHierarchy": _BOOL,
                "checkBeforeUpdate": _BOOL,
            }
        ),
        "cpu": _object(
            {
                "shares": _U64,
                "quota": _I64,
                "burst": _U64,
                "period": _U64,
                "realtimeRuntime": _I64,
                "realtimePeriod": _U64,
                "cpus": _STR,
                "mems": _STR,
                "idle": (INTEGER, 0, 1),
            }
        ),
        "pids": _object({"limit": _I64}),
        "blockIO": _object(
            {
                "weight": _U16,
                "leafWeight": _U16,
                "weightDevice": (
                    LIST,
                    _object(
                        {"major": _I64, "minor": _I64, "weight": _U16, "leafWeight": _U16}, "major", "minor"
                    ),
                ),
                "throttleReadBpsDevice": _THROTTLE,
                "throttleWriteBpsDevice": _THROTTLE,
                "throttleReadIOPSDevice": _THROTTLE,
                "throttleWriteIOPSDevice": _THROTTLE,
            }
        ),
        "hugepageLimits": (LIST, _object({"pageSize": _STR, "limit": _U64}, "pageSize", "limit")),
        "network": _object(
            {
                "classID": _U32,
                "priorities": (LIST, _object({"name": _STR, "priority": _U32}, "name", "priority")),
            }
        ),
        "rdma": (MAP, _object({"hcaHandles": _U32, "hcaObjects": _U32})),
        "unified": _STRING_MAP,
    }
)

_ACTION = (NAME, names.SECCOMP_ACTIONS)
_SECCOMP = _object(
    {
        "defaultAction": _ACTION,
        "defaultErrnoRet": _U32,
        "architectures": (LIST, (NAME, names.SECCOMP_ARCHES)),
        "flags": (LIST, (NAME, names.SECCOMP_FLAGS)),
        "listenerPath": _STR,
        "listenerMetadata": _STR,
        "syscalls": (
            LIST,
            _object(
                {
                    "names": _STRINGS,
                    "action": _ACTION,
                    "errnoRet": _U32,
                    "args": (
                        LIST,
                        _object(
                            {
                                "index": (INTEGER, 0, 5),
                                "value": _U64,
                                "valueTwo": _U64,
                                "op": (NAME, names.SECCOMP_OPERATORS),
                            },
                            "index",
                            "value",
                            "op",
                        ),
                    ),
                },
                "names",
                "action",
            ),
        ),
    },
    "defaultAction",
)

_LINUX = _object(
    {
        "namespaces": (LIST, _object({"type": (NAME, names.NAMESPACES), "path": _STR}, "type")),
        "uidMappings": _MAPPINGS,
        "gidMappings": _MAPPINGS,
        "timeOffsets": (MAP, _object({"secs": _I64, "nanosecs": _U32})),
        "devices": (
            LIST,
            _object(
                {
                    "path": _STR,
                    "type": (NAME, ("b", "c", "p", "u")),
                    "major": _I64,
                    "minor": _I64,
                    "fileMode": _U32,
                    "uid": _U32,
                    "gid": _U32,
                },
                "path",
                "type",
            ),
        ),
        "netDevices": (MAP, _object({"name": _STR})),
        "cgroupsPath": _STR,
        "resources": RESOURCES,
        "intelRdt": _object(
            {
                "closID": _STR,
                "schemata": _STRINGS,
                "l3CacheSchema": _STR,
                "memBwSchema": _STR,
                "enableMonitoring": _BOOL,
                "enableCMT": _BOOL,
                "enableMBM": _BOOL,
            }
        ),
        "memoryPolicy": _object({"mode": _STR, "nodes": _STR, "flags": _STRINGS}),
        "sysctl": _STRING_MAP,
        "seccomp": _SECCOMP,
        "rootfsPropagation": (NAME, ("", *names.PROPAGATION)),
        "maskedPaths": _STRINGS,
        "readonlyPaths": _STRINGS,
        "mountLabel": _STR,
        "personality": _object({"domain": _STR, "flags": _STRINGS}),
    }
)

CONFIG = _object(
    {
        "ociVersion": _STR,
        "root": _object({"path": _STR, "readonly": _BOOL}, "path"),
        "process": PROCESS,
        "hostname": _STR,
        "domainname": _STR,
        "mounts": _MOUNTS,
        "hooks": _object(dict.fromkeys(names.HOOKS, (LIST, _HOOK))),
        "annotations": _STRING_MAP,
        "linux": _LINUX,
    },
    "ociVersion",
    "root",
    "process",
)


class _Wrong(Exception):
    """A wrong value on its way up to `check`; every level it passes adds its part of the path."""

    def __init__(self, problem: str, *parts: str, hint: str | None = None) -> None:
        self.problem = problem
        self.parts = list(parts)
        self.hint = hint


def check(config: object, table: Node, path: str = "", *, escapes: bool = True) -> None:
    """Check `config` against a node of the table; fields that are null are removed from it.

    `path` is the JSON path of `config` itself. `escapes=False` skips the search for U+0000 and lone
    surrogates in strings: for documents that hold no such escape, and so cannot hold one of the two. Raises
    SpecError with the path of the first wrong value.
    """
    try:
        _check(config, table, escapes)
    except _Wrong as wrong:
        where = path + "".join(reversed(wrong.parts))
        raise SpecError(where if path else where.removeprefix("."), wrong.problem, hint=wrong.hint) from None


def _check(value: Any, node: Node, escapes: bool) -> None:
    kind = node[0]
    if kind == STRING:
        if type(value) is not str:
            raise _Wrong(f"expected a string, got {_describe(value)}")
        if escapes:
            _check_text(value)
    elif kind == INTEGER:
        if type(value) is not int or not node[1] <= value <= node[2]:
            raise _Wrong(
                f"expected an integer from {node[1]} to {node[2]}, got {_describe(value, number=True)}"
            )
    elif kind == NAME:
        if type(value) is not str or value not in node[1]:
            raise _wrong_name(value, node[1])
    elif kind == LIST:
        _check_list(value, node[1], escapes)
    elif kind == OBJECT:
        _check_object(value, node, escapes)
    elif kind == BOOLEAN:
        if type(value) is not bool:
            raise _Wrong(f"expected true or false, got {_describe(value)}")
    else:
        _check_map(value, node[1], escapes)


def _check_list(value: Any, node: Node, escapes: bool) -> None:
    if type(value) is not list:
        raise _Wrong(f"expected an array, got {_describe(value)}")
    if node is _STR and not escapes and set(map(type, value)) <= {str}:
        return  # a seccomp profile has hundreds of names: no Python call for each
    index = 0
    try:
        for item in value:
            _check(item, node, escapes)
            index += 1
    except _Wrong as wrong:
        wrong.parts.append(f"[{index}]")
        raise


def _check_object(value: Any, node: Node, escapes: bool) -> None:
    if type(value) is not dict:
        raise _Wrong(f"expected an object, got {_describe(value)}")
    fields = node[1]
    nulls = []
    key = ""
    try:
        for key, item in value.items():
            field = fields.get(key)
            if field is None:
                continue
            if item is None:
                nulls.append(key)
            else:
                _check(item, field, escapes)
    except _Wrong as wrong:
        wrong.parts.append("." + key)
        raise
    for key in nulls:
        del value[key]
    for key in node[2]:
        if key not in value:
            raise _Wrong("required, but missing", "." + key)


def _check_map(value: Any, node: Node, escapes: bool) -> None:
    if type(value) is not dict:
        raise _Wrong(f"expected an object, got {_describe(value)}")
    key = ""
    try:
        for key, item in value.items():
            if escapes:
                _check_text(key)
            _check(item, node, escapes)
    except _Wrong as wrong:
        wrong.parts.append(f"[{quote(key)}]")
        raise


def _check_text(text: str) -> None:
    if "\0" in text:
        raise _Wrong("a string here cannot hold U+0000")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Wrong("a string here cannot hold a lone surrogate (half of a \\u pair)") from None


def _wrong_name(value: Any, allowed: Any) -> _Wrong:
    known = [quote(name) for name in sorted(allowed)]
    got = quote(value) if type(value) is str else _describe(value)
    if len(known) > 8:
        problem = f"unknown name {got}" if type(value) is str else f"expected a name, got {got}"
        return _Wrong(problem, hint=f"one of {', '.join(sorted(name for name in allowed if name))}")
    return _Wrong(f"expected one of {', '.join(known)}, got {got}")


def _describe(value: Any, *, number: bool = False) -> str:
    """What a wrong value is, in JSON's words; `number` gives an integer itself, for what is out of range."""
    if type(value) is int and number:
        return (
            str(value) if abs(value) < 1 << 70 else "a far larger one" if value > 0 else "a far smaller one"
        )
    kinds = {
        str: "a string",
        int: "an integer",
        float: "a number with a fraction or exponent",
        bool: "a boolean",
    }
    kinds.update({list: "an array", dict: "an object"})
    return kinds.get(type(value), "null")
