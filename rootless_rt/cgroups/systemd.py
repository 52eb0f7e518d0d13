"""The driver that has systemd make the cgroup: a transient scope, of the system or of the user's own manager.

systemd is asked to put the container's process into a scope that it leaves to us (Delegate=yes), so all else
is done by the driver of the cgroup files inside that scope. Knows units and slices; must not know how
messages travel. Sources: org.freedesktop.systemd1(5), systemd.scope(5), "Control Group APIs and Delegation".
"""

from __future__ import annotations

from rootless_rt import paths
from rootless_rt.errors import RtError

from . import host
from .bus import SYSTEM, USER, Bus, BusError, connect
from .properties import from_annotations, limits_as_properties

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import Manager
    from .limits import Limit
    from .properties import Property
    from .v1 import V1
    from .v2 import V2

    Inner = V1 | V2

_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@"
_NAME_MAX = 255


class Systemd:
    """The container's scope; `inner` is the driver of its cgroup's files."""

    __slots__ = (
        "_bus",
        "_killed_before",
        "_properties",
        "_resources",
        "_starting",
        "_waiting",
        "bus",
        "inner",
        "slice",
        "unit",
    )
    kind = "systemd"

    def __init__(self, bus: str, unit: str, slice: str, inner: Inner) -> None:
        self.bus = bus
        self.unit = unit
        self.slice = slice
        self.inner: Inner = inner
        self._bus: Bus | None = None
        self._starting = False
        self._properties: list[Property] = []
        self._resources: dict[str, Any] = {}
        self._waiting: list[Limit] = []
        self._killed_before: int | None = None

    @staticmethod
    def from_state(state: dict[str, Any]) -> Systemd:
        from . import load

        values = [state.get(name) for name in ("bus", "unit", "slice")]
        inner = state.get("inner")
        if not all(isinstance(value, str) for value in values) or not isinstance(inner, dict):
            raise RtError("state: cgroup: the systemd unit is missing")
        bus, unit, slice = map(str, values)
        if bus not in (SYSTEM, USER) or not is_unit(unit, ".scope") or inner.get("kind") not in ("v1", "v2"):
            raise RtError("state: cgroup: that is no systemd unit of a container")
        found = Systemd(bus, unit, slice, load(inner))  # type: ignore[arg-type]
        before = state.get("killedBefore")
        found._killed_before = before if isinstance(before, int) else None
        return found

    def to_state(self) -> dict[str, Any]:
        state = {"kind": self.kind, "bus": self.bus, "unit": self.unit, "slice": self.slice}
        return {**state, "inner": self.inner.to_state(), "killedBefore": self._killed_before}

    @property
    def version(self) -> int:
        return self.inner.version

    @property
    def paths(self) -> list[str]:
        return self.inner.paths

    @property
    def reason(self) -> str | None:
        return self.inner.reason

    def prepare(self, resources: dict[str, Any], annotations: dict[str, str]) -> None:
        """What the scope is to have when it is made. Raises SpecError for a wrong annotation."""
        self._resources = resources
        self._properties = from_annotations(annotations)

    def create(self) -> None:
        """Nothing can be made before there is a process to put into it."""
        self._starting = True

    def add(self, pid: int) -> None:
        """Raises RtError."""
        if self._starting:
            self._start(pid)
            self._starting = False
            self.inner.apply(self._waiting)
            return
        try:
            self.inner.add(pid)
        except RtError as error:
            self._attach(pid, error)

    def _attach(self, pid: int, error: RtError, below: str = "") -> None:
        """From another session the cgroup cannot be reached, though it is ours: systemd moves processes.

        `below`: to which cgroup under the scope's own, as a path from there.
        """
        try:
            self._manager("AttachProcessesToUnit", "ssau", self.unit, below, [pid])
        except (BusError, RtError):
            raise error from None

    def _start(self, pid: int) -> None:
        bus = self._connection()
        bus.watch("JobRemoved")
        properties: list[Property] = [
            ("Description", "s", f"container {self.unit.removesuffix('.scope')}"),
            ("Slice", "s", self.slice),
            ("Delegate", "b", True),
            ("PIDs", "au", [pid]),
            ("DefaultDependencies", "b", False),
            ("CollectMode", "s", "inactive-or-failed"),
            *limits_as_properties(self._resources, self._systemd_version(), v2=self.version == 2),
        ]
        given = {name for name, _, _ in self._properties}
        properties = [item for item in properties if item[0] not in given] + self._properties
        try:
            job = self._start_unit(properties)
        except BusError as error:
            raise RtError(
                f"systemd cannot make the scope {self.unit}: {error}", hint=_hint(error, self.unit)
            ) from None
        _, _, unit, result = bus.wait("JobRemoved", "uoss", lambda body: body[1] == job)
        if result != "done":
            raise RtError(
                f"systemd could not start {unit}: {result}", hint=f"journalctl -u {unit} tells more"
            )
        self.inner = _inner_of(pid, self.unit)
        self._killed_before = self._killed_in_slice()

    def _killed_in_slice(self) -> int | None:
        """How many processes in all scopes of the slice the kernel has killed for lack of memory."""
        from .fs import read_bytes
        from .stats import flat

        if self.version != 2:
            return None  # there a count is of one cgroup alone
        return flat(read_bytes(f"{paths.dirname(self.inner.paths[0])}/memory.events")).get("oom_kill")

    def killed_since(self) -> int:
        """How many of them since the scope was made. That is known still when systemd has removed it."""
        now = self._killed_in_slice()
        return 0 if now is None or self._killed_before is None else now - self._killed_before

    def _start_unit(self, properties: list[Property]) -> str:
        """Ask for the scope; again once, when a failed one of that name was left behind."""
        variants = [(name, (signature, value)) for name, signature, value in properties]
        for attempt in range(2):
            try:
                signature = "ssa(sv)a(sa(sv))"
                return str(self._manager("StartTransientUnit", signature, self.unit, "fail", variants, [])[0])
            except IndexError:
                raise RtError(f"systemd names no job for {self.unit}") from None
            except BusError as error:
                if attempt or not error.name.endswith(".UnitExists"):
                    raise
                try:
                    self._manager("ResetFailedUnit", "s", self.unit)
                except BusError:
                    raise error from None
        raise AssertionError

    def apply(self, limits: list[Limit]) -> None:
        """Before there is a scope the limits wait for it."""
        if self._starting:
            self._waiting = limits
        elif limits:
            self.inner.apply(limits)

    def update(self, resources: dict[str, Any]) -> None:
        """Have systemd know changed limits, so that it does not take them back. Raises RtError."""
        properties = limits_as_properties(resources, self._systemd_version(), v2=self.version == 2)
        if not properties:
            return
        variants = [(name, (signature, value)) for name, signature, value in properties]
        try:
            self._manager("SetUnitProperties", "sba(sv)", self.unit, True, variants)
        except BusError as error:
            raise RtError(f"systemd cannot change {self.unit}: {error}") from None

    def lacking(self, controllers: set[str]) -> dict[str, tuple[str, str]]:
        return self.inner.lacking(controllers)

    def undo(self) -> None:
        """Never raises."""
        try:
            self.delete()
        except RtError:
            pass

    def delete(self, timeout: float = 2.0) -> None:
        if not self._starting:
            self.inner.delete(timeout)
        self._end("StopUnit", "ss", self.unit, "replace")
        self._end("ResetFailedUnit", "s", self.unit)
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    def _end(self, method: str, signature: str, *arguments: str) -> None:
        try:
            self._manager(method, signature, *arguments)
        except BusError as error:
            # The scope ends by itself with its last process.
            if not error.name.endswith((".NoSuchUnit", ".UnknownObject")):
                raise RtError(f"systemd cannot end {self.unit}: {error}") from None

    def open_dir(self) -> int | None:
        """None: the scope is made around a process."""
        return None

    def add_beside(self, pid: int, first: int) -> None:
        try:
            self.inner.add_beside(pid, first)
        except RtError as error:
            self._attach(pid, error, self._place_of(first))

    def _place_of(self, first: int) -> str:
        """Where below the scope's cgroup a process is: "/..." if that gives controllers on, so holds none."""
        from .fs import read_bytes
        from .v2 import beside

        path = self.inner.paths[0]
        if self.version != 2 or not (read_bytes(path + "/cgroup.subtree_control") or b"").split():
            return ""
        place = beside(path, first)
        return place[len(path) :] if place is not None else ""

    def below(self, wanted: dict[str, str]) -> Manager:
        return self.inner.below(wanted)

    def freeze(self) -> None:
        self.inner.freeze()

    def thaw(self) -> None:
        self.inner.thaw()

    def frozen(self) -> bool:
        return self.inner.frozen()

    def freezer(self) -> str | None:
        return self.inner.freezer()

    def removal(self) -> None:
        """None: systemd has to be told."""

    def kill(self, timeout: float = 10.0) -> bool:
        return self.inner.kill(timeout)

    def procs(self) -> list[int]:
        return self.inner.procs()

    def set_devices(self, rules: list[dict[str, Any]]) -> str | None:
        return self.inner.set_devices(rules)

    def _connection(self) -> Bus:
        if self._bus is None:
            self._bus = connect(self.bus)
        return self._bus

    def _manager(self, method: str, signature: str, *arguments: Any) -> tuple[Any, ...]:
        return self._connection().manager(method, signature, *arguments)

    def _systemd_version(self) -> int:
        text = str(self._connection().property("Version"))
        digits = text.lstrip("v").partition(".")[0].partition(" ")[0].partition("-")[0]
        return int(digits) if digits.isascii() and digits.isdigit() else 0


