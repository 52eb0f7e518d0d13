"""Checks of user namespaces: every gate, and whether a container's first steps work."""

from __future__ import annotations

import errno
import os

from idmap.evidence import ALL_CAPS, CAP_SETGID, CAP_SETUID, status_field
from idmap.extents import IDENTITY, to_outside
from idmap.userns import own_map
from rootless_rt.host import outer
from rootless_rt.host.doctor.fixes import sysctl
from rootless_rt.host.doctor.model import Me, Trouble
from rootless_rt.host.doctor.probe import MAP, PROC, USERNS, Probe, probe
from rootless_rt.host.doctor.system import number, read
from rootless_rt.host.userns import UsernsEvidence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idmap.extents import Extent
    from rootless_rt.host.doctor.model import Check

_KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "uts")


class NamespaceEvidence:
    """gates: see `host.userns`. probe: how far a child came, None when none was made. limits: kind ->
    user.max_KIND_namespaces. maps: the own uid and gid map. euid, egid: the own ids. status fields:
    no_new_privs, bounding. apparmor, selinux: what this process is confined by, or ""."""

    __slots__ = (
        "apparmor", "bounding", "egid", "euid", "gates", "limits", "maps", "no_new_privs", "probe", "selinux",
    )  # fmt: skip

    def __init__(self, gates: UsernsEvidence, tried: Probe | None = None) -> None:
        self.gates = gates
        self.probe = tried
        self.limits: dict[str, int] = {}
        identity: list[Extent] = [IDENTITY]
        self.maps: tuple[list[Extent], list[Extent]] = (identity, identity)
        self.euid = 0
        self.egid = 0
        self.no_new_privs = False
        self.bounding = ALL_CAPS
        self.apparmor = ""
        self.selinux = ""


def gather(root: str, me: Me) -> NamespaceEvidence:
    """Read the switches; on the real system, for who is not root, also let a child try."""
    evidence = NamespaceEvidence(UsernsEvidence(root or "/"))
    for kind in _KINDS:
        limit = number(f"{root}/proc/sys/user/max_{kind}_namespaces")
        if limit is not None:
            evidence.limits[kind] = limit
    try:
        evidence.maps = (own_map("uid", root + "/proc/self"), own_map("gid", root + "/proc/self"))
    except OSError:
        pass  # RT-PROC-MISSING
    evidence.euid, evidence.egid = me.euid, me.groups[0]
    status = (read(root + "/proc/self/status") or "").encode("utf-8", "surrogateescape")
    evidence.no_new_privs = status_field(status, b"NoNewPrivs") == b"1"
    try:
        evidence.bounding = int(status_field(status, b"CapBnd"), 16)
    except ValueError:
        pass
    evidence.apparmor = (read(root + "/proc/self/attr/apparmor/current") or "").rstrip("\0")
    if read(root + "/sys/fs/selinux/enforce") == "1":
        evidence.selinux = (read(root + "/proc/self/attr/current") or "").rstrip("\0")
    if not root and not me.privileged:
        evidence.probe = probe()
    return evidence


def check_kernel(evidence: NamespaceEvidence, me: Me) -> Trouble | None:
    """CONFIG_USER_NS."""
    if evidence.gates.supported:
        return None
    return Trouble("this kernel was built without user namespaces (CONFIG_USER_NS)", "use another kernel")


def check_clone(evidence: NamespaceEvidence, me: Me) -> Trouble | str | None:
    """Debian's switch."""
    if evidence.gates.unprivileged_clone != "0" or _works(evidence):
        return "no such switch here" if evidence.gates.unprivileged_clone is None else None
    if me.privileged:
        return "off, for users other than root"
    fix, commands = sysctl("kernel.unprivileged_userns_clone", "1")
    return Trouble("user namespaces are switched off for users", fix, commands)


def check_max(evidence: NamespaceEvidence, me: Me) -> Trouble | str | None:
    """The number of user namespaces."""
    maximum = evidence.gates.maximum
    if maximum != "0":
        return maximum
    if me.privileged:
        # Root's containers without a user namespace of their own do not need one.
        return "0: no container with a user namespace"
    fix, commands = sysctl("user.max_user_namespaces", "28633")
    return Trouble("user namespaces are switched off (it is 0)", fix, commands)


