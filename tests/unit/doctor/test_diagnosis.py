"""What `rt doctor` makes of evidence that no recorded file can show: rights, answers of the kernel, buses."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from lab.tree import TREE

from idmap.evidence import ALL_CAPS, Evidence
from rootless_rt.cgroups import checkup as cgroup_checks
from rootless_rt.cgroups.checkup import CgroupEvidence
from rootless_rt.criu import checkup as criu_checks
from rootless_rt.criu.checkup import CriuEvidence
from rootless_rt.host.doctor import identity, kernel, resources, session, surroundings, userns
from rootless_rt.host.doctor.access import Step, Who, allowed, denied, parse_acl
from rootless_rt.host.doctor.identity import IdentityEvidence
from rootless_rt.host.doctor.kernel import KernelEvidence
from rootless_rt.host.doctor.model import BLOCKED, DEGRADED, OK, Finding, Me, diagnose
from rootless_rt.host.doctor.probe import MAP, PROC, TMPFS, USERNS, Probe
from rootless_rt.host.doctor.resources import ResourceEvidence
from rootless_rt.host.doctor.session import SessionEvidence
from rootless_rt.host.doctor.surroundings import Surroundings
from rootless_rt.host.doctor.userns import NamespaceEvidence
from rootless_rt.host.userns import UsernsEvidence

EMPTY = "/nowhere-at-all"


def namespaces(tried: Probe | None = None, **gates: object) -> NamespaceEvidence:
    evidence = UsernsEvidence(EMPTY)
    evidence.supported = True
    for name, value in gates.items():
        setattr(evidence, name, value)
    return NamespaceEvidence(evidence, tried)


def mapping(**facts: Any) -> IdentityEvidence:
    full = {"helper": "/usr/bin/newuidmap", "granted": [(100000, 65536, 1)], "name": "alice", **facts}
    return IdentityEvidence(
        {kind: Evidence(kind, [(0, 1000, 1), (1, 100000, 65536)], 1000, **full) for kind in ("uid", "gid")}
    )


def changed(evidence: Any, **facts: object) -> Any:
    for name, value in facts.items():
        setattr(evidence, name, value)
    return evidence


Case = tuple[Any, Callable[[], Any], str, str, str, str]
CHECKED: dict[str, Case] = {
    "a call hidden by a filter": (
        kernel, lambda: changed(KernelEvidence(), answers={"clone3": errno.ENOSYS}, seccomp="2"),
        "RT-KERNEL-CALLS", BLOCKED, "filter of the surrounding container hides clone3", "seccomp=unconfined",
    ),
    "a call that the kernel lacks": (
        kernel, lambda: changed(KernelEvidence(), answers={"mount_setattr": errno.ENOSYS}),
        "RT-KERNEL-CALLS", BLOCKED, "this kernel lacks mount_setattr", "update",
    ),
    "a call that looks at rights first": (
        kernel, lambda: changed(KernelEvidence(), answers={"fsopen": errno.EPERM}),
        "RT-KERNEL-CALLS", OK, "fsopen", "",
    ),
    "fuse-overlayfs instead": (
        kernel, lambda: changed(KernelEvidence(), overlay=False, helper="/usr/bin/fuse-overlayfs"),
        "RT-KERNEL-OVERLAY", OK, "by /usr/bin/fuse-overlayfs", "",
    ),
    "AppArmor, but not for rt": (
        userns, lambda: namespaces(Probe(), apparmor="1"), "RT-USERNS-APPARMOR", OK, "not for rt", "",
    ),
    "AppArmor at the map": (
        userns, lambda: namespaces(Probe(MAP, errno.EPERM), apparmor="1"),
        "RT-USERNS-APPARMOR", BLOCKED, "no capabilities", "apparmor_restrict_unprivileged_userns=0",
    ),
    "a filter that forbids": (
        userns, lambda: namespaces(Probe(USERNS, errno.EPERM), seccomp="2"),
        "RT-USERNS-SECCOMP", BLOCKED, "user namespace: operation not permitted", "RestrictNamespaces=no",
    ),
    "a filter that lets pass": (userns, lambda: namespaces(Probe(), seccomp="2"), "RT-USERNS-SECCOMP", OK, "",
    ""),
    "another gate than the filter": (
        userns, lambda: namespaces(Probe(USERNS, errno.EPERM), seccomp="2", unprivileged_clone="0"),
        "RT-USERNS-SECCOMP", OK, "", "",
    ),
    "a chroot that is none": (userns, lambda: namespaces(Probe(), chrooted=True), "RT-USERNS-CHROOT", OK, "",
    ""),
    "nothing known": (
        userns, lambda: namespaces(Probe(TMPFS, errno.EACCES)),
        "RT-USERNS-REFUSED", BLOCKED, "tmpfs: permission denied, and no known switch is off", "dmesg",
    ),
    "capabilities taken silently": (
        userns, lambda: namespaces(Probe(MAP, errno.EPERM)),
        "RT-USERNS-REFUSED", BLOCKED, "a security module may have taken", "ausearch",
    ),
    "too many": (
        userns, lambda: namespaces(Probe(USERNS, errno.ENOSPC)),
        "RT-USERNS-REFUSED", BLOCKED, "too many namespaces", "/proc/sys/user",
    ),
    "said elsewhere": (
        userns, lambda: namespaces(Probe(USERNS, errno.EPERM), chrooted=True), "RT-USERNS-REFUSED", OK,
        "above", "",
    ),
    "an own id that does not exist": (
        userns, lambda: changed(namespaces(), maps=([(0, 5000, 1)], [(0, 0, 10)])),
        "RT-USERNS-UNMAPPED", BLOCKED, "uid 1000 does not exist", "map it",
    ),
    "a refused proc without a mask": (
        surroundings, lambda: Surroundings("docker", Probe(PROC, errno.EPERM)),
        "RT-PROC-MASKED", BLOCKED, "the kernel refuses a new one", "docker run",
    ),
    "a mask that does no harm": (
        surroundings, lambda: changed(Surroundings("", Probe()), hidden=["/proc/x"]),
        "RT-PROC-MASKED", OK, "can be mounted", "",
    ),
    "helpers without setuid": (
        identity, lambda: mapping(helper_mode=0o755),
        "RT-IDS-HELPER-RIGHTS", DEGRADED, "neither setuid root nor", "chmod u+s /usr/bin/newuidmap",
    ),
    "helpers of somebody": (
        identity, lambda: mapping(helper_owner=1005),
        "RT-IDS-HELPER-RIGHTS", DEGRADED, "owned by user 1005", "give it no rights",
    ),
    "helpers with file capabilities": (
        identity, lambda: mapping(helper_mode=0o755, helper_caps=0b11000000), "RT-IDS-HELPER-RIGHTS", OK, "",
        "",
    ),
    "setuid helpers in a container like Docker's": (
        identity, lambda: mapping(bounding=ALL_CAPS & ~(1 << 21)),
        "RT-IDS-HELPER-RIGHTS", DEGRADED, "so needs CAP_SYS_ADMIN", "setcap cap_setuid=ep /usr/bin/newuidmap",
    ),
    "helpers on nosuid": (
        identity, lambda: mapping(nosuid=True), "RT-IDS-HELPER-RIGHTS", DEGRADED, "mounted nosuid",
        "remount,suid",
    ),
    "a provider": (
        identity, lambda: changed(mapping(provider="sss"), getsubids="/usr/bin/getsubids"),
        "RT-IDS-PROVIDER", OK, "sss, by /usr/bin/getsubids", "",
    ),
    "a runtime directory of another": (
        session, lambda: changed(SessionEvidence(), runtime="/run/user/0", runtime_owner=0),
        "RT-SESSION-RUNTIME-DIR", DEGRADED, "belongs to uid 0", "export XDG_RUNTIME_DIR=/run/user/1000",
    ),
    "no runtime directory, but the usual": (
        session, lambda: changed(SessionEvidence(), runtime=""), "RT-SESSION-RUNTIME-DIR", OK,
        "rt takes /run", "",
    ),
    "no runtime directory at all": (
        session, lambda: changed(SessionEvidence(), runtime="", usual=False),
        "RT-SESSION-RUNTIME-DIR", DEGRADED, "not set", "loginctl enable-linger alice",
    ),
    "no runtime directory, no systemd": (
        session, lambda: changed(SessionEvidence(), runtime="", usual=False, systemd=False),
        "RT-SESSION-RUNTIME-DIR", DEGRADED, "not set", "install -d -m 700 -o 1000 /run/user/1000",
    ),
    "a runtime directory that is gone": (
        session, lambda: changed(SessionEvidence(), runtime_owner=-1),
        "RT-SESSION-RUNTIME-DIR", DEGRADED, "cannot be seen", "export",
    ),
    "a runtime directory for all": (
        session, lambda: changed(SessionEvidence(), runtime_mode=0o777),
        "RT-SESSION-RUNTIME-DIR", DEGRADED, "others can write", "chmod 700",
    ),
    "a full runtime directory": (
        session, lambda: changed(SessionEvidence(), runtime_free=10), "RT-SESSION-RUNTIME-DIR", DEGRADED,
        "full", "du",
    ),
    "a noexec runtime directory": (
        session, lambda: changed(SessionEvidence(), runtime_flags=frozenset({"noexec"})),
        "RT-SESSION-RUNTIME-DIR", OK, "noexec", "",
    ),
    "no bus, no user manager": (
        session, lambda: changed(SessionEvidence(), bus=None, usual=False),
        "RT-SYSTEMD-BUS", DEGRADED, "no user manager", "loginctl enable-linger alice",
    ),
    "no bus": (
        session, lambda: changed(SessionEvidence(), bus=None), "RT-SYSTEMD-BUS", DEGRADED, "bus is missing",
        "apt install dbus-user-session",
    ),
    "no systemd": (
        session, lambda: changed(SessionEvidence(), bus=None, systemd=False), "RT-SYSTEMD-BUS", OK,
        "no systemd", "",
    ),
    "no jeepney": (
        session, lambda: changed(SessionEvidence(), client=False),
        "RT-SYSTEMD-CLIENT", DEGRADED, "jeepney is not", "apt install python3-jeepney",
    ),
    "a home that is closed": (
        session, lambda: changed(SessionEvidence(), home=[Step("/", 0o40755), Step("/srv", 0o40700, 7, 7)]),
        "RT-SESSION-HOME", DEGRADED, "/srv (0700 ", "setfacl -m u:1000:x /srv",
    ),
    "a private home": (
        session, lambda: changed(SessionEvidence(), home=[Step("/home/alice", 0o40700, 1000, 1000)]),
        "RT-SESSION-HOME", OK, "open", "",
    ),
    "an old Python": (
        session, lambda: changed(SessionEvidence(), python=(3, 9)), "RT-PYTHON", BLOCKED, "3.9", "3.11",
    ),
    "a Python that others can change": (
        session, lambda: changed(SessionEvidence(), writable=["/opt/py"]),
        "RT-PYTHON", DEGRADED, "can change /opt/py", "chmod o-w /opt/py",
    ),
    "no room for processes": (
        resources, lambda: changed(ResourceEvidence(), processes=(98, 100)),
        "RT-QUOTA-PROCESSES", DEGRADED, "98 processes of 100", "nproc",
    ),
    "few files": (
        resources, lambda: changed(ResourceEvidence(), files=1024), "RT-QUOTA-FILES", DEGRADED, "1024",
        "nofile",
    ),
    "low ports": (resources, lambda: changed(ResourceEvidence(), ports=0), "RT-NET-PORTS", OK, "any port",
    ""),
    "no network helper": (
        resources, lambda: changed(ResourceEvidence(), programs={}), "RT-NET-HELPER", OK, "apt install passt",
        "",
    ),
    "no tun": (
        resources, lambda: changed(ResourceEvidence(), devices={}), "RT-NET-HELPER", DEGRADED, "tun",
        "modprobe tun",
    ),
    "a closed fuse": (
        resources, lambda: changed(ResourceEvidence(), devices={"/dev/fuse": Step("/dev/fuse", 0o20600)}),
        "RT-DEV-FUSE", DEGRADED, "closed to you", "chmod 666 /dev/fuse",
    ),
    "a kvm of a group": (
        resources,
        lambda: changed(
            ResourceEvidence(), devices={"/dev/kvm": Step("/dev/kvm", 0o20660, 0, 104)}, group={104: "kvm"}
        ),
        "RT-DEV-KVM", OK, "usermod -aG kvm alice", "",
    ),
    "no libseccomp": (
        resources, lambda: changed(ResourceEvidence(), library=None),
        "RT-TOOL-SECCOMP", DEGRADED, "libseccomp is not", "apt install libseccomp2",
    ),
    "no bindings": (
        resources, lambda: changed(ResourceEvidence(), bindings=False),
        "RT-TOOL-SECCOMP", DEGRADED, "no bindings", "pip install",
    ),
    "no criu": (criu_checks, lambda: CriuEvidence(""), "RT-TOOL-CRIU", OK, "apt install", ""),
    "criu is not for users": (
        criu_checks, lambda: changed(CriuEvidence(), refused="for root"), "RT-TOOL-CRIU", OK, "for root", "",
    ),
    "criu without protobuf": (
        criu_checks, lambda: changed(CriuEvidence(), library=False), "RT-TOOL-CRIU", DEGRADED, "no protobuf",
        "pip install",
    ),
    "criu that fails on the kernel": (
        criu_checks, lambda: changed(CriuEvidence(), problem="Kernel too old"), "RT-TOOL-CRIU", DEGRADED,
        "Kernel too old", "a newer criu",
    ),
    "hybrid cgroups": (
        cgroup_checks, lambda: CgroupEvidence("hybrid", None), "RT-CGROUP-VERSION", DEGRADED, "hybrid",
        "boot",
    ),
    "nothing delegated": (
        cgroup_checks, lambda: changed(CgroupEvidence("v2", None), refused="no write permission in /x"),
        "RT-CGROUP-DELEGATED", DEGRADED, "no write permission in /x", "systemd-run --user --scope",
    ),
    "a bus that cannot be spoken to": (
        cgroup_checks, lambda: changed(CgroupEvidence(), refused="no", client=False),
        "RT-CGROUP-DELEGATED", DEGRADED, "jeepney is missing", "RT-SYSTEMD-CLIENT",
    ),
    "a delegated cgroup": (
        cgroup_checks, lambda: changed(CgroupEvidence("v2", None), own="/a"), "RT-CGROUP-DELEGATED", OK,
        "below /a", "",
    ),
    "cpu not delegated": (
        cgroup_checks,
        lambda: changed(
            CgroupEvidence(),
            levels=[
                ("/", frozenset(("cpu", "memory", "pids"))),
                ("/user.slice", frozenset(("memory", "pids"))),
                ("/user.slice/user-1000.slice/user@1000.service", frozenset(("memory", "pids"))),
            ],
        ),
        "RT-CGROUP-CONTROLLERS", DEGRADED,
        "cpu not delegated to /user.slice/user-1000.slice/user@1000.service"
        " (lost at /user.slice)", "systemctl edit user@.service",
    ),
    "only cpuset and io missing": (
        cgroup_checks, lambda: changed(CgroupEvidence(), levels=[("/", frozenset(("cpu", "memory",
        "pids")))]),
        "RT-CGROUP-CONTROLLERS", OK, "not cpuset, io", "",
    ),
    "controllers that the kernel has off": (
        cgroup_checks, lambda: changed(CgroupEvidence(), levels=[("/", frozenset(("cpu", "pids")))]),
        "RT-CGROUP-CONTROLLERS", DEGRADED, "memory not in the whole tree", "cgroup_enable=memory",
    ),
    "an old systemd": (
        cgroup_checks,
        lambda: changed(
            CgroupEvidence(),
            systemd=249,
            levels=[("/", frozenset(("cpu", "memory", "pids"))), ("/user@1000.service", frozenset(("memory",
            "pids")))],
        ),
        "RT-CGROUP-CONTROLLERS", DEGRADED, "systemd 249 does not by default", "Delegate=cpu",
    ),
    "a tight session": (
        cgroup_checks, lambda: changed(CgroupEvidence(), limits=[("/a", "pids.max", 33)]),
        "RT-CGROUP-LIMITS", DEGRADED, "pids.max of /a is 33", "set-property",
    ),
    "a wide session": (
        cgroup_checks, lambda: changed(CgroupEvidence(), limits=[("/a", "pids.max", 3300)]),
        "RT-CGROUP-LIMITS", OK, "pids.max 3300 of /a", "",
    ),
}  # fmt: skip


def one(subject: Any, evidence: object, id: str, me: Me | None = None) -> Finding:
    return next(item for item in diagnose(subject.CHECKS, evidence, me or Me()) if item.id == id)


@pytest.mark.parametrize("name", CHECKED)
def test_evidence_is_diagnosed_with_status_cause_and_fix(name: str) -> None:
    subject, make, id, status, why, fix = CHECKED[name]
    found = one(subject, make(), id)
    assert (found.status, why in found.why, fix in found.fix) == (status, True, True), found.as_dict()


def test_most_gates_do_not_concern_the_host_s_root() -> None:
    root = Me(0, groups=(0,), name="root")
    closed = namespaces(None, apparmor="1", unprivileged_clone="0", maximum="0", seccomp="2", chrooted=True)
    assert {item.status for item in diagnose(userns.CHECKS, closed, root)} == {OK}
    nothing = mapping(helper=None, granted=[])
    assert {item.status for item in diagnose(identity.CHECKS, nothing, root)} == {OK}
    assert one(cgroup_checks, CgroupEvidence("v1", None), "RT-CGROUP-VERSION", root).status == OK


def test_relative_entries_of_path_are_told() -> None:
    me = Me(environ={"PATH": "/usr/bin::."})
    assert one(session, SessionEvidence(), "RT-SESSION-PATH", me).status == DEGRADED
    assert one(session, SessionEvidence(), "RT-SESSION-PATH", Me()).status == OK


def test_a_user_without_a_name_is_told() -> None:
    found = one(identity, mapping(), "RT-IDS-NAME", Me(name=None))
    assert found.status == DEGRADED and "/etc/passwd" in found.fix


@pytest.mark.parametrize(("step", "who", "wanted", "answer"), [
    (Step("/a", 0o40700, 5, 5), Who(5, ()), 1, True),
    (Step("/a", 0o40077, 5, 5), Who(5, (5,)), 1, False),
    (Step("/a", 0o40010, 5, 6), Who(7, (6,)), 1, True),
    (Step("/a", 0o40701, 5, 6), Who(7, (6,)), 1, False),
    (Step("/a", 0o40701, 5, 6), Who(7, ()), 1, True),
    (Step("/a", 0o40000, 5, 6), Who(0, (), powerful=True), 1, True),
    (Step("/a", 0o40750, 5, 6, [(1, 7, 0), (2, 1, 7), (4, 5, 0), (16, 5, 0), (32, 0, 0)]), Who(7, ()), 1,
    True),
    (Step("/a", 0o40750, 5, 6, [(1, 7, 0), (2, 1, 7), (4, 5, 0), (16, 4, 0), (32, 0, 0)]), Who(7, ()), 1,
    False),
    (Step("/a", 0o40750, 5, 6, [(4, 0, 0), (8, 1, 9), (16, 7, 0)]), Who(7, (9,)), 1, True),
    (Step("/a", 0o40751, 5, 6, [(4, 0, 0), (8, 4, 9), (16, 7, 0)]), Who(7, (9,)), 1, False),
    (Step("/a", 0o40751, 5, 6, [(4, 0, 0), (8, 4, 9), (16, 7, 0)]), Who(7, ()), 1, True),
])  # fmt: skip
def test_modes_and_access_lists_are_read_as_the_kernel_does(
    step: Step, who: Who, wanted: int, answer: bool
) -> None:
    assert allowed(step, who, wanted) is answer


def test_the_first_closed_directory_is_named() -> None:
    path = [Step("/", 0o40755), Step("/srv", 0o40750, 0, 4), Step("/srv/data", 0o40700, 9, 9)]
    closed = denied(path, Who(1001, (1001,)))
    assert closed is path[1] and closed.shown().startswith("/srv (0750 root:")


@pytest.mark.parametrize(
    "data", [b"", b"\x01\0\0\0" + b"\0" * 8, b"\x02\0\0\0\x01", b"\x02\0\0\0" + b"\xff" * 7]
)
def test_a_broken_access_list_is_none(data: bytes) -> None:
    assert parse_acl(data) == []


TRIES = """
from rootless_rt.host.doctor.probe import MAP, PROC, TMPFS, USERNS, probe

before = open("/proc/self/mountinfo").read()
tried = probe()
assert tried is None or tried.refused in (USERNS, MAP, TMPFS, PROC, "", "mount namespace", "pids")
assert open("/proc/self/mountinfo").read() == before
"""


def test_the_child_that_tries_leaves_nothing() -> None:
    """Seen among mounts of the test's own: among the machine's anybody may mount something meanwhile."""
    apart = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a mount namespace")
    words = [*apart, sys.executable, "-c", TRIES]
    done = subprocess.run(words, capture_output=True, text=True, cwd=TREE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
