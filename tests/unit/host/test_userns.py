"""Why no user namespace can be had: every gate, from evidence as it is found on such hosts."""

from __future__ import annotations

import errno

import pytest

from rootless_rt.host.doctor.reasons import BY_ID
from rootless_rt.host.userns import CLONE_NEWUSER, KINDS, UsernsEvidence, clone_failure, diagnose, shortage

ROOT_MOUNT = "28 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw"
CHROOT_MOUNT = "28 1 259:2 / /proc rw,relatime - proc proc rw"

# What each gate looks like in /proc, the errno it gives, words of the cause, words of the fix.
GATES = {
    "no kernel support": ({"no_userns": True}, errno.EINVAL, "CONFIG_USER_NS", "another kernel"),
    "Debian's old switch": (
        {"sys/kernel/unprivileged_userns_clone": "0\n"},
        errno.EPERM,
        "kernel.unprivileged_userns_clone is 0",
        "sysctl kernel.unprivileged_userns_clone=1",
    ),
    "none allowed": (
        {"sys/user/max_user_namespaces": "0\n"},
        errno.ENOSPC,
        "user.max_user_namespaces is 0",
        "sysctl user.max_user_namespaces=",
    ),
    "too many": (
        {"sys/user/max_user_namespaces": "31000\n"},
        errno.ENOSPC,
        "too many namespaces",
        "/proc/sys/user",
    ),
    "nested too deep": ({}, errno.EUSERS, "nested too deep", "end some containers"),
    "AppArmor": (
        {"sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
        errno.EPERM,
        "AppArmor",
        "kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    "AppArmor, denied": (
        {"sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
        errno.EACCES,
        "AppArmor",
        "profile that allows rt `userns,`",
    ),
    "the own uid is not mapped": (
        {"self/uid_map": "4294000000 7 1"},
        errno.EPERM,
        "which this process has, does not exist in its user namespace",
        "map it",
    ),
    "a chroot onto a mount point": ({}, errno.EPERM, "in a chroot", "pivot_root"),
    "something that confines it": (
        {"self/attr/apparmor/current": "box (enforce)"},
        errno.EPERM,
        "operation not permitted",
        "kernel's log",
    ),
    "chroot": ({"self/mountinfo": CHROOT_MOUNT}, errno.EPERM, "chroot", "pivot_root"),
    "seccomp of an outer container": (
        {"self/status": "Name:\tx\nSeccomp:\t2\n"},
        errno.EPERM,
        "seccomp",
        "seccomp=unconfined",
    ),
    "seccomp that hides clone3": (
        {"self/status": "Name:\tx\nSeccomp:\t2\n"},
        errno.ENOSYS,
        "seccomp",
        "seccomp=unconfined",
    ),
    "nothing known": ({}, errno.ENOMEM, "cannot allocate memory", None),
}


@pytest.fixture
def host(tmp_path):
    def make(files):
        files = {"self/mountinfo": ROOT_MOUNT, "self/status": "Name:\tx\nSeccomp:\t0\n", **files}
        if not files.pop("no_userns", False):
            files["self/ns/user"] = ""
        for name, text in files.items():
            path = tmp_path / "proc" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(tmp_path)

    return make


@pytest.mark.parametrize("gate", GATES)
def test_each_gate_is_named_with_its_fix(host, gate):
    files, number, cause, fix = GATES[gate]
    found = diagnose(UsernsEvidence(host(files)), number)
    assert cause in found.why and "\n" not in found.why
    assert (found.fix is None and not found.id) if fix is None else (fix in found.fix and found.id in BY_ID)


@pytest.mark.parametrize("gate", GATES)
def test_the_error_says_what_could_not_be_made(host, gate):
    files, number, cause, _ = GATES[gate]
    error = clone_failure(number, CLONE_NEWUSER | 0x20000, host(files))
    assert error.message.startswith("cannot make a user namespace: ") and cause in error.message


def test_an_open_gate_is_not_blamed(host):
    files = {
        "sys/kernel/unprivileged_userns_clone": "1\n",
        "sys/kernel/apparmor_restrict_unprivileged_userns": "0\n",
        "sys/user/max_user_namespaces": "31000\n",
    }
    found = diagnose(UsernsEvidence(host(files)), errno.EPERM)
    assert found.id == "RT-USERNS-CHROOT" and "as far as one can tell" in found.why


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind != "user"])
def test_another_kind_of_namespace_that_is_switched_off_or_used_up_is_named(host, kind):
    files = {f"sys/user/max_{name}_namespaces": "31000\n" for name in KINDS.values()}
    evidence = UsernsEvidence(host(files))
    assert shortage(evidence, KINDS.values()) is None
    evidence.short = kind
    named, cause = shortage(evidence, KINDS.values())
    assert (named, cause.id) == (kind, "RT-NAMESPACES-MAX") and "31000" in cause.why
    off = UsernsEvidence(host({**files, f"sys/user/max_{kind}_namespaces": "0\n"}))
    named, cause = shortage(off, KINDS.values())
    assert named == kind and "switched off" in cause.why
    assert f"sysctl user.max_{kind}_namespaces=" in cause.fix


def test_apparmor_is_not_blamed_for_a_shortage(host):
    files = {"sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}
    assert "AppArmor" not in diagnose(UsernsEvidence(host(files)), errno.ENOSPC).why


def test_a_host_without_any_of_the_files_gives_no_error(tmp_path):
    evidence = UsernsEvidence(str(tmp_path))
    assert evidence.seccomp == "0" and not evidence.chrooted and not evidence.supported
    assert (evidence.unprivileged_clone, evidence.apparmor, evidence.maximum) == (None, None, None)


def test_without_a_user_namespace_the_caller_lacks_a_capability(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    error = clone_failure(errno.EPERM, 0x20000)
    assert error.message == "cannot make the namespaces: operation not permitted"
    assert "CAP_SYS_ADMIN" in error.hint and "--rootless" in error.hint
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert (
        clone_failure(errno.EPERM, 0x20000).message == "cannot make the namespaces: operation not permitted"
    )
