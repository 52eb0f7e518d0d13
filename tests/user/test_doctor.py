"""`rt doctor` and `rt explain` as an ordinary user, with the real kernel in the way."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.filters import behind_filter, denying
from lab.leftovers import Ground
from lab.ranges import map_ranges
from lab.runtime import Runtime
from lab.simulators import with_one_of
from lab.users import User, account, can_make_users, made_user
from lab.wrapped import Wrapped, after, with_etc, with_mounts

from rootless_rt.host.doctor.reasons import BY_ID

Found = dict[str, dict[str, Any]]
RANK = {"ok": 0, "degraded": 1, "blocked": 2}


def look(rt: Runtime, *words: str, **options: Any) -> Found:
    """The findings by id; the exit status says the worst of them."""
    done = rt("doctor", "--format", "json", *words, **options)
    assert done.stderr == "", done.stderr
    told = json.loads(done.stdout)
    assert told["schema"] == 1 and set(told) == {"schema", "status", "user", "kernel", "packages", "checks"}
    worst = max(RANK[item["status"]] for item in told["checks"])
    assert (done.returncode, RANK[told["status"]]) == (worst, worst)
    for item in told["checks"]:
        assert set(item) == {"id", "status", "what", "why", "fix", "commands", "details"}
    found = {item["id"]: item for item in told["checks"]}
    assert set(found) <= set(BY_ID) and len(found) == len(told["checks"])
    return found


@pytest.mark.covers("doctor", "doctor --format")
def test_a_user_who_can_run_containers_is_not_blocked(rt: Runtime, bundle: MakeBundle) -> None:
    rt.ok("run", "--bundle", str(bundle().path), "runs")
    found = look(rt)
    assert [item for item in found.values() if item["status"] == "blocked"] == []
    assert found["RT-USERNS-REFUSED"]["why"] == "tried, and it works"


@pytest.mark.covers("doctor --all")
def test_the_text_has_a_line_and_a_fix_for_what_is_not_in_order(rt: Runtime) -> None:
    found = look(rt)
    short, whole = rt("doctor").stdout, rt("doctor", "--all").stdout
    for id, item in found.items():
        assert (id in short) == (item["status"] != "ok") and id in whole
        assert item["fix"] in short
    assert " ok, " in short.splitlines()[-2 if "rt explain" in short else -1]


@pytest.mark.covers("doctor --fix-script")
def test_the_script_is_one_for_sh(rt: Runtime, place: Path) -> None:
    script = rt("doctor", "--fix-script").stdout
    assert script.startswith("#!/bin/sh\n") and "\nset -eu\n" in script
    done = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-"], input=script, text=True, check=True)
    if os.getuid() == 0:
        # An ordinary user who runs it is told, and nothing is done.
        file = place / "fix.sh"
        file.write_text(script)
        ids = ["--reuid", str(rt.user.uid), "--regid", str(rt.user.gid), "--clear-groups"]
        refused = subprocess.run(
            ["setpriv", *ids, "sh", str(file)], text=True, capture_output=True, check=False
        )
        if "id -u" in script:
            assert (refused.returncode, refused.stderr) == (1, "run this as root\n")


def test_nothing_is_left_behind(rt: Runtime) -> None:
    ground = Ground(rt, "doctor")
    look(rt)
    assert list(rt.root.iterdir()) == []
    ground.clean()


# In the way: user namespaces, rights, helpers


def test_switched_off_user_namespaces_are_told(rt: Runtime) -> None:
    script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    found = look(Wrapped(rt, "unshare", "-Ur", "sh", "-ec", script, "sh"))
    assert found["RT-USERNS-MAX"]["status"] == "blocked"
    assert "user.max_user_namespaces=28633" in found["RT-USERNS-MAX"]["fix"]
    assert found["RT-USERNS-REFUSED"]["status"] == "ok", "one cause is told once"


def test_too_many_user_namespaces_are_told(rt: Runtime) -> None:
    full = Wrapped(rt, "unshare", "-Ur", "sh", "-c", with_one_of("user", "-U"), "sh")
    done = full("doctor", "--format", "json")
    found = {item["id"]: item for item in json.loads(done.stdout)["checks"]}
    assert "too many namespaces" in found["RT-USERNS-REFUSED"]["why"]


def test_other_namespaces_that_are_switched_off_are_told(rt: Runtime) -> None:
    script = 'echo 0 > /proc/sys/user/max_net_namespaces; exec "$@"'
    found = look(Wrapped(rt, "unshare", "-Ur", "sh", "-ec", script, "sh"))
    assert "user.max_net_namespaces" in found["RT-NAMESPACES-MAX"]["why"]


def test_a_chroot_is_told(rt: Runtime, place: Path) -> None:
    (place / "root").mkdir()
    enter = f'mount --rbind / {place}/root; exec /usr/sbin/chroot {place}/root "$@"'
    found = look(Wrapped(rt, "unshare", "-Urm", "sh", "-ec", enter, "sh"))
    assert (found["RT-USERNS-CHROOT"]["status"], found["RT-USERNS-REFUSED"]["status"]) == ("blocked", "ok")


def test_no_new_privs_is_told(rt: Runtime) -> None:
    found = look(Wrapped(rt, "setpriv", "--no-new-privs"))
    assert found["RT-PRIV-NNP"]["status"] == "degraded"
    # By the container around, if there is one.
    assert any(word in found["RT-PRIV-NNP"]["fix"] for word in ("allowPrivilegeEscal", "no-new-privileges"))


def test_a_bounding_set_without_the_capability_is_told(rt: Runtime) -> None:
    found = look(Wrapped(rt, as_root=True, options=("--bounding-set=-setuid",)))
    assert "CAP_SETUID cannot be had" in found["RT-PRIV-BOUNDING"]["why"]


def test_a_missing_helper_is_told_with_the_package(rt: Runtime) -> None:
    helper = os.path.realpath(shutil.which("newuidmap") or pytest.skip("needs newuidmap"))
    found = look(with_mounts(rt, f"mount --bind /dev/null {helper}"))
    assert "newuidmap is not installed" in found["RT-IDS-HELPER"]["why"]
    assert found["RT-IDS-HELPER"]["commands"], "this distribution is known"


def test_a_helper_without_its_bit_or_on_nosuid_is_told(rt: Runtime, place: Path) -> None:
    helper = os.path.realpath(shutil.which("newuidmap") or pytest.skip("needs newuidmap"))
    shutil.copy(helper, place / "copy")
    (place / "copy").chmod(0o755)
    found = look(with_mounts(rt, f"mount --bind {place}/copy {helper}"))
    assert "neither setuid root" in found["RT-IDS-HELPER-RIGHTS"]["why"]
    assert f"chmod u+s {helper}" in found["RT-IDS-HELPER-RIGHTS"]["commands"][0]
    closed = f"mount --bind {helper} {helper}; mount -o remount,bind,nosuid {helper}"
    assert "mounted nosuid" in look(with_mounts(rt, closed))["RT-IDS-HELPER-RIGHTS"]["why"]


def test_a_helper_that_the_user_can_change_is_never_to_be_made_root_s(rt: Runtime, place: Path) -> None:
    own = place / "own"
    own.mkdir()
    for tool in ("newuidmap", "newgidmap"):
        (own / tool).write_text("#!/bin/sh\nexec id\n")
        (own / tool).chmod(0o755)
    rt.user.owns(own)
    hostile = after(rt, f"PATH={own}:$PATH")
    item = look(hostile)["RT-IDS-HELPER-RIGHTS"]
    assert item["status"] == "degraded" and item["commands"] == []
    assert f"{own}/newuidmap is neither setuid" in item["why"] and "give it no rights" in item["fix"]
    said = hostile("doctor", "--fix-script").stdout
    assert not [line for line in said.splitlines() if str(own) in line and not line.startswith("#")]


def test_owners_that_a_user_namespace_does_not_show_are_not_taken_for_strangers(rt: Runtime) -> None:
    assert look(rt)["RT-PYTHON"]["status"] == "ok"
    assert look(Wrapped(rt, "unshare", "--user", "--map-root-user"))["RT-PYTHON"]["status"] == "ok"


def test_a_user_without_a_range_is_told_and_the_script_s_commands_grant_one(rt: Runtime) -> None:
    if not can_make_users():
        pytest.skip("needs root, to make a user without a subuid range")
    with made_user("graced", ranges=False) as user:
        before = look(Runtime(user, rt.root))["RT-IDS-SUBID"]
        assert before["status"] == "degraded" and f"/etc/subuid grants {user.name} no uids" in before["why"]
        assert before["fix"].startswith("sudo usermod --add-subuids ")
        for _ in range(2):
            account("sh", "-euc", "\n".join(before["commands"]))
        lines = [line for line in Path("/etc/subuid").read_text().splitlines() if line.startswith(user.name)]
        assert len(lines) == 1, "the script may be run twice"
        assert look(Runtime(user, rt.root))["RT-IDS-SUBID"]["status"] == "ok"


SHORT, SHARED = "{name}:3000000:1000\n", "{name}:3000000:65536\nsomebody:3000500:10\n"


@pytest.mark.explains("RT-IDS-SUBID-SIZE", "RT-IDS-SUBID-OVERLAP", "RT-IDS-PROVIDER")
@pytest.mark.parametrize(("id", "file", "text", "why"), [
    ("RT-IDS-SUBID-SIZE", "/etc/subuid", SHORT, "1000 uids granted"),
    ("RT-IDS-SUBID-OVERLAP", "/etc/subuid", SHARED, "3000500:10 are also those of somebody"),
    ("RT-IDS-PROVIDER", "/etc/nsswitch.conf", "passwd: files\nsubid: sss\n", "names sss"),
])  # fmt: skip
def test_odd_grants_are_told(rt: Runtime, place: Path, id: str, file: str, text: str, why: str) -> None:
    (place / "file").write_text(text.format(name=rt.user.name))
    script = f"cat {place}/file > {file}"
    getsubids = shutil.which("getsubids")
    if getsubids and id == "RT-IDS-PROVIDER":
        script += f"; mount --bind /dev/null {os.path.realpath(getsubids)}"
    found = look(with_etc(rt, place, script))[id]
    assert found["status"] == "degraded" and why in found["why"] and found["fix"]


@pytest.mark.explains("RT-IDS-SUBID-LINK")
def test_a_link_in_place_of_the_file_is_told(rt: Runtime, place: Path) -> None:
    script = "mv /etc/subuid /etc/other; ln -s other /etc/subuid"
    found = look(with_etc(rt, place, script))["RT-IDS-SUBID-LINK"]
    assert found["status"] == "degraded" and "/etc/subuid is a symbolic link to other" in found["why"]


@pytest.mark.explains("RT-KERNEL-CALLS")
@pytest.mark.parametrize("call", ["openat2", "mount_setattr"])
def test_a_filter_that_hides_what_rt_needs_is_told(rt: Runtime, place: Path, call: str) -> None:
    hidden = behind_filter(rt, place, denying(call, with_errno=errno.ENOSYS))
    found = look(hidden)["RT-KERNEL-CALLS"]
    assert (
        found["status"] == "blocked"
        and f"seccomp filter of the surrounding container hides {call}" in (found["why"])
    )


@pytest.mark.explains("RT-QUOTA-PROCESSES")
def test_a_limit_of_processes_that_is_nearly_reached_is_told(rt: Runtime) -> None:
    found = look(Wrapped(rt, "prlimit", "--nproc=45"))["RT-QUOTA-PROCESSES"]
    assert found["status"] == "degraded" and "of 45 that RLIMIT_NPROC allows" in found["why"]


@pytest.mark.explains("RT-SESSION-HOME", "RT-SESSION-PATH")
def test_a_closed_home_and_an_odd_path_are_told(rt: Runtime, place: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to close a directory to the user")
    (place / "closed/home").mkdir(parents=True)
    (place / "closed").chmod(0o700)
    odd = {"HOME": f"{place}/closed/home", "PATH": "/usr/bin:bin:/bin"}
    found = look(rt, env={**rt.user.environment(), **odd})
    assert f"{place}/closed (0700 root:root) is closed to you" in found["RT-SESSION-HOME"]["why"]
    assert "'bin'" in found["RT-SESSION-PATH"]["why"]


@pytest.mark.explains("RT-NET-HELPER", "RT-DEV-FUSE")
def test_devices_that_helpers_need_are_told(rt: Runtime, place: Path) -> None:
    if not os.path.exists("/dev/net/tun") or not shutil.which("pasta"):
        pytest.skip("needs /dev/net/tun and pasta, to take one away")
    script = "mount -t tmpfs tmpfs /dev/net"
    if os.path.exists("/dev/fuse"):
        (place / "closed").touch(0o600)
        script += f"; mount --bind {place}/closed /dev/fuse"
    found = look(with_mounts(rt, script))
    assert "there is no /dev/net/tun" in found["RT-NET-HELPER"]["why"]
    if os.path.exists("/dev/fuse"):
        assert "/dev/fuse (0600 root:root) is closed to you" in found["RT-DEV-FUSE"]["why"]


# In the way: a container around, the session, the bundle's place


@pytest.mark.parametrize("script", [
    "mount --bind /dev/null /proc/version",
    "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys",
])  # fmt: skip
def test_a_masked_proc_is_told(rt: Runtime, script: str) -> None:
    found = look(with_mounts(rt, script))["RT-PROC-MASKED"]
    assert found["status"] == "blocked" and ("/proc/version" in found["why"] or "/proc/sys" in found["why"])
    assert found["fix"]


def test_a_masked_sys_is_told(rt: Runtime) -> None:
    found = look(with_mounts(rt, "mount -t tmpfs tmpfs /sys/devices/virtual"))["RT-SYS-MASKED"]
    assert found["status"] == "degraded" and "/sys/devices/virtual" in found["why"]


@pytest.mark.explains("RT-PROC-MISSING")
def test_no_proc_is_told(rt: Runtime) -> None:
    done = with_mounts(rt, "mount -t tmpfs tmpfs /proc")("doctor")
    assert done.returncode != 0 and "mount /proc" in done.stderr, "no program of Python's starts without"


@pytest.mark.explains("RT-SESSION-RUNTIME-DIR")
@pytest.mark.parametrize(
    ("value", "why"), [("", "not set"), ("/root", "belongs to uid 0"), ("/no/such", "cannot be")]
)
def test_no_or_a_foreign_runtime_directory_is_told(rt: Runtime, value: str, why: str) -> None:
    if rt.user.uid == 0 or (value == "/root" and os.stat("/root").st_uid != 0):
        pytest.skip("needs an ordinary user")
    if value == "" and os.path.isdir(f"/run/user/{rt.user.uid}"):
        pytest.skip("this user has /run/user/UID")
    found = look(rt, env={**rt.user.environment(), "XDG_RUNTIME_DIR": value})["RT-SESSION-RUNTIME-DIR"]
    assert found["status"] == "degraded" and why in found["why"] and found["fix"]


def test_a_noexec_runtime_directory_is_no_trouble(rt: Runtime, bundle: MakeBundle) -> None:
    runtime = rt.user.runtime
    noexec = with_mounts(rt, f"mount -t tmpfs -o noexec,mode=700,uid={rt.user.uid} tmpfs {runtime}")
    found = look(noexec)["RT-SESSION-RUNTIME-DIR"]
    assert found["status"] == "ok" and "noexec" in found["why"]
    noexec.ok("run", "--bundle", str(bundle().path), "runs")


@pytest.mark.explains("RT-CGROUP-MOUNT")
def test_missing_cgroups_are_told(rt: Runtime) -> None:
    found = look(with_mounts(rt, "umount -R -l /sys/fs/cgroup"))
    assert found["RT-CGROUP-MOUNT"]["status"] == "degraded"


@pytest.mark.explains("RT-QUOTA-FILES")
def test_a_low_limit_of_files_is_told(rt: Runtime) -> None:
    found = look(after(rt, "ulimit -n 1024"))["RT-QUOTA-FILES"]
    assert found["status"] == "degraded" and "1024" in found["why"]


@pytest.mark.covers("doctor --bundle")
def test_a_bundle_that_runs_is_not_blocked(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle()
    found = look(rt, "--bundle", str(box.path))
    mine = {id: item["status"] for id, item in found.items() if id.startswith("RT-BUNDLE-")}
    assert len(mine) == 9 and "blocked" not in mine.values()


def test_an_unreachable_bundle_names_the_first_closed_directory(
    rt: Runtime, bundle: MakeBundle, place: Path
) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to close a directory to the user")
    box = bundle()
    above = place / "above"
    above.mkdir()
    box.path.rename(above / "bundle")
    above.chmod(0o700)
    source = {"destination": "/tmp", "type": "bind", "source": str(above), "options": ["rbind"]}
    other = bundle().change(lambda config: config["mounts"].append({**source, "source": f"{above}/bundle"}))
    found = look(rt, "--bundle", str(other.path))["RT-BUNDLE-PATH"]
    assert found["status"] == "blocked" and found["why"].startswith(f"{above} (0700 root:root) ")
    assert f"setfacl -m u:{rt.user.uid}:x {above}" in found["fix"]
    assert "permission denied" in rt("run", "--bundle", str(other.path), "closed").stderr, "and so it is"


def test_a_rootfs_that_is_closed_to_the_root_inside_is_told(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    box = map_ranges(bundle(), alice)
    # Root inside is an id of the range: a stranger to what alice owns with mode 0700.
    box.change(
        lambda config: config["linux"].update(
            uidMappings=[{**config["linux"]["uidMappings"][-1], "containerID": 0}],
            gidMappings=[{**config["linux"]["gidMappings"][-1], "containerID": 0}],
        )
    )
    host = box.config["linux"]["uidMappings"][0]["hostID"]
    box.path.chmod(0o700)
    assert look(rt, "--bundle", str(box.path))["RT-BUNDLE-PATH"]["status"] == "ok"
    rt.ok("run", "--bundle", str(box.path), "open")
    box.rootfs.chmod(0o700)
    found = look(rt, "--bundle", str(box.path))["RT-BUNDLE-PATH"]
    assert found["status"] == "blocked" and found["why"].startswith(f"{box.rootfs} (0700 {alice.name}:")
    assert f"setfacl -m u:{host}:x {box.rootfs}" in found["fix"]
    assert rt("run", "--bundle", str(box.path), "closed").returncode != 0, "and so it is"


@pytest.mark.explains("RT-BUNDLE-MOUNT-FLAGS")
def test_a_bundle_on_noexec_is_told(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle()
    noexec = with_mounts(rt, f"mount --bind {box.path} {box.path}; mount -o remount,bind,noexec {box.path}")
    found = look(noexec, "--bundle", str(box.path))["RT-BUNDLE-MOUNT-FLAGS"]
    assert found["status"] == "blocked" and f"{box.path} is mounted noexec" in found["why"]


def test_a_bundle_with_a_map_that_is_not_granted_is_told(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    box = map_ranges(bundle(), alice)
    box.change(lambda config: config["linux"]["uidMappings"][-1].update(size=70000))
    found = look(rt, "--bundle", str(box.path))["RT-BUNDLE-IDS"]
    assert found["status"] == "blocked" and "is not granted" in found["why"]


def test_a_raised_limit_is_told(rt: Runtime, bundle: MakeBundle) -> None:
    most = {"type": "RLIMIT_NOFILE", "soft": 1 << 30, "hard": 1 << 30}
    box = bundle().change(lambda config: config["process"].update(rlimits=[most]))
    found = look(rt, "--bundle", str(box.path))["RT-BUNDLE-RLIMITS"]
    assert found["status"] == "degraded" and "process.rlimits[0]" in found["why"]


@pytest.mark.explains("RT-BUNDLE-CONFIG")
def test_a_wrong_config_is_told(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle().change(lambda config: config["process"].update(cwd="relative"))
    found = look(rt, "--bundle", str(box.path))["RT-BUNDLE-CONFIG"]
    assert found["status"] == "blocked" and "process.cwd" in found["why"]


def test_explain_needs_no_rights(rt: Runtime) -> None:
    assert rt.ok("explain", "RT-USERNS-APPARMOR").startswith("RT-USERNS-APPARMOR: ")