def place(bus: str, cgroups_path: str | None, container_id: str) -> tuple[str, str]:
    """(slice, unit) for `linux.cgroupsPath`: "SLICE:PREFIX:NAME", or none. Raises RtError.

    As in the other runtimes an empty slice is system.slice, or user.slice without root, and the unit is
    PREFIX-NAME.scope; a name that ends in ".slice" is no scope, and refused.
    """
    usual = "system.slice" if bus == SYSTEM else "user.slice"
    slice, prefix, name = usual, "rt", container_id
    if cgroups_path:
        parts = cgroups_path.split(":")
        if len(parts) != 3:
            raise RtError(
                f"linux.cgroupsPath {cgroups_path!r}: systemd takes SLICE:PREFIX:NAME",
                hint=f"such as {usual}:rt:{container_id}, or leave it out",
            )
        slice, prefix, name = parts[0] or usual, parts[1], parts[2]
    escaped = "".join(char if char in _CHARACTERS else _escape(char) for char in name)
    unit = (f"{prefix}-{escaped}" if prefix else escaped) + ".scope"
    if not is_unit(slice, ".slice") or not is_unit(unit, ".scope"):
        wrong = slice if not is_unit(slice, ".slice") else unit
        raise RtError(
            f"linux.cgroupsPath {cgroups_path!r}: {wrong!r} is no name of a systemd unit",
            hint=f"SLICE:PREFIX:NAME, such as {usual}:rt:{container_id}",
        )
    return slice, unit


