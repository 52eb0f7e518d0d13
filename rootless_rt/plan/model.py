"""What a plan is made of, and the draft that the subjects of this room write into.

Theory of operation: `build.plan` hands one Draft through the subjects (namespaces, rootfs, mounts, …);
each appends ops to one of the draft's lists and notes what it could not do as asked. The lists are then put
in the order that the kernel forces. Nothing here opens, asks or starts anything.
"""

from __future__ import annotations

from rootless_rt.errors import RtError
from rootless_rt.plan.ops import NO_SLOT, Op
from rootless_rt.spec.names import KEEP_GROUPS, REQUIRED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_rt.host.facts import HostFacts
    from rootless_rt.spec.load import Spec

    Extent = tuple[int, int, int]


class Degradation:
    """One thing that will differ from what config.json asks, and why.

    `field` is the JSON path, `asked` and `got` are short texts, `why` names the cause, `fix` the remedy, `id`
    is what `rt explain` takes. One that is `always` right is no error under --degrade=strict either.
    """

    __slots__ = ("always", "asked", "field", "fix", "got", "id", "why")

    def __init__(
        self, field: str, asked: str, got: str, why: str, fix: str = "", *, id: str, always: bool = False
    ) -> None:
        self.always = always
        self.id = id
        self.field = field
        self.asked = asked
        self.got = got
        self.why = why
        self.fix = fix

    def line(self) -> str:
        """One line for stderr and the log."""
        return f"{self.field}: {self.asked} -> {self.got}: {self.why}"

    def as_dict(self) -> dict[str, str]:
        """The six parts by name, for `rt plan --format json` and state.json."""
        return {name: getattr(self, name) for name in ("field", "asked", "got", "why", "fix", "id")}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Degradation) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(self.line())

    def __repr__(self) -> str:
        return f"Degradation({self.line()!r})"


def is_required(config: dict[str, Any], field: str, asked: str) -> bool:
    """Whether an annotation (names.REQUIRED) says that a field, or a device by its path, must not degrade.

    >>> is_required({"annotations": {REQUIRED: "/dev/kvm, mounts"}}, "linux.devices[0]", "/dev/kvm (10:232)")
    True
    """
    listed = config.get("annotations", {}).get(REQUIRED, "")
    for item in listed.split(",") if listed else ():
        name = item.strip()
        if name and (name in (field, asked.partition(" ")[0]) or field.startswith((name + ".", name + "["))):
            return True
    return False


class Policy:
    """What the command line decides, as far as the plan depends on it.

    `strict` turns degradations into errors; `start_later` leaves the container waiting for `start`;
    `keep_fds` is how many descriptors from 3 on are kept, `listen_fds` how many of the last of them are
    sockets of socket activation (sd_listen_fds(3)) and `listen_names` their names; `keep_groups` leaves the
    caller's supplementary groups; `notify` is the host's directory of the socket that stands in for
    NOTIFY_SOCKET, or empty; `overlay` is the directory for what is written into the rootfs, "" for memory,
    None for the rootfs itself; `trace` has rt-init report times; `rows` and `cols` are the caller's terminal
    (0: unknown).
    """

    __slots__ = (
        "cols",
        "container_id",
        "keep_fds",
        "keep_groups",
        "listen_fds",
        "listen_names",
        "new_keyring",
        "notify",
        "overlay",
        "pivot",
        "rows",
        "start_later",
        "strict",
        "trace",
    )

    def __init__(
        self,
        container_id: str,
        *,
        strict: bool = False,
        start_later: bool = True,
        pivot: bool = True,
        new_keyring: bool = True,
        keep_fds: int = 0,
        listen_fds: int = 0,
        listen_names: str = "",
        keep_groups: bool = False,
        notify: str = "",
        overlay: str | None = None,
        trace: bool = False,
        rows: int = 0,
        cols: int = 0,
    ) -> None:
        self.container_id = container_id
        self.strict = strict
        self.start_later = start_later
        self.pivot = pivot
        self.new_keyring = new_keyring
        self.keep_fds = keep_fds
        self.listen_fds = listen_fds
        self.listen_names = listen_names
        self.keep_groups = keep_groups
        self.notify = notify
        self.overlay = overlay
        self.trace = trace
        self.rows = rows
        self.cols = cols


class Plan:
    """A container as an ordered list of ops, ready to be encoded or printed.

    fds           descriptors the runtime must hand over, one a slot from 0 on: ("listener", ""),
                  ("into-cgroup", ""), ("tasks", its file), ("keep", "3"), or a namespace type and the path
                  of its file
    uid_map, gid_map   extents to write for the new user namespace; None when none is made
    lent          whether systemd-nsresourced writes them, and chooses what is outside
    set_groups    whether setgroups(2) stays allowed in it
    degradations  what differs from what was asked
    outside       what the runtime does itself, no op of the container's process: (JSON path, text)
    tolerated     op index -> what it means when rt-init notes that this op failed
    tuning        ops that a second rt-init, with the caller's privileges, performs on the container's process
    """

    __slots__ = (
        "degradations",
        "fds",
        "gid_map",
        "lent",
        "ops",
        "outside",
        "own_pid",
        "set_groups",
        "tolerated",
        "tuning",
        "uid_map",
        "warnings",
    )

    @property
    def listens(self) -> bool:
        """Whether the container will wait for a `start` of its own."""
        return any(kind == "listener" for kind, _ in self.fds)

    @property
    def notifies(self) -> bool:
        """Whether rt-init will give a seccomp listener to the runtime."""
        return any(op.name == "seccomp_listen" for op in self.ops)

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.fds: list[tuple[str, str]] = []
        self.uid_map: list[tuple[int, int, int]] | None = None
        self.gid_map: list[tuple[int, int, int]] | None = None
        self.lent = False
        self.set_groups = True
        self.own_pid = False
        self.degradations: list[Degradation] = []
        self.warnings: list[str] = []
        self.tolerated: dict[int, Degradation] = {}
        self.outside: list[tuple[str, str]] = []
        self.tuning: list[Op] = []


