"""HostFacts: what the plan needs to know of the kernel, the user and the session, as plain data.

`gather` reads files and asks the kernel about this process, and only for what the given config can depend on;
it decides nothing. Tests build HostFacts by hand.
"""

from __future__ import annotations

import errno
import posix

from rootless_rt import paths
from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_rt.host.lsm import LsmFacts
    from rootless_rt.host.namespaces import Step
    from rootless_rt.host.seccomp import SeccompFilter

Extent = tuple[int, int, int]
_IDENTITY = [(0, 0, 0xFFFFFFFF)]
_RLIM_INFINITY = 0xFFFFFFFFFFFFFFFF
_LIMITS_AT = 26  # the column of the soft limit in /proc/PID/limits


class CgroupFacts:
    """What can be shown of cgroups inside the container.

    mode            "v2", "v1", "hybrid" or "none"
    container_dirs  controller -> directory of the container's cgroup on the host ("" for v2)
    folders         v1 controller -> name of its hierarchy's directory
    enter_by_clone  whether the process can be made right inside its cgroup (CLONE_INTO_CGROUP)
    task_files      of v1 cgroups, into which the process writes itself
    reason          why there is none
    unmet           (JSON path, what was asked, why it cannot be had, the fix or "") of limits
    notes           on limits that have no effect
    """

    __slots__ = (
        "container_dirs",
        "enter_by_clone",
        "folders",
        "mode",
        "notes",
        "reason",
        "task_files",
        "unmet",
    )

    def __init__(self, mode: str = "none", reason: str = "") -> None:
        self.mode = mode
        self.reason = reason
        self.container_dirs: dict[str, str] = {}
        self.folders: dict[str, str] = {}
        self.enter_by_clone = False
        self.task_files: list[str] = []
        self.unmet: list[tuple[str, str, str, str]] = []
        self.notes: list[str] = []


class HostFacts:
    """Evidence about host and caller.

    euid, egid         of the runtime
    uid_map, gid_map   extents (inside, outside, count) of the runtime's own user namespace
    capabilities       effective capabilities of the runtime, as a mask
    last_capability    the highest that the kernel knows
    rlimits            resource number -> (soft, hard) of the runtime: 7 (NOFILE), 9 (AS), and those asked for
    oom_score_adj      of the runtime
    may_set_groups     whether setgroups(2) is allowed in the runtime's user namespace
    paths              host paths that exist, among those the config can depend on -> device number (0: none)
    kernel_mounts      where proc and sysfs are mounted on the host; only filled for --no-pivot
    scheduling         (policy, nice value, real-time priority) of the runtime; see sched(7)
    cgroup             see CgroupFacts
    filter             the compiled seccomp filter, or None
    emulation          the filter that lets changes of ids come to nothing, where that is asked for, or None
    join_order         steps of `namespaces.join_order`, where a user namespace is joined among others
    joined_maps        uid and gid extents of the user namespace that is joined; None: not known
    lsm                see host.lsm; None when the config names no label
    """

    __slots__ = (
        "capabilities",
        "cgroup",
        "egid",
        "emulation",
        "euid",
        "filter",
        "gid_map",
        "join_order",
        "joined_maps",
        "kernel_mounts",
        "last_capability",
        "lsm",
        "may_set_groups",
        "oom_score_adj",
        "paths",
        "rlimits",
        "scheduling",
        "uid_map",
    )

    def __init__(self, euid: int = 0, egid: int = 0) -> None:
        self.euid = euid
        self.egid = egid
        self.uid_map: list[Extent] = list(_IDENTITY)
        self.gid_map: list[Extent] = list(_IDENTITY)
        self.capabilities = 0
        self.last_capability = 40
        self.rlimits: dict[int, tuple[int, int]] = dict.fromkeys(range(16), (_RLIM_INFINITY,) * 2)
        self.oom_score_adj = 0
        self.scheduling = (posix.SCHED_OTHER, 0, 0)
        self.may_set_groups = True
        self.paths: dict[str, int] = {}
        self.kernel_mounts: list[str] = []
        self.cgroup = CgroupFacts()
        self.filter: SeccompFilter | None = None
        self.emulation: SeccompFilter | None = None
        self.join_order: list[Step] = []
        self.joined_maps: tuple[list[Extent], list[Extent]] | None = None
        self.lsm: LsmFacts | None = None

    @property
    def initial_userns(self) -> bool:
        """Whether the runtime is in the initial user namespace."""
        return self.uid_map == _IDENTITY

    @property
    def has_memory(self) -> bool:
        """Whether nothing limits the runtime's address space."""
        return self.rlimits.get(9, (_RLIM_INFINITY, 0))[0] == _RLIM_INFINITY

    @property
    def can_map_all(self) -> bool:
        """Whether the runtime may write any id map itself: CAP_SETUID and CAP_SETGID where it is."""
        return self.capabilities >> 6 & 3 == 3


