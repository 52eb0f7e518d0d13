"""`rt update`: change the limits of a container, by options or by a JSON document."""

from __future__ import annotations

from rootless_rt.cgroups.limits import ROOT
from rootless_rt.cli.argv import Invocation, text
from rootless_rt.cli.common import log_of, store_of
from rootless_rt.container.update import Wanted, update
from rootless_rt.errors import RtError, SpecError
from rootless_rt.spec import schema
from rootless_rt.spec.amounts import size, whole
from rootless_rt.spec.load import checked
from rootless_rt.spec.outside import RDT, check_outside, schema_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Read = Callable[[str], object]

# option -> (object of linux.resources, its field, how its text is read)
_FIELDS: dict[str, tuple[str, str, Read]] = {
    "memory": ("memory", "limit", size),
    "memory-swap": ("memory", "swap", size),
    "memory-reservation": ("memory", "reservation", size),
    "kernel-memory": ("memory", "kernel", size),
    "kernel-memory-tcp": ("memory", "kernelTCP", size),
    "cpu-share": ("cpu", "shares", whole),
    "cpu-period": ("cpu", "period", whole),
    "cpu-quota": ("cpu", "quota", whole),
    "cpu-burst": ("cpu", "burst", whole),
    "cpu-rt-period": ("cpu", "realtimePeriod", whole),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime", whole),
    "cpu-idle": ("cpu", "idle", whole),
    "cpuset-cpus": ("cpu", "cpus", str),
    "cpuset-mems": ("cpu", "mems", str),
    "pids-limit": ("pids", "limit", whole),
    "blkio-weight": ("blockIO", "weight", whole),
}
_SCHEMATA = {"l3-cache-schema": "l3CacheSchema", "mem-bw-schema": "memBwSchema"}
_MOST_BYTES = 16 << 20  # of a document


def run(inv: Invocation) -> int:
    """Change the limits of the container ID."""
    source = text(inv.options, "resources")
    wanted = _from_document(source) if source is not None else _from_options(inv)
    update(store_of(inv), inv.args[0], wanted, log_of(inv).warning)
    return 0


def _from_document(source: str) -> Wanted:
    what = "standard input" if source == "-" else source
    data = _read(source, what)

    def label(path: str) -> str:
        return f"{what}: {path.removeprefix(ROOT + '.')}"

    try:
        resources = checked(data, what, schema.RESOURCES)
    except SpecError as error:
        raise _renamed(error, label(error.path) if error.path else what) from None
    return Wanted(resources, [], label)


def _read(source: str, what: str) -> bytes:
    try:
        with open(0 if source == "-" else source, "rb", closefd=source != "-") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise RtError(f"--resources {source}: {(reason or 'cannot be read').lower()}") from None
    if len(data) > _MOST_BYTES:
        raise RtError(f"{what}: is too long for the resources of a container")
    return data


def _from_options(inv: Invocation) -> Wanted:
    resources: dict[str, Any] = {}
    options = {f"{ROOT}.{part}.{field}": "--" + name for name, (part, field, _) in _FIELDS.items()}
    given: set[str] = set()
    for name, (part, field, read) in _FIELDS.items():
        typed = text(inv.options, name.replace("-", "_"))
        if typed is None:
            continue
        try:
            resources.setdefault(part, {})[field] = read(typed)
        except RtError as error:
            raise RtError(f"--{name}: {error.message}") from None
        given.add(f"{ROOT}.{part}.{field}")

    def label(path: str) -> str:
        # A value that the container has already may be what another one does not go with.
        return options[path] if path in given else f"{path.removeprefix(ROOT + '.')} of the container"

    try:
        schema.check(resources, schema.RESOURCES, ROOT)
    except SpecError as error:
        raise _renamed(error, label(error.path)) from None
    return Wanted(resources, _schemata(inv), label)


def _schemata(inv: Invocation) -> list[str]:
    """The lines for resctrl that the options give. Raises RtError."""
    rdt = {}
    for name, field in _SCHEMATA.items():
        line = text(inv.options, name.replace("-", "_"))
        if line is not None:
            rdt[field] = line
    try:
        check_outside({"intelRdt": rdt}, {})
    except SpecError as error:
        field = error.path.removeprefix(RDT + ".")
        option = next(name for name, known in _SCHEMATA.items() if known == field)
        raise _renamed(error, "--" + option) from None
    return schema_lines(rdt)[0]


def _renamed(error: SpecError, name: str) -> RtError:
    """The same error, of a value that is not in a config.json."""
    start = f"config.json: {error.path}: " if error.path else "config.json: "
    return RtError(f"{name}: {error.message.removeprefix(start)}", hint=error.hint)