def check_apparmor(evidence: NamespaceEvidence, me: Me) -> Trouble | str:
    """Ubuntu's restriction."""
    if evidence.gates.apparmor != "1":
        return "no restriction"
    if me.privileged or _works(evidence):
        return "restricted, but not for rt"
    fix, commands = sysctl("kernel.apparmor_restrict_unprivileged_userns", "0")
    return Trouble(
        "AppArmor gives programs without a profile no capabilities in their user namespaces",
        f"load an AppArmor profile that allows rt `userns,` (rt explain RT-USERNS-APPARMOR), or: {fix}",
        commands,
    )


def check_seccomp(evidence: NamespaceEvidence, me: Me) -> Trouble | str:
    """Filters of what is around."""
    if evidence.gates.seccomp != "2":
        return "no filter"
    tried = evidence.probe
    refused = tried is not None and tried.errno in (errno.EPERM, errno.ENOSYS) and tried.refused != PROC
    if me.privileged or not refused or _other_gate(evidence):
        return "a filter that lets user namespaces pass"
    return Trouble(
        f"a seccomp filter forbids it ({_step(evidence)})",
        outer.fix("seccomp", evidence.gates.platform),
    )


def check_chroot(evidence: NamespaceEvidence, me: Me) -> Trouble | None:
    """A root directory that is not the mount namespace's."""
    if me.privileged or not _chrooted(evidence) or _works(evidence):
        return None
    seen = "" if evidence.gates.chrooted else ", as far as one can tell: nothing else forbids them here"
    return Trouble(
        f"this process is in a chroot, where the kernel makes no user namespaces{seen}",
        "run rt outside of the chroot, or enter that system with pivot_root (systemd-nspawn, bwrap)",
    )


def _chrooted(evidence: NamespaceEvidence) -> bool:
    """By the mounts that can be seen; a chroot onto a mount point shows in nothing but that it is refused."""
    tried, gates = evidence.probe, evidence.gates
    if gates.chrooted:
        return True
    refused = tried is not None and tried.refused == USERNS and tried.errno == errno.EPERM
    others = gates.seccomp == "2" or evidence.selinux or evidence.apparmor.endswith("(enforce)")
    switched = not gates.supported or gates.unprivileged_clone == "0" or gates.apparmor == "1"
    return refused and not others and not switched and _mapped(evidence)


def _mapped(evidence: NamespaceEvidence) -> bool:
    uid_map, gid_map = evidence.maps
    return to_outside(uid_map, evidence.euid) is not None and to_outside(gid_map, evidence.egid) is not None


def check_unmapped(evidence: NamespaceEvidence, me: Me) -> Trouble | str:
    """The own ids must exist where we are."""
    uid_map, gid_map = evidence.maps
    missing = []
    if to_outside(uid_map, me.euid) is None:
        missing.append(f"uid {me.euid}")
    if to_outside(gid_map, evidence.egid) is None:
        missing.append(f"gid {evidence.egid}")
    if missing:
        return Trouble(
            f"{' and '.join(missing)} does not exist in this user namespace",
            "map it in the surrounding container, or run as one of its users that is mapped",
        )
    return "the initial user namespace" if me.initial else "a user namespace in which it is mapped"


def check_refused(evidence: NamespaceEvidence, me: Me) -> Trouble | str | None:
    """Whatever else is in the way."""
    tried = evidence.probe
    if tried is None or not tried.refused or tried.refused == PROC:
        return "tried, and it works" if tried else "not tried"
    known = _other_gate(evidence)
    if known or evidence.gates.seccomp == "2":
        return "not, see above"
    if tried.errno in (errno.ENOSPC, errno.EUSERS):
        return Trouble(
            "too many namespaces exist, or they are nested too deep",
            "end some containers, or raise the limits in /proc/sys/user",
        )
    why = f"{_step(evidence)}, and no known switch is off"
    if tried.refused == MAP:
        why += ": a security module may have taken the namespace's capabilities"
    return Trouble(why, "look for a denial in the kernel's log: dmesg, ausearch -m avc")


