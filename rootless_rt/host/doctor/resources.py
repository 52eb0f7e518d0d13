"""Checks of quotas, the host's network, devices, and the programs that rt can use."""

from __future__ import annotations

import os
import resource

from rootless_rt.host import seccomp
from rootless_rt.host.doctor.access import Step, Who, allowed
from rootless_rt.host.doctor.fixes import install, quote, sysctl
from rootless_rt.host.doctor.model import Me, Trouble
from rootless_rt.host.doctor.system import number, read
from rootless_rt.spec.names import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_rt.host.doctor.model import Check
    from rootless_rt.host.doctor.system import FindProgram

_NETWORK = ("pasta", "slirp4netns")
_DEVICES = ("/dev/fuse", "/dev/kvm", "/dev/net/tun")
_MANY = 1 << 30  # a limit from here on is none
_FILES = 1048576  # what configs of engines ask for


class ResourceEvidence:
    """keys: (used, allowed) of the user. inotify: fs.inotify.max_user_instances. processes: (those of the
    user, hard RLIMIT_NPROC). files: hard RLIMIT_NOFILE. ping: net.ipv4.ping_group_range. ports: the first
    port for users. devices: path -> Step, of those that are there. programs: name -> path or None. library:
    path of libseccomp. bindings: whether Python has bindings to it. group: gid -> name of devices' groups."""

    __slots__ = (
        "bindings", "devices", "files", "group", "inotify", "keys", "library", "ping", "ports", "processes",
        "programs",
    )  # fmt: skip

    def __init__(self) -> None:
        self.keys: tuple[int, int] | None = (2, 200)
        self.inotify: int | None = 128
        self.processes: tuple[int, int] = (10, _MANY)
        self.files = _FILES
        self.ping: tuple[int, int] | None = (0, 2147483647)
        self.ports: int | None = 1024
        self.devices: dict[str, Step] = {path: Step(path, 0o020666) for path in _DEVICES}
        self.programs: dict[str, str | None] = {name: f"/usr/bin/{name}" for name in _NETWORK}
        self.library: str | None = "/usr/lib/libseccomp.so.2"
        self.bindings = True
        self.group: dict[int, str] = {}


def gather(root: str, me: Me, find: FindProgram) -> ResourceEvidence:
    """Read quotas and sysctls, and look for devices and programs."""
    found = ResourceEvidence()
    found.keys = keys(read(root + "/proc/key-users") or "", me.uid)
    found.inotify = number(root + "/proc/sys/fs/inotify/max_user_instances")
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    # Counting takes a stat a process: only where the limit is low enough to matter.
    few = 0 <= hard < 4096 and me.euid != 0
    found.processes = (_processes(root, me.uid) if few else 0, hard if hard >= 0 else _MANY)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    found.files = files if files >= 0 else _MANY
    words = [decimal(word) for word in (read(root + "/proc/sys/net/ipv4/ping_group_range") or "").split()]
    found.ping = (words[0] or 0, words[1] or 0) if len(words) == 2 else None
    found.ports = number(root + "/proc/sys/net/ipv4/ip_unprivileged_port_start")
    found.devices = {}
    for path in _DEVICES:
        try:
            status = os.stat(root + path)
        except OSError:
            continue
        found.devices[path] = Step(path, status.st_mode, status.st_uid, status.st_gid)
        found.group[status.st_gid] = _group(root, status.st_gid)
    found.programs = {name: find(name) for name in _NETWORK}
    found.library = seccomp.library_file()
    from importlib.util import find_spec

    found.bindings = any(find_spec(name) is not None for name in ("seccomp", "pyseccomp"))
    return found


def keys(text: str, uid: int) -> tuple[int, int] | None:
    """(used, allowed) keys of a user in /proc/key-users (keyrings(7)); None for one who has none.

    >>> keys(" 1000:     4 4/4 4/200 46/20000", 1000)
    (4, 200)
    """
    for line in text.split("\n"):
        owner, _, rest = line.partition(":")
        fields = rest.split()
        if owner.strip() == str(uid) and len(fields) > 2:
            used, _, most = fields[2].partition("/")
            return decimal(used) or 0, decimal(most) or 0
    return None


def _processes(root: str, uid: int) -> int:
    count = 0
    for name in os.listdir(root + "/proc"):
        if name.isdigit():
            try:
                count += os.stat(f"{root}/proc/{name}").st_uid == uid
            except OSError:
                pass
    return count


def _group(root: str, gid: int) -> str:
    for line in (read(root + "/etc/group") or "").split("\n"):
        fields = line.split(":")
        if len(fields) > 2 and fields[2] == str(gid):
            return fields[0]
    return str(gid)


def check_keys(found: ResourceEvidence, me: Me) -> Trouble | str:
    """A key a container."""
    if found.keys is None:
        return "none used"
    used, most = found.keys
    if used * 10 < most * 9 or me.privileged:
        return f"{used} of {most} used"
    fix, commands = sysctl("kernel.keys.maxkeys", "2000")
    more = sysctl("kernel.keys.maxbytes", "250000")
    return Trouble(
        f"{used} of {most} keys are used: new containers will keep the caller's session keyring",
        fix + " kernel.keys.maxbytes=250000",
        commands + more[1],
    )


def check_inotify(found: ResourceEvidence, me: Me) -> Trouble | str | None:
    """An instance a service."""
    if found.inotify is None or found.inotify >= 128:
        return str(found.inotify) if found.inotify else None
    fix, commands = sysctl("fs.inotify.max_user_instances", "1024")
    return Trouble(f"fs.inotify.max_user_instances is {found.inotify}", fix, commands)


