"""What the fields of a config.json mean together: the checks that no single type can express.

Pure: opens nothing, knows nothing of the host. Whether a container may be made *here* is the plan's question;
these are the configs that are wrong or dangerous anywhere. Runs after `schema`: types are right here.
"""

from __future__ import annotations

from rootless_rt.errors import SpecError
from rootless_rt.spec import names
from rootless_rt.spec.jsonio import quote
from rootless_rt.spec.mountopts import asks_for_map, parse_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ID_MAX = 0xFFFFFFFF  # as an id: "leave unchanged" to the kernel, never an id of its own
_MAP_LINES = 340  # UID_GID_MAP_MAX_EXTENTS, user_namespaces(7)
_NAME_MAX = 64  # __NEW_UTS_LEN, of host and domain names


def check_config(config: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Check a whole config that `schema.CONFIG` accepted.

    Returns notes, (JSON path, text), on what is accepted but discouraged.
    Raises SpecError with the JSON path of the first problem.
    """
    notes: list[tuple[str, str]] = []
    linux = config.get("linux", {})
    namespaces = _check_namespaces(linux.get("namespaces", []))
    _check_user_mappings(linux, namespaces)
    _check_time(linux.get("timeOffsets", {}), namespaces)
    _check_names(config, namespaces)
    _check_process(config["process"], "process", notes)
    _check_mounts(config.get("mounts", []), notes)
    _check_hooks(config.get("hooks", {}))
    _check_sysctls(linux.get("sysctl", {}), namespaces)
    _check_hidden_paths(linux, namespaces)
    _check_devices(linux.get("devices", []))
    if linux.get("mountLabel"):
        from rootless_rt.spec.labels import check_mount_context

        check_mount_context(linux["mountLabel"])
    if "resources" in linux:
        check_resources(linux["resources"], "linux.resources")
    if "seccomp" in linux:
        _check_seccomp(linux["seccomp"], notes)
    if linux.get("netDevices") or linux.get("intelRdt"):
        from rootless_rt.spec.outside import check_outside

        check_outside(linux, namespaces)
    if any(linux.get(key) for key in ("memoryPolicy", "personality")) or config["process"].get("scheduler"):
        from rootless_rt.spec import tuning

        tuning.check_config(config, notes)
    if names.LANDLOCK in config.get("annotations", {}):
        from rootless_rt.spec.landlock import landlock_of

        landlock_of(config)
    return tuple(notes)


def check_process(process: dict[str, Any], path: str = "process") -> tuple[tuple[str, str], ...]:
    """Check a process object that `schema.PROCESS` accepted, of a config or of `exec --process`.

    `path` is its JSON path. Returns notes and raises as `check_config`.
    """
    notes: list[tuple[str, str]] = []
    _check_process(process, path, notes)
    return tuple(notes)


def check_resources(resources: dict[str, Any], path: str = "linux.resources") -> None:
    """Check a resources object that `schema.RESOURCES` accepted. Raises SpecError."""
    for index, rule in enumerate(resources.get("devices", [])):
        where = f"{path}.devices[{index}]"
        access = rule.get("access", "")
        if set(access) - set("rwm"):
            raise SpecError(f"{where}.access", f"expected letters of rwm, got {quote(access)}")
        for key in ("major", "minor"):
            if not -1 <= rule.get(key, -1) < 1 << 32:
                raise SpecError(
                    f"{where}.{key}", f"expected a number from -1 (any) to 4294967295, got {rule[key]}"
                )


def _check_namespaces(namespaces: list[dict[str, Any]]) -> dict[str, str]:
    """Returns type -> path of the namespaces, "" for a new one."""
    found: dict[str, str] = {}
    for index, item in enumerate(namespaces):
        where = f"linux.namespaces[{index}]"
        kind = item["type"]
        if kind in found:
            raise SpecError(where, f"a second {quote(kind)} namespace")
        found[kind] = item.get("path", "")
        if found[kind]:
            _check_absolute(found[kind], f"{where}.path")
    return found


def _check_user_mappings(linux: dict[str, Any], namespaces: dict[str, str]) -> None:
    new_user = namespaces.get("user") == ""
    for key in ("uidMappings", "gidMappings"):
        path = f"linux.{key}"
        mappings = linux.get(key, [])
        if mappings and "user" not in namespaces:
            raise SpecError(
                path,
                "needs a user namespace",
                hint='add {"type": "user"} to linux.namespaces, or remove the mappings',
            )
        if new_user and not mappings:
            raise SpecError(
                path,
                "a new user namespace needs at least one mapping",
                hint='map root to yourself: [{"containerID": 0, "hostID": YOUR_ID, "size": 1}]; '
                "rt spec --rootless does it",
            )
        if len(mappings) > _MAP_LINES:
            raise SpecError(path, f"{len(mappings)} mappings, the kernel takes {_MAP_LINES}")
        for side in ("containerID", "hostID"):
            _check_ranges(mappings, side, path)


def _check_ranges(mappings: list[dict[str, int]], side: str, path: str) -> None:
    """Ranges of one side of an id map: not empty, inside 32 bits, apart from each other."""
    ranges = sorted((item[side], item["size"], index) for index, item in enumerate(mappings))
    free, before = 0, -1
    for first, size, index in ranges:
        if not size:
            raise SpecError(f"{path}[{index}].size", "expected at least 1, got 0")
        if first + size > _ID_MAX:
            raise SpecError(
                f"{path}[{index}]", f"{side} {first} with size {size} goes beyond the last id, {_ID_MAX - 1}"
            )
        if first < free:
            raise SpecError(f"{path}[{index}]", f"its {side} range overlaps that of {path}[{before}]")
        free, before = first + size, index


def _check_time(offsets: dict[str, dict[str, int]], namespaces: dict[str, str]) -> None:
    for clock, offset in offsets.items():
        where = f"linux.timeOffsets[{quote(clock)}]"
        if clock not in ("monotonic", "boottime"):
            raise SpecError(where, "no such clock", hint="monotonic and boottime can be set")
        if namespaces.get("time") != "":
            fix = 'add {"type": "time"} to linux.namespaces'
            if "time" in namespaces:
                fix = "the one that is joined has its own offsets: remove these, or its path"
            raise SpecError(where, "needs a new time namespace", hint=fix)
        if offset.get("nanosecs", 0) >= 10**9:
            raise SpecError(f"{where}.nanosecs", f"expected less than a second, got {offset['nanosecs']}")


def _check_names(config: dict[str, Any], namespaces: dict[str, str]) -> None:
    for key in ("hostname", "domainname"):
        name = config.get(key, "")
        if name and "uts" not in namespaces:
            raise SpecError(
                key,
                "needs a uts namespace",
                hint=f'add {{"type": "uts"}} to linux.namespaces, or remove the {key}',
            )
        if len(name.encode()) > _NAME_MAX:
            raise SpecError(key, f"longer than {_NAME_MAX} bytes")


def _check_process(process: dict[str, Any], path: str, notes: list[tuple[str, str]]) -> None:
    if not process.get("args"):
        raise SpecError(f"{path}.args", "expected at least one argument, the program to run")
    if not process["args"][0]:
        raise SpecError(f"{path}.args[0]", "the name of the program is empty")
    _check_absolute(process["cwd"], f"{path}.cwd")
    for index, entry in enumerate(process.get("env", [])):
        if entry.find("=") < 1:
            raise SpecError(f"{path}.env[{index}]", f"expected NAME=value, got {quote(entry)}")
    user = process.get("user", {})
    for key in ("uid", "gid"):
        _check_id(user.get(key, 0), f"{path}.user.{key}")
    for index, gid in enumerate(user.get("additionalGids", [])):
        _check_id(gid, f"{path}.user.additionalGids[{index}]")
    for kind, listed in process.get("capabilities", {}).items():
        for index, name in enumerate(listed if kind in names.CAPABILITY_SETS else ()):
            if name not in names.CAPABILITIES:
                notes.append(
                    (f"{path}.capabilities.{kind}[{index}]", f"unknown capability {quote(name)}, ignored")
                )
    seen: set[str] = set()
    for index, limit in enumerate(process.get("rlimits", [])):
        where = f"{path}.rlimits[{index}]"
        if limit["type"] in seen:
            raise SpecError(f"{where}.type", f"a second {limit['type']}")
        seen.add(limit["type"])
        if limit["soft"] > limit["hard"]:
            raise SpecError(f"{where}.soft", f"{limit['soft']} is above the hard limit {limit['hard']}")
    if process.get("apparmorProfile") or process.get("selinuxLabel"):
        from rootless_rt.spec.labels import check_process_labels

        check_process_labels(process, path)
    if any(process.get(key) for key in ("scheduler", "ioPriority", "execCPUAffinity")):
        from rootless_rt.spec import tuning

        tuning.check_process(process, path, notes)


def _check_id(number: int, path: str) -> None:
    if number == _ID_MAX:
        raise SpecError(path, f"{_ID_MAX} is no id: the kernel reads it as -1, leave unchanged")


def _check_absolute(path: str, where: str) -> None:
    if not path.startswith("/"):
        raise SpecError(where, f"expected an absolute path, got {quote(path)}")


def _check_mounts(mounts: list[dict[str, Any]], notes: list[tuple[str, str]]) -> None:
    for index, mount in enumerate(mounts):
        where = f"mounts[{index}]"
        destination = mount["destination"]
        if not destination:
            raise SpecError(f"{where}.destination", "is empty")
        if not destination.startswith("/"):
            notes.append((f"{where}.destination", f"{quote(destination)} is relative, taken as below /"))
        options = parse_options(mount.get("options", []), f"{where}.options", mount.get("type", ""))
        if options.bind and not mount.get("source"):
            raise SpecError(f"{where}.source", "a bind mount needs a source")
        _check_idmap(mount, where, options.bind)


def _check_idmap(mount: dict[str, Any], where: str, bind: bool) -> None:
    if not asks_for_map(mount):
        return
    from rootless_rt.spec.idmaps import idmap_of

    asked = idmap_of(mount, where)
    if asked is None:
        return
    if not bind:
        raise SpecError(where, "only a bind mount can have its ids mapped")
    for field, lines in (("uidMappings", asked.uids), ("gidMappings", asked.gids)):
        listed = [{"containerID": a, "hostID": b, "size": n} for (a, b, n), relative in lines or []]
        path = f"{where}.{field}"
        if len(listed) > _MAP_LINES:
            raise SpecError(path, f"{len(listed)} mappings, the kernel takes {_MAP_LINES}")
        _check_ranges(listed, "containerID", path)
        if not any(relative for _, relative in lines or []):
            _check_ranges(listed, "hostID", path)


def _check_hooks(hooks: dict[str, Any]) -> None:
    for kind in names.HOOKS:
        for index, hook in enumerate(hooks.get(kind, [])):
            where = f"hooks.{kind}[{index}]"
            _check_absolute(hook["path"], f"{where}.path")
            if hook.get("timeout", 1) <= 0:
                raise SpecError(f"{where}.timeout", f"expected at least 1 second, got {hook['timeout']}")


def _check_sysctls(sysctls: dict[str, str], namespaces: dict[str, str]) -> None:
    for key in sysctls:
        where = f"linux.sysctl[{quote(key)}]"
        parts = names.sysctl_parts(key)
        name = ".".join(parts) if parts else ""
        if name == "kernel.hostname":
            raise SpecError(where, "cannot be set as a sysctl", hint="set the field hostname instead")
        if not parts or (owner := names.SYSCTLS.get(name) or names.SYSCTLS.get(_family(parts))) is None:
            raise SpecError(
                where,
                "belongs to the whole host, not to a container",
                hint="only net.*, fs.mqueue.*, user.*, kernel.domainname and kernel's ipc sysctls can be set",
            )
        if owner not in namespaces:
            article = "an" if owner == "ipc" else "a"
            raise SpecError(where, f"needs {article} {owner} namespace, or it would change the host")


def _family(parts: tuple[str, ...]) -> str:
    """The prefix under which SYSCTLS may list a sysctl."""
    return "fs.mqueue." if parts[:2] == ("fs", "mqueue") and len(parts) > 2 else f"{parts[0]}."


def _check_hidden_paths(linux: dict[str, Any], namespaces: dict[str, str]) -> None:
    for key in ("maskedPaths", "readonlyPaths"):
        paths = linux.get(key, [])
        if paths and "mount" not in namespaces:
            raise SpecError(
                f"linux.{key}", "needs a mount namespace", hint='add {"type": "mount"} to linux.namespaces'
            )
        for index, path in enumerate(paths):
            _check_absolute(path, f"linux.{key}[{index}]")


def _check_devices(devices: list[dict[str, Any]]) -> None:
    for index, device in enumerate(devices):
        where = f"linux.devices[{index}]"
        _check_absolute(device["path"], f"{where}.path")
        for key, bits in (("major", 12), ("minor", 20)):
            number = device.get(key)
            if device["type"] == "p":
                continue
            if number is None:
                raise SpecError(f"{where}.{key}", f"a device of type {device['type']} needs it")
            if not 0 <= number < 1 << bits:
                raise SpecError(
                    f"{where}.{key}", f"expected a number from 0 to {(1 << bits) - 1}, got {number}"
                )
        for key in ("uid", "gid"):
            _check_id(device.get(key, 0), f"{where}.{key}")


def _check_seccomp(seccomp: dict[str, Any], notes: list[tuple[str, str]]) -> None:
    """A notifying rule needs an agent, and, as in runc, neither all calls nor write(2) can be left to one."""
    path = "linux.seccomp"
    if seccomp["defaultAction"] == "SCMP_ACT_NOTIFY":
        raise SpecError(f"{path}.defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action")
    notifies = False
    for index, rule in enumerate(seccomp.get("syscalls", [])):
        where = f"{path}.syscalls[{index}]"
        if not rule["names"]:
            raise SpecError(f"{where}.names", "expected at least one system call")
        if rule["action"] == "SCMP_ACT_NOTIFY":
            notifies = True
            if "write" in rule["names"]:
                raise SpecError(f"{where}.action", "SCMP_ACT_NOTIFY cannot be used for the write syscall")
    listener = seccomp.get("listenerPath", "")
    if notifies and not listener:
        raise SpecError(
            f"{path}.listenerPath",
            "SCMP_ACT_NOTIFY needs it",
            hint="name the unix socket of the seccomp agent, or remove the rules with SCMP_ACT_NOTIFY",
        )
    if notifies:
        _check_absolute(listener, f"{path}.listenerPath")
    elif seccomp.get("listenerMetadata") and not listener:
        notes.append((f"{path}.listenerMetadata", "has no effect without a listenerPath"))
