"""Seccomp filters on a container's process, and the cache they are kept in."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle, Config
from lab.runtime import TREE, Runtime
from lab.shortcuts import LONG
from lab.users import User

DOCKER_LIKE = json.loads((TREE / "tests/data/seccomp-docker-like.json").read_text())
# 2 is SECCOMP_MODE_FILTER (proc_pid_status(5)).
MODE = ["/bin/grep", "^Seccomp:", "/proc/self/status"]


def deny(*names: str, **fields: Any) -> dict[str, Any]:
    rule = {"names": list(names), "action": "SCMP_ACT_ERRNO", **fields}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}


def filtered(box: Bundle, profile: dict[str, Any], no_new_privs: bool = True) -> Bundle:
    def change(config: Config) -> None:
        config["linux"]["seccomp"] = profile
        config["process"]["noNewPrivileges"] = no_new_privs

    return box.change(change)


@pytest.fixture
def cache(alice: User, place: Path) -> Path:
    """A cache home of alice's with nothing in it."""
    path = place / "cache"
    path.mkdir(mode=0o700)
    alice.owns(path)
    return path


def run(rt: Runtime, box: Bundle, cache: Path) -> str:
    return rt.ok("run", "-b", str(box.path), "c", env={**rt.user.environment(), "XDG_CACHE_HOME": str(cache)})


@pytest.mark.covers("linux.seccomp.architectures", "linux.seccomp.defaultAction")
def test_a_container_runs_under_an_engine_s_profile(rt: Runtime, bundle: MakeBundle, cache: Path) -> None:
    box = filtered(bundle("echo a b | wc -w; ls / >/dev/null && id -u"), DOCKER_LIKE)
    assert run(rt, box, cache).split() == ["2", "0"]


@pytest.mark.parametrize("no_new_privs", [True, False])
@pytest.mark.covers("linux.seccomp.defaultAction", "process.noNewPrivileges")
def test_the_filter_is_active_with_and_without_no_new_privs(
    rt: Runtime, bundle: MakeBundle, cache: Path, no_new_privs: bool
) -> None:
    assert run(rt, filtered(bundle(MODE), DOCKER_LIKE, no_new_privs), cache).split() == ["Seccomp:", "2"]


def test_without_a_profile_there_is_no_filter_of_ours(rt: Runtime, bundle: MakeBundle) -> None:
    outside = next(line for line in Path("/proc/self/status").read_text().split("\n") if "Seccomp:" in line)
    assert rt.ok("run", "-b", str(bundle(MODE).path), "c").split() == outside.split()


@pytest.mark.parametrize("no_new_privs", [True, False])
@pytest.mark.covers("linux.seccomp.syscalls[].names", "linux.seccomp.syscalls[].action")
def test_a_denied_call_fails_with_eperm(
    rt: Runtime, bundle: MakeBundle, cache: Path, no_new_privs: bool
) -> None:
    box = filtered(bundle("mkdir /d 2>&1; echo end"), deny("mkdir", "mkdirat"), no_new_privs)
    assert run(rt, box, cache) == "mkdir: can't create directory '/d': Operation not permitted\nend\n"


@pytest.mark.covers("linux.seccomp.syscalls[].errnoRet")
def test_a_denied_call_fails_with_the_errno_of_its_rule(rt: Runtime, bundle: MakeBundle, cache: Path) -> None:
    box = filtered(bundle("mkdir /d 2>&1; echo end"), deny("mkdir", "mkdirat", errnoRet=28))
    assert "No space left on device" in run(rt, box, cache)


@pytest.mark.covers("linux.seccomp.syscalls[].args")
def test_a_rule_about_an_argument_denies_that_argument_alone(
    rt: Runtime, bundle: MakeBundle, cache: Path
) -> None:
    profile = deny("kill", args=[{"index": 1, "value": 12, "op": "SCMP_CMP_EQ"}])
    box = filtered(bundle("trap 'echo got' USR1; kill -USR1 $$; kill -USR2 $$ || echo denied"), profile)
    done = rt("run", "-b", str(box.path), "c", env={**rt.user.environment(), "XDG_CACHE_HOME": str(cache)})
    assert (done.returncode, done.stdout) == (0, "got\ndenied\n")


