"""What a state file may say: it decides whom `kill` and `delete` signal and what they remove.

Knows the types of its fields, and what a directory must be to pass for the container's cgroup. Must not know
where the file is kept. A wrong record comes from a full disk, another program or a hand, not from `rt`: it is
never guessed at, but `delete --force` uses the parts that are sound.
"""

from __future__ import annotations

import posix

from rootless_rt import paths
from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_rt import cgroups
    from rootless_rt.container.prepare import Options, Prepared

_FIELDS = {
    "id": str,
    "ociVersion": str,
    "phase": str,
    "pid": int,
    "startTime": str,
    "bootId": str,
    "bundle": str,
    "rootfs": str,
    "created": str,
    "annotations": dict,
    "ownPid": bool,
    "maker": dict,
    "cgroup": dict,
    "degraded": list,
}
_IDENTITY = ("pid", "startTime", "bootId")
_PID_LIMIT = 1 << 31
DEGRADED = "org.rootless-rt.degraded"
"""The annotation of `rt state` that lists the JSON paths of what differs from what was asked."""


def new_state(prepared: Prepared, container_id: str, options: Options) -> dict[str, Any]:
    """The record of a container that is about to be made by this process."""
    from rootless_rt.container import processes
    from rootless_rt.spec.times import now

    config = prepared.spec.data
    state: dict[str, Any] = {
        "version": 1,
        "id": container_id,
        "ociVersion": config["ociVersion"],
        "phase": "creating",
        "pid": 0,
        "startTime": "",
        "bootId": "",
        "bundle": prepared.spec.bundle,
        "rootfs": prepared.spec.rootfs,
        "created": now(),
        "annotations": config.get("annotations", {}),
        "ownPid": prepared.plan.own_pid,
        "maker": processes.identity(posix.getpid()),
        "cgroup": prepared.cgroup.to_state(),
        "degraded": [item.as_dict() for item in prepared.plan.degradations],
    }
    if options.keep_groups:
        state["keepGroups"] = True  # for `exec`, which has to do the same
    if prepared.plan.listens:
        # For `start`, which has to explain a failure of these.
        first = next(index for index, op in enumerate(prepared.plan.ops) if op.name == "wait_start")
        rest = [[op.name, op.label] for op in prepared.plan.ops[first:]]
        state["startOps"] = {"first": first, "ops": rest}
    if prepared.outside is not None:
        prepared.outside.note(state)
    return state


def wrong_field(state: object) -> str | None:
    """The first field that is missing or of the wrong type; None for a sound record."""
    if type(state) is not dict:
        return "the whole"
    for name, kind in _FIELDS.items():
        if type(state.get(name)) is not kind:
            return name
    if not _is_identity(state):
        return "pid"
    if not _is_identity(state["maker"]):
        return "maker"
    if "startOps" in state and not _are_ops(state["startOps"]):
        return "startOps"
    if "rdt" in state and _is_wrong_rdt(state["rdt"]):
        return "rdt"
    if "network" in state and _is_wrong_network(state["network"]):
        return "network"
    if "resources" in state and _are_wrong_resources(state["resources"]):
        return "resources"
    return None


def _is_wrong_rdt(value: object) -> bool:
    from rootless_rt.cgroups.resctrl import wrong_state

    return wrong_state(value)


def _is_wrong_network(value: object) -> bool:
    """Whether this names no program that `delete` could have to end."""
    return type(value) is not dict or type(value.get("kind")) is not str or not _is_identity(value)


def _are_wrong_resources(value: object) -> bool:
    """Whether these are no limits that `update` could have written down."""
    from rootless_rt.errors import SpecError
    from rootless_rt.spec.schema import RESOURCES, check

    try:
        check(value, RESOURCES)
    except SpecError:
        return True
    return False


def _is_identity(of: dict[str, Any]) -> bool:
    pid, started, boot = (of.get(name) for name in _IDENTITY)
    return type(pid) is int and 0 <= pid < _PID_LIMIT and type(started) is str and type(boot) is str


