"""`rt doctor` on recorded hosts: every check that reads files, in each of its states."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lab.hosts import CAPS, MOUNTS, alice, by_id, host

from rootless_rt.cgroups import checkup as cgroup_checks
from rootless_rt.host.doctor import identity, kernel, resources, session, surroundings, system, userns
from rootless_rt.host.doctor.examine import examine
from rootless_rt.host.doctor.model import OK, Finding, diagnose
from rootless_rt.host.doctor.session import has_package

BUS = "/run/user/1000/bus"
MASKED = (
    MOUNTS + "40 22 0:50 / /proc/kcore ro - tmpfs tmpfs rw\n41 22 0:21 /sys /proc/sys ro - proc proc rw\n"
)
HIDDEN_SYS = MOUNTS + "40 23 0:50 / /sys/devices/virtual/powercap ro - tmpfs tmpfs ro\n"
STATUS = "Name:\tpython\nCapBnd:\t{caps}\nNoNewPrivs:\t{nnp}\nSeccomp:\t{seccomp}\n"


def looked(root: str, bus: str | None = BUS, **environ: str) -> dict[str, Finding]:
    me = alice(root, **environ)
    seen = cgroup_checks.gather(root, me, bus, has_package("jeepney"))
    return by_id(examine(me, bus, root) + diagnose(cgroup_checks.CHECKS, seen, me))


# Of this process and this Python, whatever root directory is looked at.
OWN = {"RT-QUOTA-PROCESSES", "RT-QUOTA-FILES", "RT-TOOL-SECCOMP", "RT-SYSTEMD-CLIENT", "RT-PYTHON"}
# The files of a recorded host belong to whoever runs the tests, and lie where they lie.
OWN |= {"RT-IDS-HELPER-RIGHTS", "RT-SESSION-RUNTIME-DIR", "RT-CGROUP-DELEGATED", "RT-USERNS-UNMAPPED"}
OWN |= {"RT-DEV-FUSE", "RT-NET-HELPER", "RT-CGROUP-CONTROLLERS"}


def test_a_healthy_host_is_healthy(tmp_path: Path) -> None:
    found = looked(host(tmp_path))
    assert {
        id: (item.status, item.why) for id, item in found.items() if item.status != OK and id not in OWN
    } == {}


# Host: what is otherwise, the id, its status, words of the cause, words of the fix.
STATES: dict[str, tuple[dict[str, str | None], str, str, str, str]] = {
    "an old kernel": (
        {"proc__sys__kernel__osrelease": "5.10.0-21-amd64"}, "RT-KERNEL-VERSION", "blocked", "5.10.0",
        "update",
    ),
    "an odd kernel": (
        {"proc__sys__kernel__osrelease": "²5.x"}, "RT-KERNEL-VERSION", "blocked", "older than 5.12", "update",
    ),
    "before cgroup.kill": (
        {"proc__sys__kernel__osrelease": "5.13.0"}, "RT-KERNEL-FEATURES", "degraded", "cgroup.kill", "update",
    ),
    "no time namespaces": (
        {"proc__self__ns__time": None}, "RT-KERNEL-FEATURES", "degraded", "time namespaces", "update",
    ),
    "no overlay": (
        {"proc__filesystems": "\text4\n"}, "RT-KERNEL-OVERLAY", "degraded", "no overlay",
        "apt install fuse-overlayfs",
    ),
    "no /proc": ({"proc__self__status": None}, "RT-PROC-MISSING", "blocked", "cannot be read",
    "mount -t proc"),
    "no user namespaces": (
        {"proc__self__ns__user": None}, "RT-USERNS-KERNEL", "blocked", "CONFIG_USER_NS", "another kernel",
    ),
    "Debian's switch": (
        {"proc__sys__kernel__unprivileged_userns_clone": "0\n"},
        "RT-USERNS-CLONE", "blocked", "switched off", "sysctl kernel.unprivileged_userns_clone=1",
    ),
    "no user namespace allowed": (
        {"proc__sys__user__max_user_namespaces": "0\n"},
        "RT-USERNS-MAX", "blocked", "switched off", "sysctl user.max_user_namespaces=28633",
    ),
    "AppArmor": (
        {"proc__sys__kernel__apparmor_restrict_unprivileged_userns": "1\n"},
        "RT-USERNS-APPARMOR", "blocked", "without a profile", "`userns,`",
    ),
    "a chroot": (
        {"proc__self__mountinfo": "22 27 0:21 / /proc rw - proc proc rw\n"},
        "RT-USERNS-CHROOT", "blocked", "chroot", "pivot_root",
    ),
    "no pid namespaces": (
        {"proc__sys__user__max_pid_namespaces": "0"},
        "RT-NAMESPACES-MAX", "blocked", "max_pid_namespaces", "user.max_pid_namespaces=28633",
    ),
    "no net namespaces": (
        {"proc__sys__user__max_net_namespaces": "0"},
        "RT-NAMESPACES-MAX", "degraded", "max_net_namespaces", "sysctl",
    ),
    "no_new_privs": (
        {"proc__self__status": STATUS.format(caps=CAPS, nnp=1, seccomp=0)},
        "RT-PRIV-NNP", "degraded", "newuidmap has no power", "allowPrivilegeEscalation",
    ),
    "a small bounding set": (
        {"proc__self__status": STATUS.format(caps="000001ffffffff3f", nnp=0, seccomp=0)},
        "RT-PRIV-BOUNDING", "degraded", "CAP_SETUID and CAP_SETGID", "--cap-add SETUID",
    ),
    "an AppArmor profile": (
        {"proc__self__attr__apparmor__current": "docker-default (enforce)\n"},
        "RT-LSM", "degraded", "profile docker-default", "apparmor=unconfined",
    ),
    "an SELinux domain of containers": (
        {"sys__fs__selinux__enforce": "1",
         "proc__self__attr__current": "system_u:system_r:container_t:s0:c1,c2\0"},
        "RT-LSM", "degraded", "container_t", "label=disable",
    ),
    "Docker": ({".dockerenv": ""}, "RT-NESTED", "ok", "Docker", ""),
    "Podman": ({"run__.containerenv": ""}, "RT-NESTED", "ok", "Podman", ""),
    "a pod": ({"proc__1__cgroup": "0::/kubepods/pod1"}, "RT-NESTED", "ok", "Kubernetes", ""),
    "a masked /proc": (
        {"proc__self__mountinfo": MASKED}, "RT-PROC-MASKED", "blocked", "/proc/kcore, /proc/sys",
        "systempaths",
    ),
    "a masked /proc in Docker": (
        {"proc__self__mountinfo": MASKED, ".dockerenv": ""},
        "RT-PROC-MASKED", "blocked", "/proc/kcore", "docker run --security-opt systempaths=unconfined",
    ),
    "a masked /proc in a pod": (
        {"proc__self__mountinfo": MASKED, "proc__1__cgroup": "0::/kubepods/pod1"},
        "RT-PROC-MASKED", "blocked", "/proc/kcore", "procMount: Unmasked",
    ),
    "a masked /sys": (
        {"proc__self__mountinfo": HIDDEN_SYS}, "RT-SYS-MASKED", "degraded", "powercap", "bind /sys",
    ),
    "no helper, Debian": (
        {"usr__bin__newuidmap": None}, "RT-IDS-HELPER", "degraded", "newuidmap is not installed",
        "apt install uidmap",
    ),
    "no helper, Fedora": (
        {"usr__bin__newuidmap": None, "usr__bin__newgidmap": None, "etc__os-release": "ID=fedora\n"},
        "RT-IDS-HELPER", "degraded", "newuidmap and newgidmap are not", "sudo dnf install shadow-utils",
    ),
    "no helper, Arch": (
        {"usr__bin__newuidmap": None, "etc__os-release": "ID=manjaro\nID_LIKE=arch\n"},
        "RT-IDS-HELPER", "degraded", "newuidmap is", "sudo pacman -S shadow",
    ),
    "no helper, openSUSE": (
        {"usr__bin__newuidmap": None, "etc__os-release": 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\n'},
        "RT-IDS-HELPER", "degraded", "newuidmap is", "sudo zypper install shadow",
    ),
    "no helper, Alpine": (
        {"usr__bin__newuidmap": None, "etc__os-release": "ID=alpine\n"},
        "RT-IDS-HELPER", "degraded", "newuidmap is", "sudo apk add shadow-uidmap",
    ),
    "no helper, an unknown system": (
        {"usr__bin__newuidmap": None, "etc__os-release": "ID=plan9\n"},
        "RT-IDS-HELPER", "degraded", "newuidmap is", "install the package that has newuidmap",
    ),
    "no grant": (
        {"etc__subuid": "bob:100000:65536\n", "etc__subgid": None},
        "RT-IDS-SUBID", "degraded", "/etc/subuid grants alice no uids", "--add-subuids 165536-231071",
    ),
    "a malformed line": (
        {"etc__subuid": "alice:0x100:65536\n"}, "RT-IDS-SUBID", "degraded", "line 1 for alice is malformed",
        "mend",
    ),
    "a small range": (
        {"etc__subuid": "alice:100000:1000\n"}, "RT-IDS-SUBID-SIZE", "degraded", "1000 uids", "--add-subuids",
    ),
    "few ids in the namespace": (
        {"proc__self__uid_map": "0 1000 1\n1000 5000 100\n"}, "RT-IDS-SUBID-SIZE", "degraded",
        "only 101 uids", "65536",
    ),
    "a shared range": (
        {"etc__subuid": "alice:100000:65536\nbob:165000:65536\n"},
        "RT-IDS-SUBID-OVERLAP", "degraded", "uids 165000:536 are also those of bob (line 2)", "another range",
    ),
    "an account in the range": (
        {"etc__passwd": "alice:x:1000:1000::/home/alice:/bin/sh\nsam:x:100007:1::/:/bin/sh\n"},
        "RT-IDS-SUBID-OVERLAP", "degraded", "100007:1 are also those of sam", "another range",
    ),
    "ids on NFS": (
        {"proc__self__mountinfo": MOUNTS + "50 27 0:60 / /etc rw - nfs4 srv:/etc rw\n"},
        "RT-IDS-SUBID-LINK", "degraded", "/etc/subuid is on a network file system (nfs4)",
        "local file system",
    ),
    "a provider that cannot be asked": (
        {"etc__nsswitch.conf": "subid: sss\n"}, "RT-IDS-PROVIDER", "degraded", "names sss", "install",
    ),
    "no cgroups": (
        {"proc__self__mountinfo": "27 1 254:0 / / rw - ext4 /dev/vda rw\n", "proc__self__cgroup": ""},
        "RT-CGROUP-MOUNT", "degraded", "no cgroup file system", "mount -t cgroup2",
    ),
    "cgroup v1": (
        {"proc__self__mountinfo": MOUNTS.replace("cgroup2 cgroup2 rw", "cgroup cgroup rw,memory"),
         "proc__self__cgroup": "4:memory:/\n"},
        "RT-CGROUP-VERSION", "degraded", "v1", "unified_cgroup_hierarchy=1",
    ),
    "no linger": (
        {"var__lib__systemd__linger__alice": None}, "RT-SYSTEMD-LINGER", "degraded", "off",
        "enable-linger alice",
    ),
    "used up keys": (
        {"proc__key-users": "1000: 190 190/190 190/200 46/20000\n"},
        "RT-QUOTA-KEYS", "degraded", "190 of 200", "kernel.keys.maxkeys=2000",
    ),
    "few inotify instances": (
        {"proc__sys__fs__inotify__max_user_instances": "16"}, "RT-QUOTA-INOTIFY", "degraded", "is 16", "1024",
    ),
    "no ping": (
        {"proc__sys__net__ipv4__ping_group_range": "1\t0"}, "RT-NET-PING", "ok", "not on the host's network",
        "",
    ),
    "hostile numbers": (
        {"proc__sys__net__ipv4__ping_group_range": "-1 1_0", "proc__key-users": "1000: x y/z \x01\n",
         "proc__sys__fs__inotify__max_user_instances": "9" * 50,
         "proc__sys__user__max_user_namespaces": "max"},
        "RT-NET-PING", "ok", "", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_a_state_of_a_host_is_told_with_cause_and_fix(name: str, tmp_path: Path) -> None:
    changes, id, status, why, fix = STATES[name]
    found = looked(host(tmp_path, **changes))[id]
    assert (found.status, why in found.why, fix in found.fix) == (status, True, True), found.as_dict()


def test_a_host_without_any_file_is_looked_at_to_the_end(tmp_path: Path) -> None:
    found = looked(str(tmp_path), None)
    assert found["RT-PROC-MISSING"].status == "blocked"


def test_a_link_in_place_of_subuid_is_told(tmp_path: Path) -> None:
    root = host(tmp_path, etc__subuid=None)
    os.symlink("/nfs/subuid", tmp_path / "etc/subuid")
    found = looked(root)["RT-IDS-SUBID-LINK"]
    assert "symbolic link to /nfs/subuid" in found.why and "readlink" in found.commands[0]


@pytest.mark.parametrize(("environ", "platform"), [
    ({"GITHUB_ACTIONS": "true", "container": "docker"}, "GitHub Actions"),
    ({"GITLAB_CI": "true", "container": "x"}, "GitLab CI"),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "Kubernetes"),
    ({"container": "podman"}, "Podman"),
    ({"container": "lxc"}, "a container"),
    ({"GITHUB_ACTIONS": "true"}, "none"),
])  # fmt: skip
def test_the_platform_is_told_by_variables(tmp_path: Path, environ: dict[str, str], platform: str) -> None:
    assert looked(host(tmp_path), **environ)["RT-NESTED"].why == platform


def test_the_session_is_read_from_the_environment(tmp_path: Path) -> None:
    root = host(tmp_path)
    me = alice(root, XDG_RUNTIME_DIR="")
    assert session.gather(root, me, None).runtime == ""
    me = alice(root)
    seen = session.gather(root, me, None)
    assert (seen.runtime, seen.runtime_mode, seen.usual, seen.linger) == ("/run/user/1000", 0o700, True, True)
    assert [step.path for step in seen.home] == ["/", "/home", "/home/alice"]


def test_below_a_root_directory_no_child_is_made_and_nothing_is_asked(tmp_path: Path, monkeypatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(os, "fork", never)
    monkeypatch.setattr(userns, "probe", never)
    monkeypatch.setattr(kernel, "_ask", never)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    root = host(tmp_path / "host")
    inside = sorted(str(path) for path in (tmp_path / "host").rglob("*"))
    looked(root)
    assert before == [] and sorted(str(path) for path in (tmp_path / "host").rglob("*")) == inside


def test_all_subjects_give_the_ids_of_the_catalogue_and_no_others(tmp_path: Path) -> None:
    from rootless_rt.container import checkup
    from rootless_rt.criu import checkup as criu_checks
    from rootless_rt.host.doctor.reasons import REASONS
    from rootless_rt.host.doctor.reasons_errors import ERRORS

    subjects = (kernel, userns, surroundings, identity, session, resources)
    tables = (*subjects, cgroup_checks, checkup, criu_checks)
    ids = [id for table in tables for id, _ in table.CHECKS]
    assert sorted(ids) == sorted({reason.id for reason in REASONS} - {reason.id for reason in ERRORS})


def test_the_words_of_os_release_name_the_package_manager() -> None:
    assert [system.manager(words) for words in ("linuxmint ubuntu debian", "rocky rhel centos fedora",
    "")] == [
        "apt", "dnf", "",
    ]  # fmt: skip


def test_the_version_of_systemd_is_read_off_its_library(tmp_path: Path) -> None:
    root = host(tmp_path, usr__lib__systemd__x="")
    (tmp_path / "usr/lib/systemd/libsystemd-shared-255.4-1.fc40.so").write_text("")
    me = alice(root)
    assert cgroup_checks.gather(root, me, None, True).systemd == 255
    (tmp_path / "usr/lib/systemd/libsystemd-shared-255.4-1.fc40.so").rename(tmp_path / "gone")
    assert cgroup_checks.gather(root, me, None, True).systemd == 0
