"""What stands in users' way, staged on the real kernel: one row a cause, for tests/user/test_explained.py.

A row names the cause, the id of `rt explain`, the words of the one line and of the one hint, and how it is
staged. Where the container can be had all the same (`runs`), the line is a warning, and an error under
--degrade=strict.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lab.bundles import BUSYBOX, Bundle
from lab.elf import foreign, without_loader
from lab.engine_profiles import docker
from lab.filters import behind_filter, denying
from lab.keys import no_keys_left
from lab.ranges import map_ranges
from lab.runtime import Runtime
from lab.users import User
from lab.wrapped import Wrapped, after, with_etc, with_mounts

KINDS = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "time")


class Rig:
    """What a row may use: the command as alice, a bundle of hers, and a place for files."""

    def __init__(self, rt: Runtime, box: Bundle, alice: User, place: Path, stack: ExitStack) -> None:
        self.rt, self.box, self.alice, self.place, self.stack = rt, box, alice, place, stack

    def config(self, **process: Any) -> Bundle:
        return self.box.change(lambda config: config["process"].update(process))

    def linux(self, **linux: Any) -> Bundle:
        return self.box.change(lambda config: config["linux"].update(linux))

    def mount(self, **mount: Any) -> Bundle:
        return self.box.change(lambda config: config["mounts"].append(mount))

    def program(self, content: bytes, mode: int = 0o755) -> Bundle:
        path = self.box.rootfs / "program"
        path.write_bytes(content)
        path.chmod(mode)
        self.alice.owns(path)
        return self.box.run(["/program"])

    def without(self, kind: str) -> Bundle:
        """The config without a namespace of its own of this kind."""

        def change(config: dict[str, Any]) -> None:
            listed = config["linux"]["namespaces"]
            config["linux"]["namespaces"] = [item for item in listed if item["type"] != kind]

        return self.box.change(change)

    def as_root_of_a_user_namespace(self) -> Bundle:
        own = [{"containerID": 0, "hostID": 0, "size": 1}]
        return self.linux(uidMappings=own, gidMappings=own)

    def every_namespace(self) -> Bundle:
        kinds = ("pid", "network", "ipc", "uts", "mount", "cgroup", "user", "time")
        self.as_root_of_a_user_namespace()
        return self.linux(namespaces=[{"type": kind} for kind in kinds])


Stage = Callable[[Rig], Runtime]


class Row:
    """One cause; `seen` are words of the line, `fix` words of the hint."""

    def __init__(self, name: str, id: str, seen: str, fix: str, stage: Stage, *, runs: bool = False) -> None:
        self.name, self.id, self.seen, self.fix, self.stage, self.runs = name, id, seen, fix, stage, runs


# User namespaces and the others


def _in_a_user_namespace(rig: Rig, script: str) -> Runtime:
    return Wrapped(rig.rt, "unshare", "-Ur", "sh", "-ec", f'{script}\nexec "$@"', "sh")


def no_user_namespaces(rig: Rig) -> Runtime:
    rig.as_root_of_a_user_namespace()
    return _in_a_user_namespace(rig, "echo 0 > /proc/sys/user/max_user_namespaces")


def with_one_of(kind: str, flag: str) -> str:
    """A script that allows one namespace of a kind, has somebody hold one, and goes on with "$@"."""
    return f"""
        echo 1 > /proc/sys/user/max_{kind}_namespaces
        unshare {flag} sleep 60 & holder=$!
        own=$(readlink /proc/self/ns/{kind})
        while [ "$(readlink /proc/$holder/ns/{kind})" = "$own" ]; do sleep 0.02; done
        code=0; "$@" || code=$?
        kill $holder; wait $holder 2> /dev/null; exit $code
    """


def no_more_user_namespaces(rig: Rig) -> Runtime:
    rig.as_root_of_a_user_namespace()
    return Wrapped(rig.rt, "unshare", "-Ur", "sh", "-c", with_one_of("user", "-U"), "sh")


def none_of_a_kind(kind: str) -> Stage:
    def stage(rig: Rig) -> Runtime:
        rig.every_namespace()
        return _in_a_user_namespace(rig, f"echo 0 > /proc/sys/user/max_{kind}_namespaces")

    return stage


def no_more_of_a_kind(rig: Rig) -> Runtime:
    rig.every_namespace()
    return Wrapped(rig.rt, "unshare", "-Ur", "sh", "-c", with_one_of("uts", "-u"), "sh")


def chrooted(rig: Rig) -> Runtime:
    rig.as_root_of_a_user_namespace()
    (rig.place / "root").mkdir()
    enter = f'mount --rbind / {rig.place}/root; exec /usr/sbin/chroot {rig.place}/root "$@"'
    return Wrapped(rig.rt, "unshare", "-Urm", "sh", "-ec", enter, "sh")


def unmapped(rig: Rig) -> Runtime:
    return Wrapped(rig.rt, "unshare", "-U")


# Rights and helpers


def no_new_privs(rig: Rig) -> Runtime:
    map_ranges(rig.box, rig.alice)
    return Wrapped(rig.rt, "setpriv", "--no-new-privs")


def bounding_set(rig: Rig) -> Runtime:
    map_ranges(rig.box, rig.alice)
    return Wrapped(rig.rt, as_root=True, options=("--bounding-set=-setuid",))


def _helper() -> str:
    return os.path.realpath(shutil.which("newuidmap") or pytest.skip("needs newuidmap"))


def no_helper(rig: Rig) -> Runtime:
    map_ranges(rig.box, rig.alice)
    return with_mounts(rig.rt, f"mount --bind /dev/null {_helper()}")


def helper_without_bit(rig: Rig) -> Runtime:
    map_ranges(rig.box, rig.alice)
    shutil.copy(_helper(), rig.place / "newuidmap")
    (rig.place / "newuidmap").chmod(0o755)
    return with_mounts(rig.rt, f"mount --bind {rig.place}/newuidmap {_helper()}")


def helper_with_the_wrong_capability(rig: Rig) -> Runtime:
    rt = helper_without_bit(rig)
    done = subprocess.run(
        ["setcap", "cap_setgid=ep", str(rig.place / "newuidmap")], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("file capabilities cannot be set here")
    return rt


def helper_on_nosuid(rig: Rig) -> Runtime:
    map_ranges(rig.box, rig.alice)
    return with_mounts(
        rig.rt, f"mount --bind {_helper()} {_helper()}; mount -o remount,bind,nosuid {_helper()}"
    )


def no_grant(rig: Rig) -> Runtime:
    map_ranges(rig.box, rig.alice)
    return with_etc(rig.rt, rig.place, ": > /etc/subuid")


def small_grant(rig: Rig) -> Runtime:
    map_ranges(rig.box, rig.alice)
    rig.box.change(lambda config: config["linux"]["uidMappings"][-1].update(size=70000))
    return rig.rt


def no_name(rig: Rig) -> Runtime:
    map_ranges(rig.box, rig.alice)
    return with_etc(rig.rt, rig.place, f"sed -i /^{rig.alice.name}:/d /etc/passwd")


# A container around


def masked_proc(rig: Rig) -> Runtime:
    return with_mounts(rig.rt, "mount --bind /dev/null /proc/version")


def read_only_sysctls(rig: Rig) -> Runtime:
    return with_mounts(rig.rt, "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys")


def masked_sys(rig: Rig) -> Runtime:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].append({"type": "network"})
        config["mounts"] = [item for item in config["mounts"] if item["destination"] != "/sys"]
        config["mounts"].append({"destination": "/sys", "type": "sysfs", "source": "sysfs"})

    rig.box.change(change)
    return with_mounts(rig.rt, "mount -t tmpfs tmpfs /sys/devices/virtual")


def filtered(*calls: str, with_errno: int = errno.EPERM, **linux: Any) -> Stage:
    def stage(rig: Rig) -> Runtime:
        rig.box.change(lambda config: config.update(domainname="example.org"))
        if linux:
            rig.linux(**linux)
        return behind_filter(rig.rt, rig.place, denying(*calls, with_errno=with_errno))

    return stage


def docker_s_filter(rig: Rig) -> Runtime:
    return behind_filter(rig.rt, rig.place, docker())


_NAMESPACES = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "user", "cgroup")]


# Quotas and limits


def full_keyring(rig: Rig) -> Runtime:
    rig.stack.enter_context(no_keys_left(rig.alice))
    return rig.rt


def low_limit(rig: Rig) -> Runtime:
    rig.config(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1048576}])
    return after(rig.rt, "ulimit -n 1024")


def lower_score(rig: Rig) -> Runtime:
    rig.config(oomScoreAdj=-500)
    return rig.rt


def no_cgroups(rig: Rig) -> Runtime:
    return with_mounts(rig.rt, "umount -R -l /sys/fs/cgroup")


def memory_limit(rig: Rig) -> Runtime:
    rig.linux(resources={"memory": {"limit": 1 << 28}})
    rig.box.change(
        lambda config: config.update(mounts=[m for m in config["mounts"] if m["type"] != "cgroup"])
    )
    return no_cgroups(rig)


# Paths and mounts


def _close(rig: Rig, path: Path) -> Path:
    if os.getuid() != 0:
        pytest.skip("needs root, to close a directory to the user")
    above = rig.place / "above"
    above.mkdir()
    path.rename(above / "inside")
    above.chmod(0o750)
    return above / "inside"


def closed_bundle(rig: Rig) -> Runtime:
    rig.box.path = _close(rig, rig.box.path)
    return rig.rt


def closed_rootfs(rig: Rig) -> Runtime:
    path = _close(rig, rig.box.rootfs)
    rig.box.change(lambda config: config["root"].update(path=str(path)))
    return rig.rt


def closed_source(rig: Rig) -> Runtime:
    (rig.place / "data").mkdir()
    source = _close(rig, rig.place / "data")
    rig.mount(destination="/tmp", type="bind", source=str(source), options=["bind"])
    return rig.rt


def locked_flags(rig: Rig) -> Runtime:
    place = rig.place / "locked"
    place.mkdir()
    rig.mount(destination="/tmp", type="bind", source=str(place), options=["bind", "exec", "suid", "dev"])
    return with_mounts(rig.rt, f"mount -t tmpfs -o nosuid,nodev,noexec tmpfs {place}")


def unmapped_option(rig: Rig) -> Runtime:
    rig.mount(destination="/tmp", type="tmpfs", source="tmpfs", options=["gid=5"])
    return rig.rt


def shared_namespace(rig: Rig) -> Runtime:
    rig.without("ipc")
    return rig.rt


def no_device(rig: Rig) -> Runtime:
    rig.linux(devices=[{"path": "/dev/nosuch", "type": "c", "major": 10, "minor": 77}])
    return rig.rt


def foreign_groups(rig: Rig) -> Runtime:
    rig.config(user={"uid": 0, "gid": 0, "additionalGids": [27]})
    return rig.rt


def no_user_namespace(rig: Rig) -> Runtime:
    rig.without("user")
    rig.box.change(lambda config: [config["linux"].pop(name) for name in ("uidMappings", "gidMappings")])
    return rig.rt


# Programs


def no_loader(rig: Rig) -> Runtime:
    rig.program(without_loader())
    return rig.rt


def no_interpreter(rig: Rig) -> Runtime:
    rig.program(b"#!/usr/bin/nosuch -x\n")
    return rig.rt


def foreign_machine(rig: Rig) -> Runtime:
    rig.program(foreign())
    return rig.rt


def no_format(rig: Rig) -> Runtime:
    rig.program(b"echo hello\n")
    return rig.rt


def no_x_bit(rig: Rig) -> Runtime:
    rig.program(Path(BUSYBOX).read_bytes(), 0o644)
    return rig.rt


def noexec(rig: Rig) -> Runtime:
    path = rig.box.path
    return with_mounts(rig.rt, f"mount --bind {path} {path}; mount -o remount,bind,noexec {path}")


# The session


class InSession(Runtime):
    """`rt` without --root, and with another XDG_RUNTIME_DIR."""

    def __init__(self, rig: Rig, runtime: str) -> None:
        if rig.alice.uid == 0 or os.stat("/root").st_uid != 0:
            pytest.skip("needs an ordinary user")
        super().__init__(rig.rt.user, rig.rt.root)
        self.environ = {**rig.alice.environment(), "XDG_RUNTIME_DIR": runtime}

    def argv(self, *words: str) -> list[str]:
        return [super().argv()[0], *words]

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        return super().popen(*words, **{**options, "env": self.environ})


ROWS = (
    Row("user namespaces are switched off", "RT-USERNS-MAX", "user.max_user_namespaces is 0",
        "sysctl user.max_user_namespaces=", no_user_namespaces),
    Row("no user namespace is left", "RT-USERNS-REFUSED", "too many namespaces exist", "/proc/sys/user",
        no_more_user_namespaces),
    *(Row(f"{kind} namespaces are switched off", "RT-NAMESPACES-MAX",
          f"cannot make a {kind} namespace: they are switched off (user.max_{kind}_namespaces is 0)",
          f"sysctl user.max_{kind}_namespaces=", none_of_a_kind(kind)) for kind in KINDS),
    Row("no uts namespace is left", "RT-NAMESPACES-MAX", "user.max_uts_namespaces is 1 here",
        "end some containers", no_more_of_a_kind),
    Row("a chroot", "RT-USERNS-CHROOT", "this process is in a chroot", "pivot_root", chrooted),
    Row("the own uid is not mapped", "RT-USERNS-UNMAPPED", "does not exist in its user namespace", "map it",
        unmapped),
    Row("no_new_privs", "RT-PRIV-NNP", "no_new_privs is set on this process", "", no_new_privs),
    Row("a bounding set without SETUID", "RT-PRIV-BOUNDING", "CAP_SETUID is not in this process's bounding",
        "SETUID", bounding_set),
    Row("no newuidmap", "RT-IDS-HELPER", "newuidmap is not installed", "install", no_helper),
    Row("newuidmap without its bit", "RT-IDS-HELPER-RIGHTS", "neither setuid root nor has the capability",
        "chmod u+s", helper_without_bit),
    Row("newuidmap with another capability", "RT-IDS-HELPER-RIGHTS", "nor has the capability cap_setuid",
        "setcap cap_setuid=ep", helper_with_the_wrong_capability),
    Row("newuidmap on nosuid", "RT-IDS-HELPER-RIGHTS", "on a file system mounted nosuid", "remount,suid",
        helper_on_nosuid),
    Row("no line in /etc/subuid", "RT-IDS-SUBID", "/etc/subuid grants", "usermod --add-subuids", no_grant),
    Row("a range that is too small", "RT-BUNDLE-IDS", "is not granted: /etc/subuid grants", "map only those",
        small_grant),
    Row("a user without a name", "RT-IDS-NAME", "has no name", "/etc/passwd", no_name),
    Row("a masked /proc", "RT-PROC-MASKED", "proc on /proc", "the kernel refuses a new one", masked_proc),
    Row("a read-only /proc/sys", "RT-PROC-MASKED", "proc on /proc", "the kernel refuses a new one",
        read_only_sysctls),
    Row("a masked /sys", "RT-SYS-MASKED", "sysfs on /sys", "bind /sys read-only", masked_sys),
    Row("Docker's filter", "RT-USERNS-SECCOMP", "a seccomp filter of the surrounding container",
        "seccomp", docker_s_filter),
    Row("a filter against clone3", "RT-SECCOMP-CALLS", "a seccomp filter of the surrounding container",
        "seccomp", filtered("clone3")),
    *(Row(f"a filter against unshare ({errno.errorcode[number]})", "RT-SECCOMP-CALLS",
          "a seccomp filter of the surrounding container forbids it", "seccomp",
          filtered("unshare", with_errno=number, namespaces=_NAMESPACES))
      for number in (errno.EPERM, errno.ENOSYS)),
    *(Row(f"a filter against {call} ({errno.errorcode[number]})", "RT-SECCOMP-CALLS",
          f"{call}", "seccomp", filtered(call, with_errno=number))
      for call, number in (
          ("fsopen", errno.EPERM), ("fsopen", errno.ENOSYS), ("fsmount", errno.EPERM),
          ("move_mount", errno.ENOSYS), ("open_tree", errno.EPERM), ("mount_setattr", errno.ENOSYS),
          ("pivot_root", errno.EPERM))),
    *(Row(f"a filter against keyctl ({errno.errorcode[number]})", id, seen, "--no-new-keyring",
          filtered("keyctl", with_errno=number), runs=True)
      for number, id, seen in (
          (errno.EPERM, "RT-SECCOMP-CALLS", "keyctl(2) is denied here"),
          (errno.ENOSYS, "RT-SECCOMP-CALLS", "there is no keyctl(2) here"),
          (errno.EDQUOT, "RT-QUOTA-KEYS", "your quota of kernel keys is used up"))),
    *(Row(f"a filter against {call}", "RT-SECCOMP-CALLS", f"{call}(2) is denied here", "leave the name out",
          filtered(call), runs=True) for call in ("sethostname", "setdomainname")),
    Row("no keys left", "RT-QUOTA-KEYS", "your quota of kernel keys is used up", "kernel.keys.maxkeys",
        full_keyring, runs=True),
    Row("a low hard limit", "RT-BUNDLE-RLIMITS", "RLIMIT_NOFILE 1048576 -> 1024", "limits.d", low_limit,
        runs=True),
    Row("a lower oom score", "RT-BUNDLE-RLIMITS", "process.oomScoreAdj: -500", "", lower_score, runs=True),
    Row("no cgroup to show", "RT-CGROUP-DELEGATED", "the container's cgroup -> an empty", "", no_cgroups,
        runs=True),
    Row("a limit without cgroups", "RT-BUNDLE-LIMITS", "linux.resources.memory.limit", "", memory_limit,
        runs=True),
    Row("a closed directory above the bundle", "RT-BUNDLE-PATH", "/above (0750 root:root) cannot be searched",
        "setfacl -m u:", closed_bundle),
    Row("a closed directory above the rootfs", "RT-BUNDLE-PATH", "/above (0750 root:root) cannot be searched",
        "setfacl -m u:", closed_rootfs),
    Row("a closed directory above a source", "RT-BUNDLE-PATH", "/above (0750 root:root) cannot be searched",
        "setfacl -m u:", closed_source),
    Row("locked mount flags", "RT-MOUNT-LOCKED", "the flags of its source", "", locked_flags, runs=True),
    Row("an option with an unmapped id", "RT-IDS-UNMAPPED", "gid 5 is not mapped", "--idmap full",
        unmapped_option, runs=True),
    Row("a mount of a shared namespace", "RT-MOUNT-OWNER", "only the owner of the ipc namespace",
        '"type": "ipc"', shared_namespace, runs=True),
    Row("a device that is not there", "RT-BUNDLE-DEVICES", "the host's /dev/nosuch does not exist", "",
        no_device, runs=True),
    Row("groups of others", "RT-IDS-GROUPS", "setgroups(2) is denied", "--keep-groups", foreign_groups,
        runs=True),
    Row("a config without a user namespace", "RT-BUNDLE-PLAN", "one that maps only your own ids",
        "rt spec --rootless", no_user_namespace, runs=True),
    Row("a program without its loader", "RT-EXEC-MISSING", "its dynamic loader /lib/ld-nosuch.so.1 is not in",
        "install that in the rootfs", no_loader),
    Row("a script without its interpreter", "RT-EXEC-MISSING", "its interpreter /usr/bin/nosuch is not in",
        "install that in the rootfs", no_interpreter),
    Row("a program of another machine", "RT-EXEC-MISSING", "it is built for s390x, and this machine is",
        "an image for this machine", foreign_machine),
    Row("a script without its first line", "RT-EXEC-MISSING", "exec format error", "its #! line", no_format),
    Row("a program without its x bit", "RT-EXEC-DENIED", "its mode is 0644", "chmod +x", no_x_bit),
    Row("a bundle on noexec", "RT-EXEC-DENIED", "its file system is mounted noexec", "noexec", noexec),
)  # fmt: skip


def staged() -> set[str]:
    """The ids that have a row."""
    return {row.id for row in ROWS}
