"""Rules of `lint` on linux.* and hooks: namespaces, seccomp, hidden paths, devices, limits, sysctls."""

from __future__ import annotations

from rootless_rt.spec.defaults import MASKED_PATHS, READONLY_PATHS
from rootless_rt.spec.jsonio import quote
from rootless_rt.spec.lint_model import HIGH, LOW, MEDIUM, Hit, View
from rootless_rt.spec.lint_paths import is_below, is_readonly, normal
from rootless_rt.spec.names import sysctl_parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# type -> (severity, what shares it)
_NAMESPACES = {
    "mount": (HIGH, "what it mounts, the host has mounted"),
    "pid": (HIGH, "it sees and signals the host's processes, and reaches their files through /proc"),
    "network": (MEDIUM, "services on the host's loopback and its abstract sockets are open to it"),
    "ipc": (MEDIUM, "shared memory and queues of the host are open to it"),
    "uts": (LOW, "it sees the host's name, and may change it"),
    "cgroup": (LOW, "it sees the host's cgroups"),
}
_PERMITS = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
_CALLS = (
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "open_by_handle_at"),
    *("bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "keyctl", "add_key"),
    *(
        "request_key",
        "mount",
        "umount2",
        "move_mount",
        "fsopen",
        "open_tree",
        "pivot_root",
        "setns",
        "unshare",
    ),
    *("iopl", "ioperm", "swapon", "swapoff", "reboot", "acct"),
)
# (major, minor) of character devices -> (severity, what it is)
_DEVICES = {
    (1, 1): (HIGH, "/dev/mem, the memory"),
    (1, 2): (HIGH, "/dev/kmem, the kernel's memory"),
    (1, 4): (HIGH, "/dev/port, the ports"),
    (1, 11): (MEDIUM, "/dev/kmsg, the kernel's log"),
    (10, 196): (MEDIUM, "/dev/vfio, whole devices"),
    (10, 223): (MEDIUM, "/dev/uinput, input for the whole host"),
    (10, 237): (HIGH, "/dev/loop-control, disks made of files"),
    (10, 200): (LOW, "/dev/net/tun, network devices"),
    (10, 229): (LOW, "/dev/fuse, file systems"),
}
_OPEN_PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/run/lock")
# last part of a net sysctl -> (values, severity, what they do)
_SYSCTLS = {
    "route_localnet": (("1",), MEDIUM, "routes packets to loopback addresses"),
    "accept_source_route": (("1",), LOW, "lets senders choose the way of packets"),
    "accept_redirects": (("1",), LOW, "lets neighbours change routes"),
    "rp_filter": (("0",), LOW, "takes packets with forged senders"),
    "ip_forward": (("1",), LOW, "makes it a router"),
    "forwarding": (("1",), LOW, "makes it a router"),
    "bpf_jit_harden": (("0",), LOW, "makes attacks by BPF programs easier"),
}


def _namespaces(view: View) -> Iterator[Hit]:
    for kind, (severity, shares) in _NAMESPACES.items():
        if view.own(kind):
            continue
        places = [i for i, item in enumerate(view.linux.get("namespaces", [])) if item["type"] == kind]
        path = f"linux.namespaces[{places[0]}].path" if places else "linux.namespaces"
        yield Hit(path, f"the {kind} namespace is the host's", severity, shares)


def _user_namespace(view: View) -> Iterator[Hit]:
    if not view.in_userns and not view.is_root:
        yield Hit("linux.namespaces", "no user namespace")


def _host_root_mapped(view: View) -> Iterator[Hit]:
    for field in ("uidMappings", "gidMappings"):
        for index, line in enumerate(view.linux.get(field, [])):
            if line["hostID"] == 0:
                yield Hit(f"linux.{field}[{index}].hostID", "the host's root is an id of the container")


def _no_seccomp(view: View) -> Iterator[Hit]:
    if not view.linux.get("seccomp"):
        yield Hit("linux.seccomp", "no filter of system calls")


def _seccomp_allows(view: View) -> Iterator[Hit]:
    seccomp = view.linux.get("seccomp") or {}
    if seccomp.get("defaultAction") in _PERMITS:
        yield Hit("linux.seccomp.defaultAction", f"{seccomp['defaultAction']}: only listed calls are denied")