def check_limits(evidence: NamespaceEvidence, me: Me) -> Trouble | None:
    """The other kinds of namespace."""
    off = [kind for kind, limit in evidence.limits.items() if limit == 0]
    if not off:
        return None
    fixes = [sysctl(f"user.max_{kind}_namespaces", "28633") for kind in off]
    names = ", ".join(f"user.max_{kind}_namespaces" for kind in off)
    status = "blocked" if {"mnt", "pid"} & set(off) else "degraded"
    settings = " ".join(fix.removeprefix("sudo sysctl ") for fix, _ in fixes)
    return Trouble(
        f"0, so that there are none of these: {names}",
        f"sudo sysctl {settings}",
        [line for _, lines in fixes for line in lines],
        status=status,
    )


def check_nnp(evidence: NamespaceEvidence, me: Me) -> Trouble | None:
    """no_new_privs takes the power of setuid programs."""
    if not evidence.no_new_privs or me.euid == 0:
        return None
    return Trouble(
        "it is set, so that newuidmap has no power: only your own ids can be mapped",
        outer.fix("no-new-privs", evidence.gates.platform)
        or "start this process without it (Docker, Podman: without --security-opt no-new-privileges;"
        " Kubernetes: allowPrivilegeEscalation: true; systemd: NoNewPrivileges=no)",
    )


def check_bounding(evidence: NamespaceEvidence, me: Me) -> Trouble | None:
    """What newuidmap and newgidmap must be able to get."""
    names = {CAP_SETUID: "CAP_SETUID", CAP_SETGID: "CAP_SETGID"}
    missing = [name for bit, name in names.items() if not evidence.bounding >> bit & 1]
    if not missing:
        return None
    return Trouble(
        f"{' and '.join(missing)} cannot be had by newuidmap and newgidmap: only your own ids can be mapped",
        outer.fix("bounding-set", evidence.gates.platform)
        or "Docker, Podman: --cap-add SETUID --cap-add SETGID; Kubernetes: capabilities.add [SETUID, SETGID];"
        " systemd: CapabilityBoundingSet=",
    )


def check_lsm(evidence: NamespaceEvidence, me: Me) -> Trouble | str:
    """What confines rt itself."""
    label = evidence.apparmor
    if label.endswith("(enforce)"):
        return Trouble(
            f"this process runs under the AppArmor profile {label.removesuffix(' (enforce)')}",
            "Docker, Podman: --security-opt apparmor=unconfined; or allow in it what dmesg shows denied",
        )
    kind = evidence.selinux.split(":")
    if len(kind) > 2 and not kind[2].startswith(("unconfined_", "container_runtime_", "spc_")):
        if kind[2].startswith("container_"):
            return Trouble(
                f"this process runs in the SELinux domain {kind[2]}",
                "Docker, Podman: --security-opt label=disable",
            )
        return f"SELinux domain {kind[2]}"
    return "this process is not confined"


def _works(evidence: NamespaceEvidence) -> bool:
    return evidence.probe is not None and evidence.probe.refused in ("", PROC)


def _other_gate(evidence: NamespaceEvidence) -> bool:
    """Whether something else than seccomp explains a refusal."""
    gates = evidence.gates
    switched = not gates.supported or gates.unprivileged_clone == "0" or gates.maximum == "0"
    return switched or gates.apparmor == "1" or _chrooted(evidence) or not _mapped(evidence)


def _step(evidence: NamespaceEvidence) -> str:
    tried = evidence.probe or Probe()
    return f"{tried.refused}: {os.strerror(tried.errno).lower()}"


CHECKS: tuple[Check, ...] = (
    ("RT-USERNS-KERNEL", check_kernel),
    ("RT-USERNS-CLONE", check_clone),
    ("RT-USERNS-MAX", check_max),
    ("RT-USERNS-APPARMOR", check_apparmor),
    ("RT-USERNS-SECCOMP", check_seccomp),
    ("RT-USERNS-CHROOT", check_chroot),
    ("RT-USERNS-UNMAPPED", check_unmapped),
    ("RT-USERNS-REFUSED", check_refused),
    ("RT-NAMESPACES-MAX", check_limits),
    ("RT-PRIV-NNP", check_nnp),
    ("RT-PRIV-BOUNDING", check_bounding),
    ("RT-LSM", check_lsm),
)
