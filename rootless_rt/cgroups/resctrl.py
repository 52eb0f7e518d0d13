"""The container's group in resctrl: shares of caches and memory bandwidth, and their measuring.

A group is a directory: making it takes a class of service from the processor, writing `schemata` says what
that class may use, writing a pid to `tasks` moves a thread, whose children then stay; a monitoring group is a
directory in its `mon_groups` (kernel documentation, "User Interface for Resource Control feature";
runtime-spec, "IntelRdt"). Nothing but the name of a group is recorded: what `delete` removes lies below
wherever resctrl is mounted then, and is a group without processes. Must not know containers or plans.
"""

from __future__ import annotations

import errno
import posix

from rootless_rt import paths
from rootless_rt.errors import RtError, SpecError
from rootless_rt.spec.jsonio import quote
from rootless_rt.spec.outside import RDT, ROOT_GROUP, group_problem, merged, monitored, schema_lines

from .fs import put, read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Older names of what is monitored -> the counters they stand for, in info/L3_MON/mon_features.
_LEGACY = {"enableCMT": (b"llc_occupancy",), "enableMBM": (b"mbm_total_bytes", b"mbm_local_bytes")}


def mount_point(root: str = "/") -> str | None:
    """Where resctrl is mounted, from /proc/self/mountinfo below `root` (which also prefixes the answer)."""
    prefix = root.rstrip("/")
    for line in (read_bytes(prefix + "/proc/self/mountinfo") or b"").split(b"\n"):
        left, _, right = line.partition(b" - ")
        fields = left.split(b" ")
        # Its root alone: a bind mount of a single group shows neither `info` nor the other groups.
        if right.startswith(b"resctrl ") and len(fields) > 4 and fields[3] == b"/":
            point = fields[4]
            for code, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
                point = point.replace(code, char)
            return prefix + paths.fsdecode(point)
    return None


class Group:
    """The group of one container.

    `made` and `monitor`: whether the group, and a monitoring group of the container's name in it, are ours to
    remove. Both are known before anything is made.
    """

    __slots__ = ("_done", "_first", "_last", "container_id", "made", "monitor", "mount", "name")

    def __init__(self, mount: str, name: str, container_id: str, *, made: bool, monitor: bool) -> None:
        self.mount = mount
        self.name = name
        self.container_id = container_id
        self.made = made
        self.monitor = monitor
        self._first: list[str] = []
        self._last: list[str] = []
        self._done: list[str] = []

    @property
    def path(self) -> str:
        """The group's directory."""
        return self.mount if self.name == ROOT_GROUP else f"{self.mount}/{self.name}"

    @property
    def monitor_path(self) -> str:
        """The directory of the monitoring group."""
        return f"{self.path}/mon_groups/{self.container_id}"

    def to_state(self) -> dict[str, Any]:
        """What `load` needs, for state.json."""
        return {"group": self.name, "made": self.made, "monitor": self.monitor}

    def create(self) -> None:
        """Make what is to be made. Raises RtError; `undo` then takes back what has been made."""
        if self.made:
            self._make(self.path, f"{RDT}.closID")
            self._write(self._first)
            self._write(self._last)
        if self.monitor:
            self._make(self.monitor_path, f"{RDT}.enableMonitoring")

    def _make(self, path: str, field: str) -> None:
        try:
            posix.mkdir(path, 0o755)
        except OSError as error:
            hint = None
            if error.errno == errno.ENOSPC:
                hint = "the processor has no more of them: name an existing group as closID, or remove one"
            raise self._failure(f"{field}: cannot make {path}", error, hint) from None
        self._done.append(path)

    def _write(self, lines: list[str]) -> None:
        if not lines:
            return
        # All in one write: the kernel applies the lines together, or none of them.
        try:
            put(f"{self.path}/schemata", "".join(line + "\n" for line in lines))
        except OSError as error:
            raise self._failure(f"{RDT}: the kernel refuses the schemata {', '.join(lines)}", error) from None

    def change(self, lines: list[str]) -> None:
        """Give the group other shares. Raises RtError; nothing has changed then."""
        _check_resources(self.mount, lines)
        self._write(lines)

    def add(self, pid: int) -> None:
        """Move a process of one thread into the group, and the monitoring group. Raises RtError."""
        # In this order: a monitoring group takes only what is in the group around it.
        for path in [self.path, self.monitor_path] if self.monitor else [self.path]:
            try:
                put(f"{path}/tasks", str(pid))
            except OSError as error:
                raise self._failure(
                    f"{RDT}: cannot move the container's process into {path}", error
                ) from None

    def undo(self) -> None:
        """Remove what `create` has made. Never raises."""
        while self._done:
            try:
                posix.rmdir(self._done.pop())
            except OSError:
                pass

    def delete(self, root: str = "/") -> None:
        """Remove what is ours, when the container's processes have ended. Raises RtError.

        A group that others' processes have joined since stays: removing it would move them to the root group.
        """
        if self.monitor:
            self._remove(self.monitor_path)
        if self.made and not self._in_use(root):
            self._remove(self.path)

    def _remove(self, path: str) -> None:
        try:
            posix.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._failure(f"cannot remove the resctrl group {path}", error) from None

    def _in_use(self, root: str) -> bool:
        """Whether a process is in the group; those that have ended and wait to be reaped do not count."""
        for pid in (read_bytes(f"{self.path}/tasks") or b"").split():
            stat = read_bytes(f"{root.rstrip('/')}/proc/{paths.fsdecode(pid)}/stat") or b""
            if stat and stat.rpartition(b") ")[2][:1] not in b"ZX":
                return True
        return False

    def _failure(self, what: str, error: OSError, hint: str | None = None) -> RtError:
        """One line with the kernel's own words, which it keeps for its last command only."""
        said = (read_bytes(f"{self.mount}/info/last_cmd_status") or b"").decode("utf-8", "replace").strip()
        more = f" ({said})" if said and said != "ok" else ""
        return RtError(f"{what}: {posix.strerror(error.errno or 0).lower()}{more}", hint=hint)