def gather(config: dict[str, Any], *, pivot: bool = True) -> HostFacts:
    """Look at the host and this process. `config` is a checked config.json."""
    facts = HostFacts(posix.geteuid(), posix.getegid())
    from idmap.userns import own_map

    facts.uid_map = own_map("uid")
    facts.gid_map = own_map("gid")
    status = _read("/proc/self/status")
    facts.capabilities = _hex_field(status, b"CapEff:")
    facts.last_capability = _number(_read("/proc/sys/kernel/cap_last_cap"), 40)
    process = config.get("process", {})
    facts.rlimits = {}
    limits = [13, 14] if process.get("scheduler") else []  # RLIMIT_NICE, RLIMIT_RTPRIO
    present = _read("/proc/self/limits")
    for number in {7, 9, *limits, *(_rlimit_number(limit["type"]) for limit in process.get("rlimits", []))}:
        facts.rlimits[number] = _limits(present, number)
    if process.get("oomScoreAdj") is not None:
        facts.oom_score_adj = _signed(_read("/proc/self/oom_score_adj"))
    if process.get("scheduler"):
        facts.scheduling = _scheduling()
    if not facts.initial_userns:
        facts.may_set_groups = _read("/proc/self/setgroups").strip() != b"deny"
    facts.paths = _paths(config)
    profile = process.get("apparmorProfile", "")
    if profile or process.get("selinuxLabel") or config.get("linux", {}).get("mountLabel"):
        from rootless_rt.host import lsm

        facts.lsm = lsm.look(profile)
    if not pivot:
        facts.kernel_mounts = _kernel_mounts(_read("/proc/self/mountinfo"))
    return facts


def _scheduling() -> tuple[int, int, int]:
    """What a child of this process starts with: SCHED_RESET_ON_FORK undoes the rest there."""
    policy, nice = posix.sched_getscheduler(0), posix.getpriority(posix.PRIO_PROCESS, 0)
    if policy & posix.SCHED_RESET_ON_FORK:
        return posix.SCHED_OTHER, max(nice, 0), 0
    return policy, nice, posix.sched_getparam(0).sched_priority


def _rlimit_number(name: str) -> int:
    from rootless_rt.spec.names import RLIMITS

    return RLIMITS[name]


def candidates(config: dict[str, Any]) -> list[str]:
    """The paths that a fall-back may use where they exist."""
    found = ["/proc/kcore", "/dev/mqueue"]
    found += [f"/dev/{name}" for name in ("null", "zero", "full", "tty", "random", "urandom")]
    for device in config.get("linux", {}).get("devices", []):
        # As the plan writes it: normpath leaves two slashes in front alone.
        found.append("/" + paths.normal(device["path"]).lstrip("/"))
    return found


def _paths(config: dict[str, Any]) -> dict[str, int]:
    """Which of the `candidates` exist, with their device numbers."""
    found = {}
    for path in candidates(config):
        try:
            status = posix.stat(path, follow_symlinks=True)
        except OSError:
            continue
        found[path] = status.st_rdev
    return found


def _kernel_mounts(mountinfo: bytes) -> list[str]:
    """Mount points of complete proc and sysfs mounts (root "/"), deepest first (proc_pid_mountinfo(5))."""
    found = []
    for line in mountinfo.split(b"\n"):
        left, _, right = line.partition(b" - ")
        fields, kind = left.split(b" "), right.split(b" ", 1)[0]
        if kind in (b"proc", b"sysfs") and len(fields) > 5 and fields[3] == b"/":
            found.append(paths.fsdecode(_unescape(fields[4])))
    return sorted(found, key=len, reverse=True)


def _unescape(field: bytes) -> bytes:
    for code, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(code, char)
    return field


def _read(path: str) -> bytes:
    """A small file of /proc; empty when it cannot be read."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return b""
    try:
        return paths.read_all(fd)
    finally:
        posix.close(fd)


def _hex_field(status: bytes, name: bytes) -> int:
    at = status.find(b"\n" + name)
    return int(status[at + 1 + len(name) :].split(None, 1)[0], 16) if at >= 0 else 0


def _number(text: bytes, default: int) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else default


def _signed(text: bytes) -> int:
    text = text.strip()
    return -_number(text[1:], 0) if text.startswith(b"-") else _number(text, 0)


def _limits(table: bytes, number: int) -> tuple[int, int]:
    """(soft, hard) of a resource in /proc/self/limits (proc_pid_limits(5)): the lines are in their order."""
    lines = table.split(b"\n")
    if number + 1 >= len(lines):
        raise RtError("cannot read /proc/self/limits", hint="mount /proc: rt needs it")
    soft, hard = lines[number + 1][_LIMITS_AT:].split()[:2]
    return _number(soft, _RLIM_INFINITY), _number(hard, _RLIM_INFINITY)