def _seccomp_calls(view: View) -> Iterator[Hit]:
    for index, rule in enumerate((view.linux.get("seccomp") or {}).get("syscalls", [])):
        if rule["action"] in _PERMITS and not rule.get("args"):
            listed = set(rule["names"])
            found = [name for name in _CALLS if name in listed]
            if found:
                yield Hit(f"linux.seccomp.syscalls[{index}].names", ", ".join(found))


def _has_proc(view: View) -> bool:
    return any(
        normal(mount["destination"]) == "/proc" or mount.get("type") == "proc"
        for mount in view.config.get("mounts", [])
    )


def _masked(view: View) -> Iterator[Hit]:
    if not _has_proc(view):
        return
    listed = {normal(path) for path in view.linux.get("maskedPaths", [])}
    missing = [path for path in MASKED_PATHS if not any(is_below(path, hidden) for hidden in listed)]
    if len(missing) == len(MASKED_PATHS):
        yield Hit("linux.maskedPaths", "nothing of /proc and /sys is hidden")
    elif missing:
        yield Hit("linux.maskedPaths", f"without {', '.join(missing)}", LOW)


def _readonly(view: View) -> Iterator[Hit]:
    if not _has_proc(view):
        return
    listed = {normal(p) for key in ("readonlyPaths", "maskedPaths") for p in view.linux.get(key, [])}
    missing = [path for path in READONLY_PATHS if not any(is_below(path, hidden) for hidden in listed)]
    proc_readonly = any(
        normal(mount["destination"]) == "/proc" and is_readonly(mount)
        for mount in view.config.get("mounts", [])
    )
    if missing and not proc_readonly:
        worst = not view.in_userns and {"/proc/sys", "/proc/sysrq-trigger"} & set(missing)
        yield Hit("linux.readonlyPaths", f"writable: {', '.join(missing)}", HIGH if worst else LOW)


def _device_rules(view: View) -> Iterator[Hit]:
    rules = view.linux.get("resources", {}).get("devices", [])
    denied = False
    for index, rule in enumerate(rules):
        path = f"linux.resources.devices[{index}]"
        kind, access = rule.get("type") or "a", rule.get("access") or "rwm"
        whole = kind == "a" or (rule.get("major", -1) == -1 and rule.get("minor", -1) == -1)
        if not rule["allow"]:
            denied = denied or kind == "a"
        elif not set(access) & set("rw"):
            continue  # a node that cannot be opened
        elif whole:
            yield Hit(
                path, "all devices can be opened" if kind == "a" else f"all {kind} devices can be opened"
            )
        elif kind == "b":
            yield Hit(path, f"a disk ({rule.get('major', -1)}:{rule.get('minor', -1)}) can be opened")
        else:
            yield from _character(path, rule)
    if not denied and not view.in_userns:
        yield Hit("linux.resources.devices", "no rule denies all devices first", MEDIUM)


def _character(path: str, device: dict[str, Any]) -> Iterator[Hit]:
    found = _DEVICES.get((device.get("major", -1), device.get("minor", -1)))
    if found:
        yield Hit(path, found[1], found[0])


def _devices(view: View) -> Iterator[Hit]:
    for index, device in enumerate(view.linux.get("devices", [])):
        path = f"linux.devices[{index}]"
        if device["type"] == "b":
            yield Hit(path, f"{quote(device['path'])} is a disk")
        elif device["type"] in ("c", "u"):
            yield from _character(path, device)


def _memory(view: View) -> Iterator[Hit]:
    memory = view.linux.get("resources", {}).get("memory", {})
    unified = view.linux.get("resources", {}).get("unified", {})
    if memory.get("limit", 0) <= 0 and unified.get("memory.max", "max") == "max":
        yield Hit("linux.resources.memory.limit", "memory has no limit")


def _oom_killer(view: View) -> Iterator[Hit]:
    if view.linux.get("resources", {}).get("memory", {}).get("disableOOMKiller"):
        yield Hit("linux.resources.memory.disableOOMKiller", "the kernel's killer is off")


def _pids(view: View) -> Iterator[Hit]:
    resources = view.linux.get("resources", {})
    unified = resources.get("unified", {}).get("pids.max", "max")
    if resources.get("pids", {}).get("limit", 0) <= 0 and unified == "max":
        yield Hit("linux.resources.pids.limit", "processes have no limit")