@pytest.mark.covers("linux.seccomp.syscalls[].action")
def test_a_killing_rule_kills(rt: Runtime, bundle: MakeBundle, cache: Path) -> None:
    profile = deny("mkdir", "mkdirat") | {}
    profile["syscalls"][0]["action"] = "SCMP_ACT_KILL_PROCESS"
    done = rt("run", "-b", str(filtered(bundle(["/bin/mkdir", "/d"]), profile).path), "c")
    assert done.returncode == 128 + 31


def test_the_filter_does_not_hinder_the_start_itself(rt: Runtime, bundle: MakeBundle, cache: Path) -> None:
    # With no_new_privs only execve(2) comes after the filter: what a waiting container does comes before it.
    names = ["accept", "accept4", "recvmsg", "sendmsg", "close", "close_range", "dup", "dup2", "fcntl"]
    names += ["capset", "seccomp", "setresuid", "setresgid", "setgroups", "openat", "read", "poll"]
    box = filtered(bundle(["/bin/true"]), deny(*names))
    rt.ok("create", "-b", str(box.path), "c", env={**rt.user.environment(), "XDG_CACHE_HOME": str(cache)})
    rt.ok("start", "c")
    rt.wait_for("c", "stopped")


def files(cache: Path) -> list[Path]:
    return sorted((cache / "rt/seccomp").iterdir())


def test_a_compiled_filter_is_kept_where_only_its_user_can_read_it(
    rt: Runtime, bundle: MakeBundle, cache: Path, alice: User
) -> None:
    box = filtered(bundle(MODE), DOCKER_LIKE)
    run(rt, box, cache)
    (file,) = files(cache)
    assert file.stat().st_uid == alice.uid
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_the_second_run_takes_the_kept_filter(rt: Runtime, bundle: MakeBundle, cache: Path) -> None:
    box = filtered(bundle(MODE), DOCKER_LIKE)
    run(rt, box, cache)
    before = [(file, file.stat().st_ino) for file in files(cache)]
    assert run(rt, box, cache).split()[1] == "2"
    assert [(file, file.stat().st_ino) for file in files(cache)] == before


def test_a_changed_profile_gets_a_filter_of_its_own(rt: Runtime, bundle: MakeBundle, cache: Path) -> None:
    run(rt, filtered(bundle(), deny("mkdir")), cache)
    run(rt, filtered(bundle(), deny("rmdir")), cache)
    assert len(files(cache)) == 2


def test_a_torn_filter_is_compiled_again(rt: Runtime, bundle: MakeBundle, cache: Path) -> None:
    box = filtered(bundle("mkdir /d 2>&1; true"), deny("mkdir", "mkdirat"))
    run(rt, box, cache)
    (file,) = files(cache)
    file.write_bytes(file.read_bytes()[:-9])
    assert "Operation not permitted" in run(rt, box, cache)


def test_a_cache_that_others_can_write_is_not_used_and_named(
    rt: Runtime, bundle: MakeBundle, cache: Path
) -> None:
    box = filtered(bundle(MODE), DOCKER_LIKE)
    run(rt, box, cache)
    (cache / "rt/seccomp").chmod(0o777)
    env = {**rt.user.environment(), "XDG_CACHE_HOME": str(cache)}
    # Through Python: a kept plan has its filter with it.
    done = rt(*LONG, "run", "-b", str(box.path), "c", env=env)
    assert (done.returncode, done.stdout.split()) == (0, ["Seccomp:", "2"])
    assert "is not used: others can write it" in done.stderr


@pytest.mark.parametrize(
    ("profile", "path"),
    [
        ({"defaultAction": "SCMP_ACT_MAYBE"}, "linux.seccomp.defaultAction"),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]},
            "linux.seccomp.architectures[0]",
        ),
        ({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_FUN"]}, "linux.seccomp.flags[0]"),
        (
            deny("kill", args=[{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}]),
            "linux.seccomp.syscalls[0].args[0].index",
        ),
        (deny("kill", args=[{"index": 1, "value": 1, "op": "LIKE"}]), "linux.seccomp.syscalls[0].args[0].op"),
        (deny(), "linux.seccomp.syscalls[0].names"),
        ({"syscalls": []}, "linux.seccomp.defaultAction"),
    ],
)
def test_a_wrong_profile_is_refused_with_its_place(
    rt: Runtime, bundle: MakeBundle, profile: dict[str, Any], path: str
) -> None:
    done = rt("run", "-b", str(filtered(bundle(), profile).path), "c")
    assert done.returncode == 1
    assert done.stderr.startswith(f"rt: config.json: {path}"), done.stderr
    assert rt.ok("list", "-q") == ""