def _are_ops(value: object) -> bool:
    if type(value) is not dict:
        return False
    first, ops = value.get("first"), value.get("ops")
    if type(first) is not int or not 0 <= first < 1 << 16 or type(ops) is not list:
        return False
    return all(type(op) is list and len(op) == 2 and type(op[0]) is type(op[1]) is str for op in ops)


def salvage(state: object, container_id: str) -> dict[str, Any]:
    """A sound record from what is sound of this one: with no process, and no cgroup, where that is not."""
    given = state if type(state) is dict else {}
    sound: dict[str, Any] = {name: kind() for name, kind in _FIELDS.items()}
    for name, kind in _FIELDS.items():
        if type(given.get(name)) is kind:
            sound[name] = given[name]
    if not _is_identity(given):
        sound.update(pid=0, startTime="", bootId="")
    if not _is_identity(sound["maker"]):
        sound["maker"] = {"pid": 0, "startTime": "", "bootId": ""}
    try:
        manager(sound)
    except RtError:
        sound["cgroup"] = {"kind": "none"}
    if "rdt" in given and not _is_wrong_rdt(given["rdt"]):
        sound["rdt"] = given["rdt"]
    if "network" in given and not _is_wrong_network(given["network"]):
        sound["network"] = given["network"]
    sound["id"] = container_id
    # Whether it had a pid namespace is not known; without, only its cgroup tells all its processes.
    sound["ownPid"] = given.get("ownPid") is True
    return sound


def shown(state: dict[str, Any], status: str) -> dict[str, Any]:
    """What `rt state` prints of a sound record, in runc's order of keys."""
    public: dict[str, Any] = {
        "ociVersion": state["ociVersion"],
        "id": state["id"],
        "pid": 0 if status == "stopped" else state["pid"],
        "status": status,
        "bundle": state["bundle"],
        "rootfs": state["rootfs"],
        "created": state["created"],
    }
    annotations = dict(state["annotations"])
    if state["degraded"]:
        # For engines, which pass annotations on and know no more.
        fields = [str(item.get("field")) for item in state["degraded"] if isinstance(item, dict)]
        annotations[DEGRADED] = ",".join(dict.fromkeys(fields))
    if annotations:
        public["annotations"] = annotations
    public["owner"] = ""
    if state.get("keepGroups"):
        public["keepGroups"] = True
    if state["degraded"]:
        public["degraded"] = state["degraded"]
    return public


def has_cgroup(state: dict[str, Any]) -> bool:
    """Whether the container was given a cgroup."""
    return bool(state["cgroup"].get("kind", "none") != "none")


def manager(state: dict[str, Any]) -> cgroups.Manager:
    """The manager of the container's cgroup. Raises RtError for a record of what cannot be one.

    A directory that exists must be of a cgroup file system, and neither ours nor above ours: all processes in
    it are going to be killed, all directories below it removed.
    """
    from rootless_rt import cgroups

    if not has_cgroup(state):
        return cgroups.load({"kind": "none"})
    found = cgroups.load(state["cgroup"])
    view = cgroups.view()
    devices: dict[int, set[str]] = {}
    for controller, mount in [*view.mounts.items(), ("", view.unified or "")]:
        try:
            device = posix.stat(mount).st_dev
        except OSError:
            continue
        devices.setdefault(device, set()).update({mount, view.own_dir(controller) or mount})
    for path in found.paths:
        if not _may_be_ours(path, devices):
            raise RtError(
                f"state: cgroup: {path} is no cgroup of a container",
                hint="remove the container: rt delete --force " + state["id"],
            )
    return found


def _may_be_ours(path: str, devices: dict[int, set[str]]) -> bool:
    if "\0" in path or paths.normal(path) != path:
        return False
    try:
        device = posix.stat(path, follow_symlinks=False).st_dev
    except (FileNotFoundError, NotADirectoryError):
        return True  # nothing can be done to it
    except OSError:
        return False
    protected = devices.get(device)
    return protected is not None and not any((own + "/").startswith(path + "/") for own in protected)