def _sysctls(view: View) -> Iterator[Hit]:
    for key, value in view.linux.get("sysctl", {}).items():
        parts = sysctl_parts(key) or ("",)
        values, severity, does = _SYSCTLS.get(parts[-1], ((), "", ""))
        if parts[0] == "net" and value.strip() in values:
            yield Hit(f"linux.sysctl[{quote(key)}]", f"{value.strip()}: {does}", severity)


def _propagation(view: View) -> Iterator[Hit]:
    if view.linux.get("rootfsPropagation") in ("shared", "rshared"):
        yield Hit("linux.rootfsPropagation", str(view.linux["rootfsPropagation"]))


def _hooks(view: View) -> Iterator[Hit]:
    root = view.config.get("root", {}).get("path", "")
    sources = [normal(m.get("source", "")) for m in view.config.get("mounts", []) if _writable_bind(m)]
    for kind, hooks in view.config.get("hooks", {}).items():
        for index, hook in enumerate(hooks):
            path, where = normal(hook["path"]), f"hooks.{kind}[{index}].path"
            if kind == "startContainer":
                continue  # a program of the container, run in it
            if any(is_below(path, place) for place in _OPEN_PLACES):
                yield Hit(where, f"{quote(path)} is in a directory that every user can write")
            elif root.startswith("/") and is_below(path, normal(root)):
                yield Hit(where, f"{quote(path)} is in the rootfs")
            elif any(source != "/" and is_below(path, source) for source in sources):
                yield Hit(where, f"{quote(path)} is in a directory that is mounted writable")


def _writable_bind(mount: dict[str, Any]) -> bool:
    bind = mount.get("type") == "bind" or {"bind", "rbind"} & set(mount.get("options", []))
    return bool(bind) and mount.get("source", "").startswith("/") and not is_readonly(mount)


RULES = (
    (
        "host-namespace",
        MEDIUM,
        _namespaces,
        "",
        "add the type to linux.namespaces, without a path",
    ),
    (
        "no-user-namespace",
        LOW,
        _user_namespace,
        "ids of the container are the host's",
        'add {"type": "user"} to linux.namespaces, with mappings',
    ),
    (
        "host-root-mapped",
        MEDIUM,
        _host_root_mapped,
        "files of the host's root belong to the container's user",
        "map ids that are nobody's on the host",
    ),
    (
        "no-seccomp",
        MEDIUM,
        _no_seccomp,
        "every system call of the kernel is open to attacks",
        "take linux.seccomp from rt spec --hardened, or from an engine",
    ),
    (
        "seccomp-default-allow",
        MEDIUM,
        _seccomp_allows,
        "calls that are newer than the list, and those it forgets, are allowed",
        "list what is allowed, with SCMP_ACT_ERRNO as defaultAction",
    ),
    (
        "seccomp-call",
        LOW,
        _seccomp_calls,
        "the filter lets calls through that attacks on kernels begin with",
        "remove them from the rule",
    ),
    (
        "masked-paths",
        MEDIUM,
        _masked,
        "these tell of the host, or change it",
        "list in linux.maskedPaths what rt spec lists",
    ),
    (
        "readonly-paths",
        HIGH,
        _readonly,
        "settings of the kernel can be changed, such as which program handles core dumps, as its root",
        "list in linux.readonlyPaths what rt spec lists",
    ),
    (
        "device-rules",
        HIGH,
        _device_rules,
        "disks and memory of the host are devices",
        'begin linux.resources.devices with {"allow": false, "access": "rwm"}, and allow single devices',
    ),
    (
        "device",
        HIGH,
        _devices,
        "whoever opens it is past the container's files",
        "remove it from linux.devices",
    ),
    ("no-memory-limit", LOW, _memory, "it can use up the host's memory", "set linux.resources.memory.limit"),
    (
        "oom-killer-off",
        MEDIUM,
        _oom_killer,
        "at its limit it stands still, with whatever it has locked",
        "remove linux.resources.memory.disableOOMKiller",
    ),
    ("no-pids-limit", LOW, _pids, "a fork bomb stops the whole host", "set linux.resources.pids.limit"),
    ("sysctl", LOW, _sysctls, "it weakens the container's network", "remove it from linux.sysctl"),
    (
        "shared-propagation",
        MEDIUM,
        _propagation,
        "what is mounted inside appears on the host",
        "use rslave or rprivate",
    ),
    (
        "hook-place",
        HIGH,
        _hooks,
        "hooks run with the caller's rights, outside of the container: whoever can change the file has them",
        "install it where only root, or the caller, can write",
    ),
)