def check_processes(found: ResourceEvidence, me: Me) -> Trouble | str:
    """Room for forks."""
    used, most = found.processes
    if most >= _MANY or me.euid == 0:
        return "no limit"
    if most - used < 50:
        return Trouble(
            f"{used} processes of {most} that RLIMIT_NPROC allows you: containers will fail to fork",
            f"have an administrator raise nproc for {me.who} in /etc/security/limits.d, and log in anew",
            _limits(me, "nproc", "65536"),
        )
    return str(most)


def check_files(found: ResourceEvidence, me: Me) -> Trouble | str:
    """What configs may ask for."""
    if found.files >= 4096 or me.privileged:
        return str(found.files) if found.files < _MANY else "no limit"
    return Trouble(
        f"the hard limit is {found.files}; what a config asks beyond is cut to that",
        f"have an administrator raise nofile for {me.who} in /etc/security/limits.d, and log in anew",
        _limits(me, "nofile", "524288"),
    )


def _limits(me: Me, item: str, value: str) -> tuple[str, ...]:
    line = quote(f"{me.who} - {item} {value}")
    return (
        "mkdir -p /etc/security/limits.d",
        f"printf '%s\\n' {line} > /etc/security/limits.d/80-rt-{item}.conf",
    )


def check_ping(found: ResourceEvidence, me: Me) -> Trouble | str | None:
    """ICMP sockets."""
    if found.ping is None or me.privileged:
        return "not needed by root" if me.privileged else None
    low, high = found.ping
    if any(low <= gid <= high for gid in me.groups):
        return f"groups {low} to {high}"
    fix, commands = sysctl("net.ipv4.ping_group_range", "0 2147483647")
    # Only for containers on the host's network: the rest of rt does not depend on it.
    return f"not on the host's network; to allow it: {fix}" if commands else None


def check_ports(found: ResourceEvidence, me: Me) -> str | None:
    """Where users may listen."""
    if found.ports is None:
        return None
    return "any port" if found.ports == 0 or me.privileged else f"from {found.ports} on"


def check_network(found: ResourceEvidence, me: Me) -> Trouble | str:
    """A network namespace's way out."""
    there = [str(found.programs[name]) for name in _NETWORK if found.programs.get(name)]
    fix, _ = install("pasta", me.manager)
    if not there:
        return f"no helper is installed; for containers with a network of their own: {fix}"
    tun = found.devices.get("/dev/net/tun")
    if tun is None:
        return Trouble(
            "there is no /dev/net/tun, which user-mode networking needs",
            "sudo modprobe tun; in a container: --device /dev/net/tun",
            ("modprobe tun",),
        )
    if not allowed(tun, _who(me), 6):
        return Trouble(
            f"{tun.shown()} is closed to you", "sudo chmod 666 /dev/net/tun", ("chmod 666 /dev/net/tun",)
        )
    return ", ".join(there)


def _who(me: Me) -> Who:
    return Who(me.euid, me.groups, powerful=me.privileged)


def check_fuse(found: ResourceEvidence, me: Me) -> Trouble | str:
    """For fuse-overlayfs."""
    device = found.devices.get("/dev/fuse")
    if device is None:
        return "not here; only for file systems of users"
    if allowed(device, _who(me), 6):
        return "open to you"
    return Trouble(f"{device.shown()} is closed to you", "sudo chmod 666 /dev/fuse", ("chmod 666 /dev/fuse",))


def check_kvm(found: ResourceEvidence, me: Me) -> Trouble | str:
    """For virtual machines."""
    device = found.devices.get("/dev/kvm")
    if device is None:
        return "not here; only for virtual machines"
    if allowed(device, _who(me), 6):
        return "open to you" + (" by its group: use --keep-groups" if device.gid in me.groups[1:] else "")
    group = found.group.get(device.gid, str(device.gid))
    # Nobody is worse off for it but who wants virtual machines. Group root would be too much for that.
    fix = (
        f"usermod -aG {group} {me.who}, and --keep-groups"
        if device.gid
        else f"setfacl -m u:{me.uid}:rw /dev/kvm"
    )
    return f"closed to you; for virtual machines: sudo {fix}"


def check_seccomp(found: ResourceEvidence, me: Me) -> Trouble | str:
    """For profiles."""
    if found.library is None:
        fix, commands = install("libseccomp", me.manager)
        return Trouble(
            "libseccomp is not installed: configs with a seccomp profile do not start", fix, commands
        )
    if not found.bindings:
        return Trouble(
            "Python has no bindings to libseccomp: configs with a seccomp profile do not start",
            "pip install 'rootless-rt[seccomp]', or the distribution's python3-seccomp",
        )
    return found.library


CHECKS: tuple[Check, ...] = (
    ("RT-QUOTA-KEYS", check_keys),
    ("RT-QUOTA-INOTIFY", check_inotify),
    ("RT-QUOTA-PROCESSES", check_processes),
    ("RT-QUOTA-FILES", check_files),
    ("RT-NET-PING", check_ping),
    ("RT-NET-PORTS", check_ports),
    ("RT-NET-HELPER", check_network),
    ("RT-DEV-FUSE", check_fuse),
    ("RT-DEV-KVM", check_kvm),
    ("RT-TOOL-SECCOMP", check_seccomp),
)
