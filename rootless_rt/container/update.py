"""Changing the limits of a container that has been made: what it has now, what is asked, and all or nothing.

What was changed is remembered in the state (`resources`): a later update builds on it, not on the config.
Loaded by `update` alone.
"""

from __future__ import annotations

from rootless_rt.cgroups import fs
from rootless_rt.cgroups.change import Change, folder_of
from rootless_rt.cgroups.limits import ROOT, compile_limits
from rootless_rt.cgroups.merge import asked_of, before, completed, merged
from rootless_rt.container import signals
from rootless_rt.container.lifecycle import lock_in_time, status_of
from rootless_rt.container.record import manager
from rootless_rt.container.store import CONFIG, Handle, Store, check_id, missing
from rootless_rt.errors import RtError, SpecError
from rootless_rt.spec import schema
from rootless_rt.spec.load import checked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rootless_rt import cgroups
    from rootless_rt.cgroups.limits import Limit

    Resources = dict[str, Any]
    Warn = Callable[[str], None]

_NONE = ("max", "-1")  # how a limit says that there is none


class Wanted:
    """What is asked: `resources` that the schema accepted, lines for the `schemata` of resctrl.

    `label` makes of a JSON path what errors call the value: its option, or its place in a file.
    """

    __slots__ = ("label", "resources", "schemata")

    def __init__(self, resources: Resources, schemata: list[str], label: Callable[[str], str]) -> None:
        self.resources = resources
        self.schemata = schemata
        self.label = label


def update(store: Store, container_id: str, wanted: Wanted, warn: Warn) -> None:
    """Change the limits of a container that is created, running or paused. Raises RtError: none has."""
    handle = store.open(check_id(container_id))
    try:
        if not lock_in_time(handle):
            raise missing(container_id)
        state = handle.read_state()
        status = status_of(handle, state)
        if status not in ("created", "running", "paused"):
            raise RtError(
                f'container not running: "{container_id}" is {status}', hint="rt list shows what runs"
            )
        with signals.held():
            _update(handle, state, wanted, warn)
    finally:
        handle.close()


def _update(handle: Handle, state: dict[str, Any], wanted: Wanted, warn: Warn) -> None:
    current = _current(handle, state)
    asked = asked_of(wanted.resources)
    cgroup = manager(state)
    result = merged(current, asked)
    asked = completed(current, asked)
    limits = _limits(cgroup, asked, wanted.label, warn)
    _check_usage(cgroup, asked, result, wanted.label)
    tell: Any = getattr(cgroup, "update", None)
    change = Change(cgroup, limits)
    try:
        if tell is not None and asked:
            tell(asked)
        change.make()
        # Values that follow from others, such as the end of being idle, are the container's as well.
        handle.write_state({**state, "resources": merged(result, asked)})
        if wanted.schemata:
            _share(handle, state, wanted.schemata)
    except BaseException as error:
        if tell is not None and asked:
            _tell_again(tell, before(current, asked))
        left = change.undo()
        _forget(handle, state)
        if left and isinstance(error, RtError):
            error.hint = f"these could not be set back: {', '.join(left)}"
        raise


def _tell_again(tell: Any, resources: Resources) -> None:
    try:
        tell(resources)
    except RtError:
        return  # the error that is under way is the one that counts


def _forget(handle: Handle, state: dict[str, Any]) -> None:
    try:
        handle.write_state(state)
    except RtError:
        return


def _current(handle: Handle, state: dict[str, Any]) -> Resources:
    """The container's resources: as last updated, else as its config has them."""
    if "resources" in state:
        found: Resources = state["resources"]
        return found
    try:
        config = checked(handle.read(CONFIG), CONFIG, schema.CONFIG)
    except FileNotFoundError:
        return {}
    resources: Resources = config.get("linux", {}).get("resources", {})
    return resources


def _limits(
    cgroup: cgroups.Manager, asked: Resources, label: Callable[[str], str], warn: Warn
) -> list[Limit]:
    """The limits to write. Raises RtError for what no kernel takes, or what this cgroup cannot have."""
    try:
        compiled = compile_limits(asked, cgroup.version or 2)
    except SpecError as error:
        problem = error.message.removeprefix(f"config.json: {error.path}: ")
        raise RtError(f"{label(error.path)}: {problem}", hint=error.hint) from None
    lacking = cgroup.lacking({limit.controller for limit in compiled.limits})
    kept = []
    for limit in compiled.limits:
        asked_for = limit.writes[0][1].partition(" ")[0]
        name = label(limit.field)
        if limit.controller not in lacking:
            limit.field = name
            kept.append(limit)
        elif not limit.optional and asked_for not in _NONE:
            why, fix = lacking[limit.controller]
            raise RtError(f"{name}: {limit.asked} is not possible: {why}", hint=fix or None)
    for field, text in compiled.notes:
        warn(f"{label(field)}: {text}")
    return kept


def _check_usage(
    cgroup: cgroups.Manager, asked: Resources, result: Resources, label: Callable[[str], str]
) -> None:
    """Where `checkBeforeUpdate` is set: refuse limits below what is in use, which would kill processes."""
    memory = asked.get("memory", {})
    folder = folder_of(cgroup)("memory")
    if folder is None or not result.get("memory", {}).get("checkBeforeUpdate"):
        return
    from rootless_rt.cgroups.stats import single

    used = _first(folder, "memory.current", "memory.usage_in_bytes")
    swapped = _first(folder, "memory.swap.current")
    both = _first(folder, "memory.memsw.usage_in_bytes")
    usage = single(used)
    total = single(both) if both is not None else usage + single(swapped)
    for name, now in (("limit", usage), ("swap", total)):
        if 0 < memory.get(name, 0) < now:
            raise RtError(
                f"{label(f'{ROOT}.memory.{name}')}: {memory[name]} is below what is in use, {now}",
                hint="choose a higher limit, or end processes in the container first",
            )


def _first(folder: str, *names: str) -> bytes | None:
    for name in names:
        data = fs.read_bytes(f"{folder}/{name}")
        if data is not None:
            return data
    return None


def _share(handle: Handle, state: dict[str, Any], lines: list[str]) -> None:
    """Write new schemata for the container's group of resctrl. Raises RtError."""
    from rootless_rt.cgroups import resctrl

    if resctrl.mount_point() is None:
        raise RtError(
            "no resctrl file system is mounted",
            hint="mount -t resctrl resctrl /sys/fs/resctrl, on a machine whose processor and kernel have it",
        )
    group = resctrl.load(state["rdt"], handle.id) if "rdt" in state else None
    if group is None or not group.made:
        raise RtError(
            "the container has no group of its own in resctrl",
            hint="make it with linux.intelRdt in its config, and without closID",
        )
    group.change(lines)