def _escape(char: str) -> str:
    """As systemd-escape(1) writes what a unit's name cannot hold."""
    return "".join(f"\\x{byte:02x}" for byte in paths.fsencode(char))


def is_unit(name: str, suffix: str) -> bool:
    """Whether a name can be a unit of that type (systemd.unit(5)): no path can be made of it."""
    stem = name.removesuffix(suffix)
    if name == stem or not stem or len(name) > _NAME_MAX:
        return False
    if suffix == ".slice" and (stem.startswith("-") or stem.endswith("-") or "--" in stem) and stem != "-":
        return False
    return all(char in _CHARACTERS for char in name)


def slice_path(name: str) -> str:
    """Where a slice lies below its manager's cgroup: "a-b.slice" is a.slice/a-b.slice (systemd.slice(5))."""
    stem = name.removesuffix(".slice")
    if stem == "-":
        return ""
    parts = stem.split("-")
    return "/".join("-".join(parts[: end + 1]) + ".slice" for end in range(len(parts)))


def choose_scope(view: host.CgroupView, bus: str, cgroups_path: str | None, container_id: str) -> Systemd:
    """The driver for a new container, and where its cgroup is going to be. Raises RtError."""
    slice, unit = place(bus, cgroups_path, container_id)
    connection = connect(bus)
    try:
        root = str(connection.property("ControlGroup"))
    except BusError as error:
        raise RtError(f"systemd does not tell its cgroup: {error}") from None
    below = "/".join(part for part in (slice_path(slice), unit) if part)
    relative = f"{root.rstrip('/')}/{below}"
    made = Systemd(bus, unit, slice, _driver(view, dict.fromkeys(["", *view.mounts], relative)))
    made._bus = connection
    return made


def _inner_of(pid: int, unit: str) -> Inner:
    """The driver for where systemd has put a process. Raises RtError when that is not the unit.

    Whatever was said on the bus: limits are for this unit, and its processes are what `delete` ends.
    """
    from .fs import read_bytes
    from .v2 import V2

    own = host.own_of(read_bytes(f"/proc/{pid}/cgroup") or b"")
    view = host.view()
    # Controllers that systemd does not use for the scope get the same path.
    legacy = view.mounts and "name=systemd" in own
    where = own["name=systemd"] if legacy else own.get("", "")
    if paths.basename(where) != unit:
        raise RtError(f"systemd has not put the container into {unit}: it is in {where or 'no cgroup'}")
    if legacy:
        own = {**dict.fromkeys([*view.mounts, ""], where)}
    inner = _driver(view, own)
    if not isinstance(inner, V2):
        inner.join(pid)
    return inner


def _driver(view: host.CgroupView, own: dict[str, str]) -> Inner:
    placed = host.CgroupView(view.mounts, view.unified, own, view.roots)
    if view.mode == "v2":
        from .v2 import V2

        path = placed.own_dir()
        if path is None:
            raise RtError("systemd's cgroups are not visible here", hint="mount cgroup2 on /sys/fs/cgroup")
        return V2(path)
    from .choice import hierarchies
    from .v1 import V1

    dirs = {}
    for mount, names in hierarchies(view).items():
        path = placed.own_dir(names[0])
        if path is not None and mount:
            dirs[",".join(names)] = path
    return V1(dirs)


def _hint(error: BusError, unit: str) -> str | None:
    if error.name.endswith(".UnitExists"):
        return f"another container, or what is left of one, has that name: systemctl stop {unit}"
    if "InteractiveAuthorizationRequired" in error.name or "AccessDenied" in error.name:
        return "only root may ask the system's manager; without root use the user's: leave out the system bus"
    return None