CREDENTIALS = ["/bin/grep", "-E", "^(NoNewPrivs|Seccomp|CapEff|CapPrm|CapBnd|CapAmb):", "/proc/self/status"]
SYS_ADMIN = 1 << 21


@pytest.mark.covers("linux.seccomp.defaultAction", "process.noNewPrivileges")
@pytest.mark.parametrize("no_new_privs", [True, False])
def test_what_loading_takes_is_gone_when_the_program_starts(
    rt: Runtime, bundle: MakeBundle, cache: Path, no_new_privs: bool
) -> None:
    said = run(rt, filtered(bundle(CREDENTIALS), DOCKER_LIKE, no_new_privs), cache)
    found = dict(line.split(":\t") for line in said.splitlines())
    assert found["NoNewPrivs"] == str(int(no_new_privs))
    assert found["Seccomp"] == "2"
    for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        assert not int(found[name], 16) & SYS_ADMIN, name


def test_without_no_new_privs_a_filter_that_denies_capset_is_explained(
    rt: Runtime, bundle: MakeBundle, cache: Path
) -> None:
    done = rt("run", "-b", str(filtered(bundle(), deny("capset"), no_new_privs=False).path), "c")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "rt: linux.seccomp: capset: operation not permitted\nhint: without process."
    )
    assert rt.ok("list", "-q") == ""


UNKNOWN = ["such_a_call", "other_call"]


def test_names_that_nobody_knows_are_told_in_debug_only(rt: Runtime, bundle: MakeBundle, cache: Path) -> None:
    profile = json.loads(json.dumps(DOCKER_LIKE))
    profile["syscalls"][0]["names"] += UNKNOWN
    profile["architectures"].append("SCMP_ARCH_S390X")
    box = filtered(bundle(["/bin/true"]), profile)
    assert run(rt, box, cache) == ""
    env = {**rt.user.environment(), "XDG_CACHE_HOME": str(cache)}
    done = rt("--debug", "run", "-b", str(box.path), "c", env=env)  # from the cache, this time
    assert done.returncode == 0
    assert "does not know: such_a_call, other_call: they stay denied" in done.stderr
    assert "SCMP_ARCH_S390X" in done.stderr


def test_names_that_nobody_knows_are_warned_of_where_they_are_let_through(
    rt: Runtime, bundle: MakeBundle, cache: Path
) -> None:
    done = rt("run", "-b", str(filtered(bundle(["/bin/true"]), deny("mkdir", *UNKNOWN)).path), "c")
    assert done.returncode == 0
    assert "such_a_call, other_call: they are NOT restricted" in done.stderr


def test_a_hook_that_runs_before_the_program_is_not_filtered(
    rt: Runtime, bundle: MakeBundle, cache: Path
) -> None:
    box = filtered(bundle("mkdir /e 2>&1; ls -d /d"), deny("mkdir", "mkdirat"))
    hook = {"path": "/bin/mkdir", "args": ["mkdir", "/d"]}
    box.change(lambda config: config.update(hooks={"startContainer": [hook]}))
    assert run(rt, box, cache) == "mkdir: can't create directory '/e': Operation not permitted\n/d\n"


def test_what_exec_adds_is_filtered_too(rt: Runtime, bundle: MakeBundle, cache: Path) -> None:
    box = filtered(bundle("exec sleep 1000"), deny("mkdir", "mkdirat"))
    env = {**rt.user.environment(), "XDG_CACHE_HOME": str(cache)}
    rt.ok("run", "-d", "-b", str(box.path), "c", env=env)
    done = rt("exec", "c", "mkdir", "/d", env=env)
    assert (done.returncode, "Operation not permitted" in done.stderr) == (1, True)