class Draft:
    """A plan in the making: what the subjects share, and what they have found out."""

    def __init__(self, spec: Spec, facts: HostFacts, policy: Policy) -> None:
        self.spec = spec
        self.config: dict[str, Any] = spec.data
        self.linux: dict[str, Any] = spec.data.get("linux", {})
        self.process: dict[str, Any] = spec.data.get("process", {})
        self.facts = facts
        self.policy = policy
        self.plan = Plan()
        self.sources: list[Op] = []
        self.early: list[Op] = []  # what needs the caller's own namespaces
        self.idmaps: dict[int, int] = {}  # index of a mount -> slot of the user namespace that maps its ids
        self.notes: list[tuple[Op, Degradation]] = []
        self.wanted_places: set[str] = set()  # destinations of mounts in which something is to be hidden
        self.places: dict[str, int] = {}  # ... and the slot of the mount that is on top there
        # What is written right before the program is executed.
        self.last_writes: list[Op] = []
        self._next_slot = 0
        # What the namespaces part finds out, for all others.
        self.new: dict[str, int] = {}
        self.joined: dict[str, str] = {}
        self.nested: tuple[int, int] | None = None  # uid and gid that get a user namespace of their own
        self.in_userns = not facts.initial_userns
        self.root_slot = NO_SLOT
        self.spare_fds = 0  # descriptors that an op opens beside the slots

    @property
    def keeps_groups(self) -> bool:
        """Whether the process keeps the caller's supplementary groups: an option, or crun's annotation."""
        asked = self.config.get("annotations", {}).get(KEEP_GROUPS)
        return self.policy.keep_groups or asked == "1"

    def fd_slot(self, kind: str, value: str = "") -> int:
        """A slot filled by the runtime. All of these come before the first new_slot()."""
        self.plan.fds.append((kind, value))
        self._next_slot = len(self.plan.fds)
        return self._next_slot - 1

    def new_slot(self) -> int:
        """A slot that an op fills."""
        self._next_slot += 1
        return self._next_slot - 1

    def source(
        self,
        path: str,
        recursive: bool,
        label: str = "",
        *,
        early: bool = False,
        nofollow: bool = False,
        descriptor: int = NO_SLOT,
        below: str = "",
    ) -> int:
        """Have the mount at a path of the host copied before anything is changed; its slot.

        `early`: by the runtime's own process, before the container's namespaces exist.
        `nofollow`: a symlink there is meant itself. With the slot of a `descriptor` it is what that has open,
        or `below` it; then `path` is only for people.
        """
        slot = self.new_slot()
        which = (slot, path, int(recursive), int(nofollow), descriptor, below)
        (self.early if early else self.sources).append(Op("source", *which, label=label))
        return slot

    def place_at(self, dest: str, slot: int | None = None) -> int:
        """Remember the mount in `slot` (a new one, if none is given) for what is to be hidden in it.

        The slot, or NO_SLOT where nothing is.
        """
        if dest not in self.wanted_places:
            return NO_SLOT
        self.places[dest] = self.new_slot() if slot is None else slot
        return self.places[dest]

    def degrade(self, field: str, asked: str, got: str, why: str, fix: str = "", *, id: str) -> None:
        """Note a safe fall-back, or refuse it when the policy is strict or it is required. Raises RtError."""
        if self.policy.strict or is_required(self.config, field, asked):
            other = "without that requirement" if not self.policy.strict else "--degrade=warn"
            hint = (fix + "; " if fix else "") + f"{other} goes on with: {got}"
            raise RtError(f"{field}: {asked} is not possible: {why}", hint=hint, id=id)
        self.plan.degradations.append(Degradation(field, asked, got, why, fix, id=id))

    def warn(self, text: str) -> None:
        """Note something odd that changes nothing of what was asked."""
        self.plan.warnings.append(text)

    def tolerate(self, op: Op, degradation: Degradation) -> Op:
        """Say what it means when rt-init notes that `op` failed and goes on."""
        self.notes.append((op, degradation))
        return op

    def finish(self, ops: list[Op]) -> Plan:
        """The plan of these ops, with what the subjects noted."""
        made = self.plan
        made.ops = ops
        places = {id(op): index for index, op in enumerate(ops)}
        for op, degradation in self.notes:
            made.tolerated[places[id(op)]] = degradation
        made.warnings += [f"{path}: {text}" for path, text in self.spec.notes]
        return made

    def uid_mapped(self, number: int) -> bool:
        """Whether a uid of the container exists in its user namespace; unknown ones count as mapped."""
        return self._mapped(self.plan.uid_map, number, self.facts.uid_map, 0)

    def gid_mapped(self, number: int) -> bool:
        """Whether a gid of the container exists in its user namespace."""
        return self._mapped(self.plan.gid_map, number, self.facts.gid_map, 1)

    def _mapped(self, extents: list[Extent] | None, number: int, own: list[Extent], which: int) -> bool:
        if extents is None:
            if "user" in self.joined:
                if self.facts.joined_maps is None:
                    return True
                extents = self.facts.joined_maps[which]
            elif not self.in_userns:
                return True
            else:
                extents = own
        return any(inside <= number < inside + count for inside, _, count in extents)
