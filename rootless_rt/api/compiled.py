"""A plan that is compiled once and encoded for many runs, each with its own program, variables and place.

Knows which ops a run changes. Must not know how a plan is performed.
"""

from __future__ import annotations

import copy
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from idmap.extents import format_map, to_outside
from rootless_rt import cgroups
from rootless_rt.api.ahead import Split, split
from rootless_rt.api.config import Environment, Limits, changed, environment, refuse, words
from rootless_rt.container.prepare import Options, Prepared, prepare
from rootless_rt.errors import RtError, SpecError
from rootless_rt.plan.model import Plan
from rootless_rt.plan.ops import MAGIC, NO_SLOT, SYNC_MAPS, Op, encode, encode_op
from rootless_rt.plan.process import CAP_SYS_RESOURCE, DEFAULT_PATH
from rootless_rt.plan.process import environment as last_of_each
from rootless_rt.spec import rules
from rootless_rt.spec.load import Spec

Extent = tuple[int, int, int]

_DIGITS = 8
_HEAD = 16  # of an encoded plan: the magic, its length, the number of ops
_LATE = 4000  # slots that no plan uses, for the descriptors that come with a task
_MOST_FIRST = 60_000  # what fits into one request to a keeper: hundreds of lines of id maps
_WAIT = [Op("wait_start", NO_SLOT), Op("more", _LATE)]
_ENCODED_WAIT = [encode_op(op) for op in _WAIT]
_TAKE_STDIO = Op("stdio", [_LATE, _LATE + 1, _LATE + 2])
_ENCODED_STDIO = encode_op(_TAKE_STDIO)


class Task:
    """What one run executes: program and arguments, NAME=value entries, working directory."""

    __slots__ = ("args", "cwd", "env")

    def __init__(self, args: list[str], env: list[str], cwd: str) -> None:
        self.args = args
        self.env = env
        self.cwd = cwd


