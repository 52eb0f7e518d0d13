"""The plan of a container that runs, kept for the launcher: the next `rt run` of it needs no interpreter.

Theory of operation: a plan depends on the config and on the facts of host and caller, on nothing else. When a
plain `rt run` has got its program running, the plan is written down in the user's cache, with the very bytes
of the config and with the *evidence*: everything that was looked at to make it, as it was found
(`evidence`). The launcher (`cli/kept*.c`) compares all of that with what it finds itself, and only if nothing
has changed does it perform the plan again. Whatever is not plain is not kept, and when anything goes wrong
before the program runs, the launcher takes it back and starts Python, which begins at the beginning and
explains. So it is with a plain `rt exec`: which namespaces are joined, and the maps of the user namespace
among them, are part of the evidence then, and the command's words are left out of the plan. Must not know how
a plan is made, nor the bytes of what is kept: see `kept_form`.
"""

from __future__ import annotations

import posix

from rootless_rt import paths
from rootless_rt.container import evidence
from rootless_rt.container.kept_form import (
    EXEC_PREFIX,
    FLAGS,
    FOLDER,
    HASHED,
    MAPS,
    compiled,
    file_name,
    tolerated,
    with_holes,
    without_id,
    without_words,
)
from rootless_rt.container.record import has_cgroup
from rootless_rt.container.shortcut import listed
from rootless_rt.spec.names import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rootless_rt.container.create import Container
    from rootless_rt.container.prepare import Options, Prepared
    from rootless_rt.host.facts import HostFacts
    from rootless_rt.spec.load import Spec


def keep(container: Container, prepared: Prepared, options: Options) -> None:
    """Keep the plan of a container whose program runs, if it is plain. Never fails: it is only for speed."""
    if not is_plain(container, prepared, options):
        return
    spec = prepared.spec

    def made() -> bytes | None:
        flags, maps = _maps(prepared)
        found = evidence.gather(
            spec.data, prepared.facts, helpers=any(maps[2:]), cgroups_at=prepared.cgroup.paths,
            asks_systemd=options.cgroup_manager == "auto",
        )  # fmt: skip
        if found is None:
            return None
        by_id = prepared.cgroup.paths if not _cgroups_path(spec) else []
        wire, ids = without_id(prepared.plan.ops, container.handle.id, by_id)
        return compiled(
            {
                "bundle": paths.fsencode(spec.bundle),
                "config": spec.raw,
                "rootfs": paths.fsencode(spec.rootfs),
                "plan": wire,
                "state": with_holes(container.state, by_id=bool(by_id)),
                "ids": ids,
                "tolerated": tolerated(prepared.plan),
                "evidence": found,
                **{name: paths.fsencode(text) for name, text in zip(MAPS, maps, strict=True)},
                **_of_cgroups(prepared, options),
            },
            (flags, 0, 0),
        )

    _keep(file_name(paths.fsencode(spec.bundle)), made)


def keep_exec(container: Container, document: bytes = b"") -> None:
    """The same with the plan of a process that was added to a container.

    `document` is what --process names, the words of the command included.
    """
    facts = container.facts
    if facts is None or not is_plain_exec(container, facts):
        return
    spec, first = container.spec, container.state["pid"]

    def made() -> bytes | None:
        found = evidence.gather(spec.data, facts, added=True)
        if found is None:
            return None
        if document:
            wire, ids = without_id(container.plan.ops, container.handle.id)
            places = (0, 0)
        else:
            wire, ids, places = without_words(container.plan.ops, container.handle.id)
        joined = listed([paths.basename(path) for _, path in container.plan.fds])
        return compiled(
            {
                "config": spec.raw,
                "process": document,
                "plan": wire,
                "ids": ids,
                "manager": _manager(container.options),
                "joined": joined,
                "tolerated": tolerated(container.plan),
                "evidence": found,
                **{name: evidence.read(f"/proc/{first}/{name}") for name in ("uid_map", "gid_map")},
            },
            (FLAGS["EXEC"], *places),
        )

    _keep(EXEC_PREFIX + file_name(spec.raw[:HASHED] + document[:HASHED]), made)


def _keep(name: str, made: Callable[[], bytes | None]) -> None:
    from rootless_rt.host import cache

    try:
        data = made()
        place = None if data is None else cache.default_cache_dir(paths.environment(), FOLDER)
        directory = -1 if place is None else cache.open_directory(place)[0]
    except OSError:
        return  # something has gone meanwhile: the next time takes as long as this one
    if data is None or directory < 0:
        return
    try:
        cache.store(directory, name, data)
    finally:
        posix.close(directory)


def is_plain(container: Container, prepared: Prepared, options: Options) -> bool:
    """Whether the launcher could do all of what this container took, and nothing had to be said of it."""
    plan, spec, facts = prepared.plan, prepared.spec, prepared.facts
    asked = (
        options.console_socket, options.pidfd_socket, options.pid_file, options.keep_fds,
        options.listen_fds, options.keep_groups, options.network, options.notify, options.stdio,
        options.debug, options.start_later,
    )  # fmt: skip
    return (
        not any(asked)
        and options.overlay is None
        and options.new_keyring
        and options.pivot
        and options.foreground
        and _is_plain_cgroup(prepared)
        and not prepared.limits
        and prepared.outside is None
        and container.served is None
        and container.console < 0
        and plan.own_pid
        and all(kind in ("into-cgroup", "tasks") for kind, _ in plan.fds)
        and not (plan.lent or plan.tuning or plan.outside or plan.notifies)
        and not (plan.degradations or plan.warnings)
        and not (spec.changes or any(spec.data.get("hooks", {}).values()))
        and not (facts.lsm or facts.join_order or spec.data["process"].get("scheduler"))
    )


