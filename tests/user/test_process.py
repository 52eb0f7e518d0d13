"""What the container's process finds: ids, environment, limits, capabilities, files."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle, Config
from lab.ranges import TOOLS, map_ranges
from lab.runtime import Runtime
from lab.users import User
from lab.wrapped import after

SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
LINES = dict(zip(SETS, ("CapBnd", "CapEff", "CapInh", "CapPrm", "CapAmb"), strict=True))
KILL, NET_BIND_SERVICE, AUDIT_WRITE = 1 << 5, 1 << 10, 1 << 29


def run(rt: Runtime, bundle: Bundle) -> str:
    """What the bundle's program writes; it must succeed, and rt must have nothing to say."""
    return rt.ok("run", "--bundle", str(bundle.path), "c")


def process(**fields: object) -> Callable[[Config], None]:
    """A change of the config's process."""
    return lambda config: config["process"].update(fields)


def with_namespace(kind: str) -> Callable[[Config], None]:
    return lambda config: config["linux"]["namespaces"].append({"type": kind})


def inside_id(number: int, user: User) -> Callable[[Config], None]:
    """Run as this id, to which the user's own is mapped."""

    def change(config: Config) -> None:
        config["process"]["user"] = {"uid": number, "gid": number}
        for kind, own in (("uid", user.uid), ("gid", user.gid)):
            config["linux"][f"{kind}Mappings"] = [{"containerID": number, "hostID": own, "size": 1}]

    return change


# Ids