class Compiled:
    """A config compiled for this host under a name of its own, for any number of runs.

    `prepared` is the container as `container.prepare` makes it, under the name of run 0. Raises RtError for
    what cannot be done here, and for what needs a container with a state directory.
    """

    def __init__(self, spec: Spec, options: Options, name: str = "") -> None:
        refuse(spec, "a sandbox")
        self.spec = spec
        self.options = options
        self.name = name or "rt-sandbox-" + secrets.token_hex(6)
        self._joint = "-"
        self.prepared = prepare(spec, self.id_of(0), options)
        self.has_cgroup = self.prepared.cgroup.kind != "none"
        self.dirs: list[str] = []  # of cgroups, for all runs
        if self.prepared.cgroup.kind in ("v1", "v2"):
            # Below one of the sandbox, which can be removed as a whole. Of systemd's the name is no path.
            self._joint = "/"
            self.prepared = prepare(spec, self.id_of(0), options)
            self.dirs = [os.path.dirname(path) for path in self.prepared.cgroup.paths]
        if self.prepared.plan.notifies:
            raise RtError(
                "config.json: linux.seccomp: a sandbox hands no listener to an agent",
                hint="use Runtime.run for profiles with SCMP_ACT_NOTIFY",
            )
        process = spec.data["process"]
        self.task = Task(process["args"], last_of_each(process.get("env", [])), process["cwd"])
        # What the keeper's own user namespace is to have, where a helper has to write the maps.
        self.outer = (self.prepared.plan, self.prepared.facts) if needs_helpers(self.prepared) else None
        keeps_owner = is_root_already(self.prepared)
        self.prepared.plan, self._start = direct(self.prepared)
        self._encoded = [encode_op(op) for op in self.prepared.plan.ops]
        self._own = self.id_of(0).encode()
        # The plan of one op that makes the process, where it depends on nothing of a run; else None.
        self.first = first_of(self.prepared.plan)
        self._named = any(self._own in raw for raw in self._encoded)
        parts = split(self.prepared.plan, _LATE) if self.first is not None and keeps_owner else None
        # Whether there is nothing to be done for a run while it is made, and nothing to be judged.
        self.needs_nobody = (
            self.first is not None
            and not (self.has_cgroup or self.prepared.plan.fds or options.strict)
            and not any(op.name in ("sync", "console") for op in self.prepared.plan.ops)
        )
        self.ahead = b""  # the plan of what comes next, where that does not depend on a run either
        if parts is not None:
            self.ahead = self._joined([*(encode_op(op) for _, op in parts.ahead), *_ENCODED_WAIT], 0)
            self._keep_order(parts)
        self._places = {
            op.name: index
            for index, op in enumerate(self.prepared.plan.ops)
            if op.name in ("chdir", "find", "exec")
        }

    def id_of(self, number: int) -> str:
        """The id of a run, which its cgroup has too. All are of the same length."""
        return f"{self.name}{self._joint}{number:0{_DIGITS}}"

    def with_task(self, args: Sequence[str] | None, env: Environment | None, cwd: str | None) -> Task:
        """The task of the config, with what is given in its place. Raises SpecError."""
        if args is None and env is None and cwd is None:
            return self.task
        task = Task(
            self.task.args if args is None else words(args),
            self.task.env if env is None else environment(self.task.env, env),
            cwd or self.task.cwd,
        )
        rules.check_process({"args": task.args, "env": task.env, "cwd": task.cwd})
        for path, texts in (("process.args", task.args), ("process.env", task.env)):
            for index, text in enumerate(texts):
                if "\0" in text:
                    raise SpecError(f"{path}[{index}]", "holds a NUL character")
        if "\0" in task.cwd:
            raise SpecError("process.cwd", "holds a NUL character")
        return task

    def changed(self, limits: Limits | None, mounts: Sequence[Mapping[str, Any]]) -> Compiled:
        """Compiled anew with other limits and more mounts, under the same name. Raises RtError."""
        return Compiled(changed(self.spec, limits=limits, mounts=mounts), self.options, self.name)

    def ops_of(self, task: Task) -> dict[int, Op]:
        """The ops that differ from those of the plan: index -> op."""
        if task is self.task:
            return {}
        ops = self.prepared.plan.ops
        found: dict[int, Op] = {}
        if task.cwd != self.task.cwd:
            at = self._places["chdir"]
            found[at] = Op("chdir", task.cwd, *ops[at].args[1:], label=ops[at].label)
        at = self._places["find"]
        found[at] = Op("find", task.args[0], path_of(task.env), label=ops[at].label)
        at = self._places["exec"]
        found[at] = Op("exec", task.args, task.env, label=ops[at].label)
        return found

    def wire(self, number: int, task: Task) -> bytes:
        """The plan of run `number` as rt-init reads it, but for `first`."""
        return self._joined(self._behind_first(self._all(task)), number)

    def plan_of(self, number: int, task: Task) -> Plan:
        """The plan of one run: for messages about its ops, with descriptors and degradations of its own."""
        ops = self.prepared.plan.ops
        different = self.ops_of(task)
        ops = [different.get(index, op) for index, op in enumerate(ops)] if different else ops
        return self._with(number, ops)

    def head(self, number: int) -> tuple[bytes, Plan]:
        """A container that waits for its task: the plan as rt-init reads it, and for messages."""
        kept = [index for index in range(self._start) if index != self._places["find"]]
        ops = [self.prepared.plan.ops[index] for index in kept] + _WAIT
        tolerated = self.prepared.plan.tolerated
        plan = self._with(number, ops)
        plan.tolerated = {at: tolerated[index] for at, index in enumerate(kept) if index in tolerated}
        encoded = [self._encoded[index] for index in kept] + _ENCODED_WAIT
        return self._joined(self._behind_first(encoded), number), plan

    def tail(self, number: int, task: Task) -> tuple[bytes, list[Op]]:
        """The rest of the plan of such a container, with its task."""
        different = self.ops_of(task)
        ops, encoded = self.prepared.plan.ops, self._all(task)
        first = []
        if self._places["chdir"] in different:
            # By the process itself, which makes no directories.
            first.append(Op("chdir", task.cwd, 0, label="process.cwd"))
        first.append(_TAKE_STDIO)
        at = self._places["find"]
        first.append(different.get(at, ops[at]))
        rest = [different.get(index, op) for index, op in enumerate(ops) if index >= self._start]
        wire = [encode_op(op) for op in first] + encoded[self._start :]
        return self._joined(wire, number), first + rest

    def _keep_order(self, parts: Split) -> None:
        """The whole plan in the order of its parts, for `rest`."""
        order = [(0, self.prepared.plan.ops[0]), *parts.ahead, *((-1, op) for op in (*_WAIT, _TAKE_STDIO))]
        behind = len(order)
        order += parts.rest
        tolerated = self.prepared.plan.tolerated
        self._order = [op for _, op in order]
        self._order_tolerated = {
            at: tolerated[index] for at, (index, _) in enumerate(order) if index in tolerated
        }
        self._encoded_rest = [_ENCODED_STDIO, *(encode_op(op) for _, op in parts.rest)]
        self._rest_at = {index: (at, behind + at - 1) for at, (index, _) in enumerate(parts.rest, 1)}

    def rest(self, number: int, task: Task) -> tuple[bytes, Plan]:
        """What is left for a container that has done `ahead`, and the whole plan in that order."""
        ops, encoded = list(self._order), list(self._encoded_rest)
        for index, op in self.ops_of(task).items():
            at, place = self._rest_at[index]
            encoded[at], ops[place] = encode_op(op), op
        plan = self._with(number, ops)
        plan.tolerated = self._order_tolerated
        return self._joined(encoded, number), plan

    def _all(self, task: Task) -> list[bytes]:
        different = self.ops_of(task)
        if not different:
            return self._encoded
        encoded = list(self._encoded)
        for index, op in different.items():
            encoded[index] = encode_op(op)
        return encoded

    def _behind_first(self, encoded: list[bytes]) -> list[bytes]:
        return encoded if self.first is None else encoded[1:]

    def _with(self, number: int, ops: list[Op]) -> Plan:
        made = copy.copy(self.prepared.plan)
        made.ops = ops
        if self.dirs:
            made.fds = [(kind, self._renamed(text, number)) for kind, text in made.fds]
        made.degradations = list(made.degradations)
        return made

    def _joined(self, encoded: list[bytes], number: int) -> bytes:
        """Encoded ops as one plan, under the name of a run."""
        body = b"".join(encoded)
        if self._named:
            body = body.replace(self._own, self.id_of(number).encode())
        sizes = (_HEAD + len(body), len(encoded))
        return MAGIC + b"".join([size.to_bytes(4, sys.byteorder) for size in sizes]) + body

    def prepared_for(self, number: int, plan: Plan) -> Prepared:
        """The container of one run, with its own cgroup."""
        prepared = self.prepared
        manager = prepared.cgroup
        if self.has_cgroup:
            manager = cgroups.load(self._renamed(manager.to_state(), number))
        return Prepared(prepared.spec, prepared.facts, plan, manager, prepared.limits)

    def _renamed(self, value: Any, number: int) -> Any:
        """A text, or a manager's state, with the id of a run in place of that of run 0."""
        if isinstance(value, str):
            return value.replace(self.id_of(0), self.id_of(number))
        if isinstance(value, dict):
            return {key: self._renamed(item, number) for key, item in value.items()}
        if isinstance(value, list):
            return [self._renamed(item, number) for item in value]
        return value