def choose(rdt: dict[str, Any], container_id: str, root: str = "/") -> Group:
    """The group that linux.intelRdt asks for; nothing is made or changed.

    Raises SpecError when resctrl is not there, cannot do what is asked, or the group is set differently.
    """
    mount = mount_point(root)
    if mount is None:
        raise SpecError(
            RDT,
            "no resctrl file system is mounted",
            hint="mount -t resctrl resctrl /sys/fs/resctrl, on a machine whose processor and kernel have it",
        )
    name = rdt.get("closID", "")
    lines = [line for part in schema_lines(rdt) for line in part]
    group = Group(mount, name or container_id, container_id, made=False, monitor=monitored(rdt))
    if not name and (problem := group_problem(container_id)):
        raise SpecError(RDT, f"the container's id {quote(container_id)} {problem}", hint="set closID")
    there = paths.is_directory(group.path)
    _check_resources(mount, lines)
    if there and lines:
        _check_same(group.path, lines)
    if not there and name and not lines:
        raise SpecError(
            f"{RDT}.closID",
            f"there is no group {quote(name)}, and no schemata to make it with",
            hint=f"make it first: mkdir {group.path}, or set schemata",
        )
    if not there:
        if read_bytes(f"{mount}/schemata") is None:
            raise SpecError(
                RDT, "this machine can only monitor, not make groups with shares", hint='set closID to "/"'
            )
        group.made = True
        group._first, group._last = schema_lines(rdt)
    if group.monitor:
        _check_monitoring(mount, rdt)
        if paths.exists(group.monitor_path):
            raise SpecError(
                f"{RDT}.enableMonitoring",
                f"there is a monitoring group {quote(container_id)} already",
                hint=f"choose another id for the container, or remove it: rmdir {group.monitor_path}",
            )
    return group


def load(state: dict[str, Any], container_id: str, root: str = "/") -> Group | None:
    """The group of a container's record; None where resctrl is not mounted any more, all groups with it."""
    mount = mount_point(root)
    if mount is None:
        return None
    return Group(mount, state["group"], container_id, made=state["made"], monitor=state["monitor"])


def wrong_state(state: object) -> bool:
    """Whether this is no record that `to_state` could have made."""
    if type(state) is not dict:
        return True
    group, made = state.get("group"), state.get("made")
    if type(group) is not str or type(made) is not bool or type(state.get("monitor")) is not bool:
        return True
    return group_problem(group) is not None or (made and group == ROOT_GROUP)


def _schemata(path: str) -> dict[str, dict[str, str]]:
    raw = read_bytes(f"{path}/schemata") or b""
    return merged(raw.decode("utf-8", "replace").split("\n"))


def _check_resources(mount: str, lines: list[str]) -> None:
    """Refuse lines on resources that this machine does not share out."""
    if not lines:
        return
    known = _schemata(mount)
    for name in merged(lines):
        if name not in known:
            listed = ", ".join(known) or "none"
            raise SpecError(RDT, f"there is no {name} to share out on this machine; it has: {listed}")


def _check_same(path: str, lines: list[str]) -> None:
    """Refuse a group that exists with other values than asked: others may rely on them."""
    there = _schemata(path)
    for name, domains in merged(lines).items():
        for domain, value in domains.items():
            found = there.get(name, {}).get(domain)
            if found != value:
                raise SpecError(
                    f"{RDT}.closID",
                    f"the group {path} exists with other schemata: {name}:{domain}={found or '-'}, "
                    f"where {value} is asked",
                    hint="ask for what it has, or for nothing, or name another group",
                )


def _check_monitoring(mount: str, rdt: dict[str, Any]) -> None:
    features = (read_bytes(f"{mount}/info/L3_MON/mon_features") or b"").split()
    if not features:
        raise SpecError(f"{RDT}.enableMonitoring", "this machine cannot monitor caches or memory bandwidth")
    for key, counters in _LEGACY.items():
        if rdt.get(key) and not any(counter in features for counter in counters):
            raise SpecError(f"{RDT}.{key}", "this machine has no such counters")