def is_plain_exec(process: Container, facts: HostFacts) -> bool:
    """Whether the launcher could do all of what this process took, and nothing had to be said of it."""
    plan, spec, options = process.plan, process.spec, process.options
    namespaces = spec.data.get("linux", {}).get("namespaces", [])
    given = spec.data["process"]
    asked = (
        options.console_socket, options.pidfd_socket, options.pid_file, options.keep_fds, options.listen_fds,
        options.keep_groups, options.stdio, options.debug, options.below, process.state.get("keepGroups"),
    )  # fmt: skip
    return (
        not any(asked)
        and options.new_keyring
        and options.foreground
        and process.console < 0
        and not has_cgroup(process.state)
        and "rdt" not in process.state
        and all(kind in NAMESPACES for kind, _ in plan.fds)
        and not any(entry.get("path") for entry in namespaces)
        and not (plan.tuning or plan.notifies or plan.degradations or plan.warnings)
        and not (facts.lsm or given.get("scheduler") or given.get("execCPUAffinity"))
    )


def _is_plain_cgroup(prepared: Prepared) -> bool:
    """Whether it has none, or those of v1 that root makes, all of one name in directories that are there.

    Device rules are then written there, too: they are no matter of a program for the tree of v2 beside.
    """
    cgroup, facts = prepared.cgroup, prepared.facts
    if cgroup.kind == "none":
        return not _cgroups_path(prepared.spec)
    return (
        cgroup.kind == "v1"
        and facts.euid == 0
        and facts.initial_userns
        and "parents" not in cgroup.to_state()
        and not cgroup.reason
        and (not _device_rules(prepared.spec) or _holds_devices(prepared))
        and len({paths.basename(path) for path in cgroup.paths}) == 1
    )


def _cgroups_path(spec: Spec) -> str:
    found: str = spec.data.get("linux", {}).get("cgroupsPath") or ""
    return found


def _holds_devices(prepared: Prepared) -> bool:
    return any("devices" in names.split(",") for names in prepared.cgroup.to_state()["paths"])


def _device_rules(spec: Spec) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = spec.data.get("linux", {}).get("resources", {}).get("devices") or []
    return found


def _of_cgroups(prepared: Prepared, options: Options) -> dict[str, bytes]:
    """Where cgroups are made, what is written there, and what of them the plan is given."""
    if prepared.cgroup.kind == "none":
        return {"manager": _manager(options)}
    from rootless_rt.cgroups import devices

    settings = []
    for names, path in prepared.cgroup.to_state()["paths"].items():
        above = paths.dirname(path)
        if "cpuset" in names.split(","):
            for name in evidence.CPUSET:
                settings.append((above, name, evidence.read(f"{path}/{name}").decode().strip()))
        rules = _device_rules(prepared.spec)
        if rules and "devices" in names.split(","):
            settings += [(above, name, line) for name, line in devices.v1_writes(rules)]
    unified = prepared.cgroup.to_state()["paths"].get("unified", "")
    slots = [
        (paths.dirname(unified), "")
        if kind == "into-cgroup"
        else (paths.dirname(paths.dirname(path)), "tasks")
        for kind, path in prepared.plan.fds
    ]
    return {
        "manager": _manager(options),
        "cgroups": listed([paths.dirname(path) for path in prepared.cgroup.paths]),
        "cgroup_name": paths.fsencode(paths.basename(_cgroups_path(prepared.spec).rstrip("/"))),
        "settings": listed([word for setting in settings for word in setting]),
        "slots": listed([word for slot_ in slots for word in slot_]),
    }


def _manager(options: Options) -> bytes:
    """What --cgroup-manager said; not to say it, and to say "auto", are the same."""
    return b"" if options.cgroup_manager == "auto" else options.cgroup_manager.encode()


def _maps(prepared: Prepared) -> tuple[int, list[str]]:
    """(flags, [uid map, gid map, command for the uid map, for the gid map]): of each pair one is empty.

    A command is its words, each ended by a NUL, with the process id left out.
    """
    from idmap.write import way

    plan, facts = prepared.plan, prepared.facts
    if plan.uid_map is None or plan.gid_map is None:
        return 0, ["", "", "", ""]
    chosen = way(
        plan.uid_map,
        plan.gid_map,
        euid=facts.euid,
        egid=facts.egid,
        privileged=facts.can_map_all,
        setgroups=None if plan.set_groups else "deny",
    )
    texts = [chosen.texts.get("uid", ""), chosen.texts.get("gid", "")]
    for kind in ("uid", "gid"):
        program, *rest = chosen.commands.get(kind, [""])
        texts.append("".join(word + "\0" for word in (program, *rest)) if program else "")
    return FLAGS["MAPS"] | (FLAGS["DENY_GROUPS"] if chosen.denies else 0), texts
