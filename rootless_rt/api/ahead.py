"""What of a plan can be done before its run is known: the trees below /proc, /dev and /sys.

Theory of operation: they are made of kernel filesystems alone, new ones and copies of the host's, and depend
on nothing in the rootfs. So they are built as detached trees (Linux 6.15 mounts into such), and a run only
puts them where they belong. All that looks at the rootfs, at other sources or at the run stays behind, in
its order.
Pure. Knows ops; must not know who performs them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rootless_rt.plan.model import Plan
from rootless_rt.plan.ops import ANY_DEVICE, NO_LINKS, NO_SLOT, OPS, PROC_ITSELF, Op
from rootless_rt.spec.names import NAMESPACES

_TOPS = ("/proc", "/dev", "/sys")
# Ops that put something at a path of the container, and which of their fields is that path.
_PLACES = {
    "mount_fs": "dest",
    "mount_bind": "dest",
    "remount": "dest",
    "device": "path",
    "symlink": "path",
    "mask": "path",
    "readonly": "path",
    "label_mqueue": "path",
}
# With these nothing is done ahead: they may mount anything, or make further namespaces before the mounts.
_UNKNOWN = {"hook", "console", "overlay", "nest", "unshare", "enter_own", "enter_cgroups", "sync", "cover"}
_OWN = {"oom_score_adj", "rlimit"}
_CGROUP_NAMESPACE = Op("unshare", NAMESPACES["cgroup"][0])
_SLOTS = {"slot", "slots", "root", "keep", "null", "tmpfs", "fallback", "descriptor", "userns"}
_ATTRIBUTES = ("set", "tree_set", "soft_set", "soft_clear", "tree_soft_set", "tree_soft_clear")
_FIELDS = {name: [field for field, _ in fields] for name, _, fields, _ in OPS}


class Split:
    """A plan in two parts, behind its first op: what is done ahead, and the rest.

    ahead   the ops to be done before, with the index that each had in the plan, or -1
    rest    the other ops, in their order, likewise
    """

    def __init__(self, ahead: list[tuple[int, Op]], rest: list[tuple[int, Op]]) -> None:
        self.ahead = ahead
        self.rest = rest


def split(plan: Plan, most_slots: int) -> Split | None:
    """The parts of a plan whose first op makes the process; None where nothing can be done ahead.

    Slots from `most_slots` on are not for the plan.
    """
    ops = plan.ops
    # What is of the process itself, up to where its mounts are its own.
    begin = next((index for index, op in enumerate(ops) if op.name == "propagation"), 0)
    known = all(op.name in _OWN or op == _CGROUP_NAMESPACE for op in ops[1:begin])
    if plan.fds or not begin or not known or any(op.name in _UNKNOWN for op in ops[begin:]):
        return None
    root = next((op.args[_at("root", "slot")] for op in ops if op.name == "root"), None)
    sources = {op.args[0]: index for index, op in enumerate(ops) if op.name == "source" and _is_kernels(op)}
    tops = [top for top in _TOPS if _can_be_ahead(ops, root, top, sources)]
    if root is None or not tops:
        return None
    made = _Splitter(ops, begin, root, tops, sources)
    return made.split() if made.next_slot + len(tops) < most_slots else None


class _Splitter:
    """Goes through the ops once; see `split`."""

    def __init__(
        self, ops: list[Op], begin: int, root: int, tops: list[str], sources: dict[int, int]
    ) -> None:
        self.ops = ops
        self.begin = begin
        self.root = root
        self.sources = sources
        self.trees = dict.fromkeys(tops, NO_SLOT)  # the slot of each, once it is made
        self.next_slot = 1 + max(value for op in ops for value in _slots(op))
        self.used: set[int] = set()
        self.ahead: list[tuple[int, Op]] = []
        self.rest: list[tuple[int, Op]] = []

    def split(self) -> Split:
        for index, op in enumerate(self.ops):
            if index > self.begin:
                self._sort(index, op)
        # Copies of the host's mounts that only these trees need come first, as in the plan.
        taken = sorted(self.sources[slot] for slot in self.used)
        early = [*range(1, self.begin + 1), *taken]
        self.ahead = [*((index, self.ops[index]) for index in early), *self.ahead]
        self.rest = [(index, op) for index, op in self.rest if index not in taken]
        return Split(self.ahead, self.rest)

    def _sort(self, index: int, op: Op) -> None:
        top = _top(_place(op), self.trees) if _value(op, "root") == self.root else ""
        if op.name == "bounding":
            self.ahead.append((index, op))
        elif op.name in ("mask", "readonly") and _value(op, "root") in self.trees.values():
            self._use(op)
            self.ahead.append((index, op))
        elif not top or op.name == "remount":
            self.rest.append((index, op))
        elif _place(op) == top:
            self._make(index, op, top)
        else:
            self._use(op)
            below = _changed(op, root=self.trees[top], **{_PLACES[op.name]: _place(op)[len(top) :]})
            self.ahead.append((index, below))

    def _make(self, index: int, op: Op, top: str) -> None:
        """The tree itself, and in the rest where it goes."""
        nothing = [0] * len(_ATTRIBUTES)
        if op.name == "mount_bind":
            self._use(op)
            slot = _value(op, "slot")
            # Now: they are not for what will be mounted in it.
            attributes = [_value(op, name) for name in _ATTRIBUTES]
            self.ahead.append((index, Op("set_attrs", slot, *attributes, label=op.label)))
            bind = _changed(op, **dict(zip(_ATTRIBUTES, nothing, strict=True)))
        else:
            slot = _value(op, "keep")
            if slot == NO_SLOT:
                slot, self.next_slot = self.next_slot, self.next_slot + 1
            words = [_value(op, name) for name in ("fstype", "source", "data", "attrs")]
            self.ahead.append((index, Op("new_fs", slot, *words, label=op.label)))
            strict = PROC_ITSELF if _value(op, "in_proc") else NO_LINKS if _value(op, "strict") else 0
            bind = Op("mount_bind", self.root, slot, top, *nothing, [], ANY_DEVICE, strict, 0, label=op.label)
        self.rest.append((index, bind))
        self.trees[top] = slot

    def _use(self, op: Op) -> None:
        for name in ("slot", "null"):
            slot = _value(op, name)
            if slot in self.sources:
                self.used.add(slot)


def _can_be_ahead(ops: list[Op], root: int | None, top: str, sources: dict[int, int]) -> bool:
    """Whether one op makes this tree, and every other in it can be done while it is detached."""
    found = 0
    for op in ops:
        place = _place(op)
        if _value(op, "root") != root or _top(place, (top,)) != top:
            continue
        if op.name == "mount_fs":
            free = all(_value(op, name) == NO_SLOT for name in ("fallback", "descriptor"))
            fits = free and not _value(op, "from_dest") and not _value(op, "propagation")
            fits = fits and not (place != top and _value(op, "keep") != NO_SLOT)
        elif op.name == "mount_bind":
            known = op.args[_at("mount_bind", "slot")] in sources
            fits = known and not _value(op, "links") and not _value(op, "propagation")
        else:
            fits = op.name == "symlink" or (op.name == "remount" and place != top)
        if not fits or (place != top and not found):
            return False
        found += place == top
    return found == 1


def _is_kernels(op: Op) -> bool:
    """Whether a source is of the kernel's filesystems, and not of files that somebody may exchange."""
    path = op.args[_at("source", "path")]
    plain = _value(op, "descriptor") == NO_SLOT and not _value(op, "below") and not _value(op, "nofollow")
    return plain and bool(_top(path, _TOPS)) and ".." not in path.split("/")


def _place(op: Op) -> str:
    field = _PLACES.get(op.name)
    return op.args[_at(op.name, field)] if field else ""


def _top(path: str, tops: Iterable[str]) -> str:
    """Which of the trees a path is in, or "". Paths of the plan are normal."""
    return next((top for top in tops if path == top or path.startswith(top + "/")), "")


def _at(name: str, field: str) -> int:
    return _FIELDS[name].index(field)


def _value(op: Op, field: str) -> Any:
    return op.args[_at(op.name, field)] if field in _FIELDS[op.name] else None


def _changed(op: Op, **values: Any) -> Op:
    args = [values.get(field, value) for field, value in zip(_FIELDS[op.name], op.args, strict=True)]
    return Op(op.name, *args, label=op.label)


def _slots(op: Op) -> list[int]:
    """The slots that an op names."""
    found: list[int] = [0]
    for field, value in zip(_FIELDS[op.name], op.args, strict=True):
        if field in _SLOTS:
            found += value if isinstance(value, list) else [value]
    return [slot for slot in found if isinstance(slot, int) and slot < NO_SLOT]