@pytest.mark.covers(
    "linux.uidMappings",
    "linux.gidMappings",
    "process.user.uid",
    "process.user.gid",
    "linux.namespaces[].type",
)
def test_the_user_is_root_inside_and_the_caller_outside(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    box = bundle("id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map; touch /made")
    words = run(rt, box).split()
    assert words == ["0", "0", "0", str(alice.uid), "1", "0", str(alice.gid), "1"]
    made = (box.rootfs / "made").stat()
    assert (made.st_uid, made.st_gid) == (alice.uid, alice.gid)


def test_setgroups_is_denied_where_the_own_group_alone_is_mapped(rt: Runtime, bundle: MakeBundle) -> None:
    assert run(rt, bundle(["/bin/cat", "/proc/self/setgroups"])) == "deny\n"


@pytest.mark.covers(
    "linux.uidMappings[].containerID",
    "linux.gidMappings[].containerID",
    "process.user.uid",
    "process.user.gid",
)
def test_the_own_id_can_be_mapped_to_a_user_other_than_root(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    box = bundle("id -u; id -g; echo $HOME").change(inside_id(1000, alice))
    assert run(rt, box) == "1000\n1000\n/home/user\n"


@pytest.mark.covers("linux.uidMappings[].size", "linux.gidMappings[].size")
def test_a_whole_range_lets_root_become_any_user(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    box = map_ranges(bundle("su user -c 'id -u; id -g'"), alice)
    assert run(rt, box) == "1000\n1000\n"


def test_a_whole_range_lets_root_give_files_away(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    box = map_ranges(bundle("touch /f; chown 1000:2000 /f; stat -c %u:%g /f; rm /f"), alice)
    assert run(rt, box) == "1000:2000\n"


def test_a_whole_range_lets_root_make_users(rt: Runtime, bundle: MakeBundle, alice: User) -> None:
    script = """
        echo eve:x:1234:1234::/home/eve:/bin/sh >> /etc/passwd
        mkdir -p /home/eve && chown 1234:1234 /home/eve
        su eve -c 'id -un; touch /home/eve/f'
        stat -c %u /home/eve/f
        rm -r /home/eve
    """
    assert run(rt, map_ranges(bundle(script), alice)) == "eve\n1234\n"


@pytest.mark.covers("process.user")
def test_a_program_can_start_as_another_user_of_the_range(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    box = map_ranges(bundle("id -u; id -g; id -G"), alice)
    box.change(process(user={"uid": 1000, "gid": 1001, "additionalGids": [5, 6]}))
    assert run(rt, box) == "1000\n1001\n1001 5 6\n"


@pytest.mark.covers("spec --rootless", "spec --idmap", "spec --bundle")
def test_the_spec_command_writes_maps_of_the_whole_range(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    box = bundle()
    (box.path / "config.json").unlink()
    rt.ok("spec", "--rootless", "--idmap", "full", "--bundle", str(box.path))
    config = json.loads((box.path / "config.json").read_text())
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/bin/cat", "/proc/self/uid_map"]
    box.config = config
    box.write()
    lines = [[int(word) for word in line.split()] for line in run(rt, box).splitlines()]
    assert lines[0] == [0, alice.uid, 1] and lines[1][0] == 1 and sum(line[2] for line in lines) > 65536


@pytest.mark.covers("process.user.additionalGids")
def test_groups_that_cannot_be_set_are_left_out_and_named(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("id -u").change(process(user={"uid": 0, "gid": 0, "additionalGids": [20]}))
    done = rt("run", "--bundle", str(box.path), "c")
    assert (done.returncode, done.stdout) == (0, "0\n")
    assert done.stderr.startswith("rt: warning: process.user.additionalGids: 20 -> ")
    assert "\nhint: map a range of groups" in done.stderr


# Environment and working directory


@pytest.mark.covers("process.env", "process.args", "run --bundle")
def test_the_environment_is_exactly_what_the_config_gives(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle(["/bin/env"]).change(process(env=["PATH=/bin", "A=1", "EMPTY=", "B=x=y", "A=2"]))
    outside = {**rt.user.environment(), "LEAK": "1", "PYTHONPATH": "/tmp", "LD_PRELOAD": ""}
    said = rt.ok("run", "--bundle", str(box.path), "c", env=outside)
    assert sorted(said.splitlines()) == ["A=2", "B=x=y", "EMPTY=", "HOME=/root", "PATH=/bin"]


def test_the_config_s_own_home_is_kept(rt: Runtime, bundle: MakeBundle) -> None:
    assert run(rt, bundle("echo $HOME").change(process(env=["PATH=/bin", "HOME=/x"]))) == "/x\n"


def replace_passwd(box: Bundle, kind: str) -> None:
    passwd = box.rootfs / "etc/passwd"
    passwd.unlink()
    if kind == "fifo":
        os.mkfifo(passwd, 0o666)
    elif kind == "loop":
        passwd.symlink_to("passwd2")
        (box.rootfs / "etc/passwd2").symlink_to("passwd")
    elif kind == "huge":
        with passwd.open("w") as file:
            file.write("root:x:0:0:root:/huge:/bin/sh\n")
            file.truncate(1 << 40)
    elif kind == "endless":
        passwd.symlink_to("/dev/zero")
    elif kind == "directory":
        passwd.mkdir()
    elif kind == "garbage":
        passwd.write_bytes(
            bytes(range(256)) * 100 + b"\nroot:x: 0:0::/no:\nroot:x:00:0::/no:\nroot:x:0:0::no:\n"
        )


@pytest.mark.parametrize("kind", ["missing", "fifo", "loop", "huge", "endless", "directory", "garbage"])
def test_a_hostile_passwd_leaves_home_at_the_root(rt: Runtime, bundle: MakeBundle, kind: str) -> None:
    box = bundle("echo $HOME")
    replace_passwd(box, kind)
    assert run(rt, box) == "/\n"


def test_home_is_looked_up_inside_the_rootfs_whatever_links_say(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("echo $HOME")
    (box.rootfs / "etc/passwd").unlink()
    (box.rootfs / "etc/passwd").symlink_to("/../../../accounts")
    (box.rootfs / "accounts").write_text("root:x:0:0::/inside:/bin/sh\n")
    assert run(rt, box) == "/inside\n"


@pytest.mark.covers("process.cwd")
def test_a_missing_working_directory_is_made(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("pwd; stat -c %a .").change(process(cwd="/srv/deep/er"))
    assert run(rt, box) == "/srv/deep/er\n755\n"
    assert (box.rootfs / "srv/deep/er").is_dir()


@pytest.mark.covers("process.user.umask")
def test_the_umask_is_the_config_s_or_022(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("umask")
    assert rt.ok("run", "--bundle", str(box.path), "c", umask=0o077) == "0022\n"
    assert run(rt, box.change(process(user={"uid": 0, "gid": 0, "umask": 0o027}))) == "0027\n"


# Capabilities and privileges


def capabilities(status: str) -> dict[str, int]:
    found = dict(line.split(":\t") for line in status.splitlines())
    return {kind: int(found[LINES[kind]], 16) for kind in SETS}


def give(**sets: list[str]) -> Callable[[Config], None]:
    return process(capabilities=sets)


@pytest.mark.covers("process.capabilities")
def test_the_five_capability_sets_are_those_of_the_config(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    # Not as root: the kernel gives a program that root starts its whole bounding set.
    box = bundle(["/bin/grep", "^Cap", "/proc/self/status"]).change(inside_id(1000, alice))
    both = ["CAP_KILL", "CAP_NET_BIND_SERVICE"]
    three = [*both, "CAP_AUDIT_WRITE"]
    box.change(give(bounding=three, effective=both, permitted=both, inheritable=both, ambient=["CAP_KILL"]))
    assert capabilities(run(rt, box)) == {
        "bounding": KILL | NET_BIND_SERVICE | AUDIT_WRITE,
        "inheritable": KILL | NET_BIND_SERVICE,
        "ambient": KILL,
        "permitted": KILL,
        "effective": KILL,
    }


@pytest.mark.covers("process.capabilities.bounding")
def test_root_has_no_more_than_the_bounding_set(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle(["/bin/grep", "^Cap", "/proc/self/status"])
    box.change(give(bounding=["CAP_KILL"], effective=["CAP_KILL"], permitted=["CAP_KILL"]))
    found = capabilities(run(rt, box))
    assert found == {"bounding": KILL, "effective": KILL, "permitted": KILL, "inheritable": 0, "ambient": 0}


def test_without_capabilities_in_the_config_there_are_none(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle(["/bin/grep", "^Cap", "/proc/self/status"])
    box.change(lambda config: config["process"].pop("capabilities"))
    assert capabilities(run(rt, box)) == dict.fromkeys(SETS, 0)


def test_an_unknown_capability_is_left_out_and_named(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle(["/bin/grep", "^Cap", "/proc/self/status"])
    box.change(give(bounding=["CAP_KILL", "CAP_TELEPORT"]))
    done = rt("run", "--bundle", str(box.path), "c")
    assert done.returncode == 0 and capabilities(done.stdout)["bounding"] == KILL
    assert "CAP_TELEPORT" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.covers("process.noNewPrivileges")
def test_no_new_privs_is_as_the_config_says(rt: Runtime, bundle: MakeBundle, wanted: bool) -> None:
    box = bundle(["/bin/grep", "NoNewPrivs", "/proc/self/status"]).change(process(noNewPrivileges=wanted))
    assert run(rt, box).split()[1] == str(int(wanted))


# Limits


def limit(soft: int, hard: int) -> Callable[[Config], None]:
    return process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard}])


@pytest.mark.covers("process.rlimits")
def test_a_lower_limit_is_set(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("ulimit -Sn; ulimit -Hn").change(limit(100, 200))
    assert run(rt, box) == "100\n200\n"


def small_limit() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))


@pytest.mark.covers("process.rlimits[].hard")
def test_a_limit_above_the_caller_s_is_clamped_and_named(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("ulimit -Sn; ulimit -Hn").change(limit(100, 4096))
    done = rt("run", "--bundle", str(box.path), "c", preexec_fn=small_limit)
    assert (done.returncode, done.stdout) == (0, "100\n512\n")
    line, hint = done.stderr.splitlines()
    assert line.startswith("rt: warning: process.rlimits[0]: RLIMIT_NOFILE 4096 -> 512: ")
    assert hint.startswith("hint: ")


def test_what_was_clamped_is_in_the_state(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle().change(limit(100, 4096))
    assert rt("create", "--bundle", str(box.path), "c", preexec_fn=small_limit).returncode == 0
    (degraded,) = rt.state("c")["degraded"]
    assert (degraded["field"], degraded["got"]) == ("process.rlimits[0]", "512")


@pytest.mark.covers("--degrade")
def test_strict_refuses_a_limit_above_the_caller_s(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle().change(limit(100, 4096))
    done = rt("--degrade=strict", "run", "--bundle", str(box.path), "c", preexec_fn=small_limit)
    assert done.returncode == 1 and done.stderr.startswith("rt: process.rlimits[0]: ")
    assert rt.ok("list", "-q") == ""


@pytest.mark.covers("process.oomScoreAdj")
def test_a_higher_oom_score_is_set(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle(["/bin/cat", "/proc/self/oom_score_adj"]).change(process(oomScoreAdj=901))
    assert run(rt, box) == "901\n"


@pytest.mark.covers("process.oomScoreAdj")
def test_a_lower_oom_score_stays_at_the_caller_s_and_is_named(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle(["/bin/cat", "/proc/self/oom_score_adj"]).change(process(oomScoreAdj=-1000))
    now = Path("/proc/self/oom_score_adj").read_text()
    done = rt("run", "--bundle", str(box.path), "c")
    assert (done.returncode, done.stdout) == (0, now)
    assert done.stderr.startswith("rt: warning: process.oomScoreAdj: -1000 -> ")


@pytest.mark.covers("process.oomScoreAdj")
def test_an_oom_score_raised_on_the_way_can_be_lowered_again(rt: Runtime, bundle: MakeBundle) -> None:
    """Engines raise the score of the shim that calls a runtime; the container's is its config's."""
    now = int(Path("/proc/self/oom_score_adj").read_text())
    box = bundle(["/bin/cat", "/proc/self/oom_score_adj"]).change(process(oomScoreAdj=now))
    raised = after(rt, f"echo {now + 7} > /proc/self/oom_score_adj")
    assert raised.ok("run", "--bundle", str(box.path), "c") == f"{now}\n"
    box.change(process(oomScoreAdj=now + 3))
    assert raised.ok("--degrade=strict", "run", "--bundle", str(box.path), "c") == f"{now + 3}\n"


# Names, network, keyring


@pytest.mark.covers("hostname", "domainname")
def test_host_and_domain_name_are_the_config_s(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("hostname; cat /proc/sys/kernel/domainname")
    box.change(lambda config: config.update(hostname="box.example", domainname="lab"))
    assert run(rt, box) == "box.example\nlab\n"


@pytest.mark.covers("linux.sysctl", "linux.namespaces[].type network")
def test_a_network_of_its_own_has_its_loopback_up_and_its_sysctls(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle("ip -o link show lo; ip -o addr show lo; cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
    box.change(with_namespace("network"))
    box.change(lambda config: config["linux"].update(sysctl={"net.ipv4.ip_unprivileged_port_start": "80"}))
    lines = run(rt, box).splitlines()
    assert "UP" in lines[0].split("<")[1].split(">")[0].split(",")
    assert "127.0.0.1/8" in lines[1]
    assert lines[-1] == "80"


@pytest.mark.covers("run --no-new-keyring", "linux.maskedPaths")
def test_a_session_keyring_of_its_own_is_joined_unless_refused(rt: Runtime, bundle: MakeBundle) -> None:
    if not Path("/proc/keys").exists():
        pytest.skip("this kernel has no /proc/keys")
    box = bundle(["/bin/cat", "/proc/keys"])
    box.change(lambda config: config["linux"].update(maskedPaths=[]))
    assert "_ses.c" in run(rt, box)
    assert "_ses.d" not in rt.ok("run", "--no-new-keyring", "--bundle", str(box.path), "d")


# Signals and files


def odd_signals() -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})


def test_no_signal_is_ignored_blocked_or_caught_at_the_start(rt: Runtime, bundle: MakeBundle) -> None:
    box = bundle(["/bin/grep", "^Sig[BIC]", "/proc/self/status"])
    said = rt.ok("run", "--bundle", str(box.path), "c", preexec_fn=odd_signals)
    assert [int(line.split()[1], 16) for line in said.splitlines()] == [0, 0, 0]


LEAK = "exec 3</etc/hostname 4</proc 7>/dev/null 8</"


@pytest.mark.parametrize("leak", ["", LEAK])
def test_only_the_standard_files_are_open(rt: Runtime, bundle: MakeBundle, leak: str) -> None:
    box = bundle("ls /proc/$$/fd; true")
    assert after(rt, leak).ok("run", "--bundle", str(box.path), "c").split() == ["0", "1", "2"]


def test_a_created_container_waits_without_the_caller_s_files(
    rt: Runtime, bundle: MakeBundle, place: Path
) -> None:
    (place / "leaked").write_text("")
    after(rt, f"exec 5<{place}/leaked").ok("create", "--bundle", str(bundle().path), "c")
    fds = Path(f"/proc/{rt.state('c')['pid']}/fd")
    assert str(place / "leaked") not in {os.readlink(fd) for fd in fds.iterdir()}


@pytest.mark.covers("run --preserve-fds")
def test_preserved_files_are_the_caller_s_and_no_others(rt: Runtime, bundle: MakeBundle, place: Path) -> None:
    (place / "three").write_text("three\n")
    box = bundle("cat <&3; echo four >&4; ls /proc/$$/fd; true")
    opened = f"exec 3<{place}/three 4>&1 5</etc/hostname 9</"
    said = after(rt, opened).ok("run", "--preserve-fds", "2", "--bundle", str(box.path), "c")
    assert said.split() == ["three", "four", "0", "1", "2", "3", "4"]


def test_a_preserved_file_that_is_not_open_is_named(rt: Runtime, bundle: MakeBundle) -> None:
    done = rt("run", "--preserve-fds", "2", "--bundle", str(bundle().path), "c")
    assert done.returncode == 1
    assert done.stderr.startswith("rt: --preserve-fds: file descriptor 3 is not open\nhint: ")
    assert rt.ok("list", "-q") == ""


def test_no_privilege_is_left_over_for_a_map_of_the_whole_range(
    rt: Runtime, bundle: MakeBundle, alice: User
) -> None:
    box = map_ranges(bundle(["/bin/grep", "^CapEff", "/proc/self/status"]), alice)
    bits = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "SETGID": 6, "SETUID": 7, "SETFCAP": 31, "KILL": 5}
    assert int(run(rt, box).split()[1], 16) == sum(1 << bits[name[4:]] for name in TOOLS)