def direct(prepared: Prepared) -> tuple[Plan, int]:
    """The plan without the stops at which rt-init has to wait for nothing, and where it waited for `start`.

    There is no `start`, and where rt-init may write the id maps itself (`clone_mapped`), nothing is to be
    done from outside but the cgroup, if the process is not made in it.
    """
    plan, facts = copy.copy(prepared.plan), prepared.facts
    maps = own_maps(prepared)
    by_itself = facts.cgroup.enter_by_clone or facts.cgroup.task_files
    enters = prepared.cgroup.kind != "none" and not by_itself
    without_maps = plan.uid_map is None or maps is not None
    tolerated = {
        id(op): plan.tolerated[index] for index, op in enumerate(plan.ops) if index in plan.tolerated
    }
    ops: list[Op] = []
    start = 0
    for op in made_first(prepared):
        if op.name == "wait_start":
            start = len(ops)
        if op.name == "clone" and maps is not None:
            op = Op("clone_mapped", *op.args, *maps, label=op.label)
            plan.uid_map = plan.gid_map = None
        stop = op.name == "sync" and op.args[0] == SYNC_MAPS
        if op.name != "wait_start" and not (stop and without_maps and not enters):
            ops.append(op)
    plan.ops = ops
    plan.tolerated = {index: tolerated[id(op)] for index, op in enumerate(ops) if id(op) in tolerated}
    return plan, start


