"""`rt exec` as an ordinary user: users, groups, capabilities, limits, the filter."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import MakeBundle
from lab.bundles import Bundle
from lab.execs import mask, refused, sh, status
from lab.inside import held, read
from lab.ranges import map_ranges
from lab.runtime import Runtime
from lab.users import User


@pytest.fixture
def c(rt: Runtime, bundle: MakeBundle) -> int:
    """The container `c`, own id mapped; the pid of its first process."""
    return held(rt, bundle(), "c")


@pytest.fixture
def wide(rt: Runtime, bundle: MakeBundle, alice: User) -> int:
    """The container `c` with alice's whole range mapped."""
    return held(rt, map_ranges(bundle(), alice), "c")


@pytest.mark.covers("exec --user")
def test_the_user_is_the_one_asked_for(rt: Runtime, wide: int) -> None:
    assert sh(rt, "id -u; id -g").split() == ["0", "0"]
    assert sh(rt, "id -u; id -g", "-u", "5").split() == ["5", "0"]
    assert sh(rt, "id -u; id -g", "--user", "5:6").split() == ["5", "6"]


@pytest.mark.covers("exec --additional-gids")
def test_groups_are_added(rt: Runtime, wide: int) -> None:
    assert sh(rt, "id -G", "-u", "5:6", "-g", "7", "-g", "8").split() == ["6", "7", "8"]


def test_an_unmapped_user_is_refused(rt: Runtime, c: int) -> None:
    assert "process.user.uid: uid 5 is not mapped" in refused(rt, "-u", "5", "c", "id")
    assert "process.user.gid: gid 6 is not mapped" in refused(rt, "-u", "0:6", "c", "id")


WRONG_IDS = ["1_0", " 1", "+1", "-1", "1:", ":1", "4294967295", "root", ":", "1:2:3", "1 ", "\u0661"]


@pytest.mark.parametrize("word", WRONG_IDS)
def test_a_user_that_is_no_number_is_refused(rt: Runtime, wide: int, word: str) -> None:
    assert "--user: " in refused(rt, f"--user={word}", "c", "id")


@pytest.mark.parametrize("word", ["1_0", " 1", "+1", "4294967295", "wheel"])
def test_a_group_that_is_no_number_is_refused(rt: Runtime, wide: int, word: str) -> None:
    assert "--additional-gids: " in refused(rt, f"--additional-gids={word}", "c", "id")


def capabilities(rt: Runtime, *options: str) -> dict[str, int]:
    said = status(rt.ok("exec", *options, "c", "cat", "/proc/self/status"))
    return {name: int(said[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


def having(box: Bundle, **sets: list[str]) -> Bundle:
    return box.change(lambda config: config["process"].update(capabilities=sets))


@pytest.mark.covers("exec --cap")
def test_an_added_capability_is_never_inheritable_nor_ambient(rt: Runtime, bundle: MakeBundle) -> None:
    kill = ["CAP_KILL"]
    held(rt, having(bundle(), bounding=kill, effective=kill, permitted=kill), "c")
    both = mask(5, 13)
    expected = {"CapInh": 0, "CapPrm": both, "CapEff": both, "CapBnd": both, "CapAmb": 0}
    assert capabilities(rt, "--cap", "CAP_NET_RAW") == expected
    assert capabilities(rt, "-c", "net_raw") == expected
    assert capabilities(rt)["CapEff"] == mask(5)


def test_an_added_capability_does_not_pass_on_where_others_are_inheritable(
    rt: Runtime, bundle: MakeBundle
) -> None:
    kill = ["CAP_KILL"]
    box = having(bundle(), bounding=kill, effective=kill, permitted=kill, inheritable=kill, ambient=kill)
    held(rt, box, "c")
    had = capabilities(rt, "--cap", "CAP_NET_RAW")
    assert (had["CapInh"], had["CapAmb"], had["CapEff"]) == (mask(5), mask(5), mask(5, 13))


def test_an_unknown_capability_is_refused(rt: Runtime, c: int) -> None:
    assert "--cap: unknown capability" in refused(rt, "--cap", "CAP_NONE", "c", "id")


@pytest.mark.covers("exec --no-new-privs")
def test_no_new_privs_is_set_when_asked_for(rt: Runtime, bundle: MakeBundle) -> None:
    held(rt, bundle().change(lambda config: config["process"].update(noNewPrivileges=False)), "c")
    show = ("c", "cat", "/proc/self/status")
    assert status(rt.ok("exec", *show))["NoNewPrivs"] == "0"
    assert status(rt.ok("exec", "--no-new-privs", *show))["NoNewPrivs"] == "1"


@pytest.mark.covers("process.rlimits")
def test_limits_of_the_config_apply(rt: Runtime, bundle: MakeBundle) -> None:
    limit = [{"type": "RLIMIT_NOFILE", "soft": 57, "hard": 91}]
    held(rt, bundle().change(lambda config: config["process"].update(rlimits=limit)), "c")
    assert sh(rt, "ulimit -Sn; ulimit -Hn").split() == ["57", "91"]


@pytest.mark.parametrize("no_new_privs", [True, False])
def test_the_filter_of_the_config_applies(rt: Runtime, bundle: MakeBundle, no_new_privs: bool) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}

    def change(config: dict[str, Any]) -> None:
        config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
        config["process"]["noNewPrivileges"] = no_new_privs

    held(rt, bundle().change(change), "c")
    done = rt("exec", "c", "mkdir", "/tmp/made")
    assert done.returncode == 1 and "quota exceeded" in done.stderr.lower()
    said = status(rt.ok("exec", "c", "cat", "/proc/self/status"))
    assert said["Seccomp"] == "2" and said["CapEff"] == status(read_status(rt))["CapEff"]


def read_status(rt: Runtime) -> str:
    return read(rt.state("c")["pid"], "status")