def made_first(prepared: Prepared) -> list[Op]:
    """The ops, what sets limits of the process behind that which makes it, where that takes no privilege."""
    ops, facts = prepared.plan.ops, prepared.facts
    count = next(index for index, op in enumerate(ops) if op.name not in ("oom_score_adj", "rlimit"))
    privileged = facts.initial_userns and facts.capabilities & CAP_SYS_RESOURCE
    if privileged or ops[count].name != "clone":
        return ops
    return [ops[count], *ops[:count], *ops[count + 1 :]]


def first_of(plan: Plan) -> bytes | None:
    """The plan's first op as a plan of its own, if it makes the process and has no descriptor of a cgroup."""
    op = plan.ops[0]
    if op.name not in ("clone", "clone_mapped") or op.args[1] != NO_SLOT:
        return None
    wire = encode([op])
    return wire if len(wire) <= _MOST_FIRST else None


def own_maps(prepared: Prepared) -> tuple[str, str, int] | None:
    """What `clone_mapped` has to write: maps of uids and gids, and whether setgroups is denied.

    Where the helpers are needed, that is in a user namespace which has the maps already: each id is itself
    there. None where there is nothing to map, or this process has to do it.
    """
    plan, facts = prepared.plan, prepared.facts
    if plan.uid_map is None or plan.gid_map is None or plan.lent or not facts.initial_userns:
        return None
    if needs_helpers(prepared):
        same = [[(inside, inside, count) for inside, _, count in plan_map] for plan_map in _maps(plan)]
        uids, gids = (format_map(lines).decode() for lines in same)
        return uids, gids, 0 if plan.set_groups else 1
    if not _are_own(prepared):
        return None
    uids, gids = (format_map(lines).decode() for lines in _maps(plan))
    return uids, gids, 0 if plan.set_groups and facts.can_map_all else 1


def needs_helpers(prepared: Prepared) -> bool:
    """Whether newuidmap and newgidmap have to write the maps."""
    plan, facts = prepared.plan, prepared.facts
    if plan.uid_map is None or plan.gid_map is None or plan.lent:
        return False
    return facts.initial_userns and not facts.can_map_all and not _are_own(prepared)


def _are_own(prepared: Prepared) -> bool:
    """Whether only the caller's own uid and gid are mapped, which takes no privilege."""
    uids, gids = _maps(prepared.plan)
    own = prepared.facts.euid, prepared.facts.egid
    return len(uids) == len(gids) == 1 and (uids[0][1:], gids[0][1:]) == ((own[0], 1), (own[1], 1))


def is_root_already(prepared: Prepared) -> bool:
    """Whether the op `become` changes nothing: what is made before it belongs to whom it should."""
    facts = prepared.facts
    if not any(op.name == "become" for op in prepared.plan.ops):
        return True
    return [to_outside(extents, 0) for extents in _maps(prepared.plan)] == [facts.euid, facts.egid]


def _maps(plan: Plan) -> tuple[list[Extent], list[Extent]]:
    return plan.uid_map or [], plan.gid_map or []


def path_of(env: list[str]) -> str:
    """Where programs without a slash in their name are looked for."""
    for entry in reversed(env):
        if entry.startswith("PATH="):
            return entry[5:]
    return DEFAULT_PATH
