"""From evidence to cause: pure, so that every refusal can be tested without the kernel that makes it."""

from __future__ import annotations

from typing import Any

import pytest

from idmap.diagnose import causes, explain, explain_direct, first_not_granted, helper_missing
from idmap.evidence import ALL_CAPS, CAP_SETGID, CAP_SETUID, Evidence

ASKED = [(0, 1000, 1), (1, 100000, 65536)]
GRANT = [(100000, 65536, 3)]
EPERM = "newuidmap: write to uid_map failed: Operation not permitted"


def evidence(kind: str = "uid", **facts: Any) -> Evidence:
    """A healthy system on which alice, 1000, may map ASKED; `facts` are what differs."""
    tool = "newuidmap" if kind == "uid" else "newgidmap"
    healthy: dict[str, Any] = {
        "asked": ASKED, "own": 1000, "uid": 1000, "pid": 77, "name": "alice", "helper": f"/usr/bin/{tool}",
        "granted": GRANT, "other_granted": GRANT, "proposed": (165536, 65536), "said": EPERM,
    }  # fmt: skip
    return Evidence(kind, **{**healthy, **facts})


def test_a_healthy_system_has_no_cause() -> None:
    assert causes(evidence()) == []


@pytest.mark.parametrize(
    ("facts", "reason", "word", "fix"),
    [
        ({"helper": None, "os_release": "debian"}, "helper-missing", "newuidmap", "sudo apt install uidmap"),
        ({"helper_mode": 0o755}, "helper-not-setuid", "cap_setuid", "sudo chmod u+s /usr/bin/newuidmap"),
        ({"helper_owner": 65534}, "helper-not-setuid", "owned by user 65534", "give it no rights"),
        ({"helper_mode": 0o755, "helper_owner": 7}, "helper-not-setuid", "cap_setuid", "give it no rights"),
        ({"helper_mode": 0o755, "helper_exposed": "/opt"}, "helper-not-setuid", "cap_setuid", "change /opt,"),
        ({"nosuid": True, "helper_exposed": "/opt"}, "helper-nosuid", "nosuid", "change /opt,"),
        ({"nosuid": True}, "helper-nosuid", "nosuid", "remount,suid"),
        ({"no_new_privs": True}, "no-new-privs", "no_new_privs", "allowPrivilegeEscalation: true"),
        ({"bounding": ALL_CAPS & ~(1 << CAP_SETUID)}, "bounding-set", "CAP_SETUID", "--cap-add SETUID"),
        ({"bounding": ALL_CAPS & ~(1 << 21)}, "helper-needs-admin", "CAP_SYS_ADMIN", "setcap cap_setuid=ep"),
        ({"granted": []}, "no-subid-entry", "/etc/subuid grants alice no uids", "165536-231071 alice"),
        ({"granted": [], "malformed": [2]}, "no-subid-entry", "line 2 for alice", "NAME:START:COUNT"),
        ({"granted": [(100000, 10, 4)]}, "range-too-small", "only 100000:10 (line 4)", "map only those"),
        ({"dumpable": False}, "target-not-dumpable", "process 77", "PR_SET_DUMPABLE"),
        ({"mapped": True}, "already-mapped", "process 77", None),
        ({"target_exists": False}, "target-gone", "process 77 is gone", None),
        ({"said": "newuidmap: Cannot determine your user name."}, "no-user-name", "1000", "/etc/passwd"),
    ],
)  # fmt: skip
def test_each_refusal_has_its_own_cause(
    facts: dict[str, Any], reason: str, word: str, fix: str | None
) -> None:
    error = explain(evidence(**facts))
    assert error.reason == reason
    assert word in error.message
    assert "\n" not in error.message and not error.message.endswith(".")
    assert error.hint is None if fix is None else fix in (error.hint or "")


def test_the_group_helper_is_judged_by_its_own_capability() -> None:
    assert explain(evidence("gid", bounding=ALL_CAPS & ~(1 << CAP_SETGID))).reason == "bounding-set"
    assert causes(evidence("gid", bounding=ALL_CAPS & ~(1 << CAP_SETUID))) == []
    error = explain(evidence("gid", helper_mode=0o755, helper_caps=1 << CAP_SETUID))
    assert error.hint == "sudo chmod u+s /usr/bin/newgidmap, or: sudo setcap cap_setgid=ep /usr/bin/newgidmap"


def test_file_capabilities_serve_instead_of_setuid() -> None:
    assert causes(evidence(helper_mode=0o755, helper_caps=1 << CAP_SETUID)) == []


def test_a_user_with_nothing_is_granted_both_kinds_in_one_command() -> None:
    error = explain(evidence(granted=[], other_granted=[], proposed=(100000, 65536)))
    assert error.hint == "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 alice"


def test_only_the_kind_that_is_missing_is_granted() -> None:
    error = explain(evidence("gid", granted=[]))
    assert error.hint == "sudo usermod --add-subgids 165536-231071 alice"
    assert error.message == "/etc/subgid grants alice no gids"


def test_users_that_usermod_does_not_know_get_a_line() -> None:
    error = explain(evidence(granted=[], name_is_local=False))
    assert error.hint == "echo alice:165536:65536 | sudo tee -a /etc/subuid /etc/subgid"
    error = explain(evidence(granted=[], name=None))
    assert error.hint == "echo 1000:165536:65536 | sudo tee -a /etc/subuid /etc/subgid"


def test_another_provider_is_named_instead_of_the_file() -> None:
    error = explain(evidence(granted=[], provider="sss"))
    assert error.message == "the subid provider sss grants alice no uids"
    assert "sss" in (error.hint or "")


def test_no_room_for_a_range_is_said() -> None:
    assert "none are left" in (explain(evidence(granted=[], proposed=None)).hint or "")


def test_several_causes_give_the_first_with_all_fixes() -> None:
    error = explain(evidence(no_new_privs=True, granted=[]))
    assert error.reason == "no-new-privs"
    assert "; then sudo usermod" in (error.hint or "")


def test_without_a_cause_the_helpers_own_words_remain() -> None:
    error = explain(evidence(said="newuidmap: something new"))
    assert error.reason == "map-write-refused"
    assert error.message == "uid map 0:1000:1, 1:100000:65536: newuidmap: something new"
    assert "newuidmap PID 0 1000 1 1 100000 65536" in (error.hint or "")


def test_a_silent_helper_is_said_to_be_silent() -> None:
    assert "newuidmap failed without a word" in explain(evidence(said="")).message


def test_long_maps_are_shown_short() -> None:
    long = [(i, 100000 + 2 * i, 1) for i in range(300)]
    error = explain(evidence(asked=long))
    assert "(300 lines)" in error.message
    assert len(error.message) + len(error.hint or "") < 300


def test_many_grants_are_shown_short() -> None:
    error = explain(evidence(granted=[(i * 1000, 10, i + 1) for i in range(50)]))
    assert error.message.endswith("(line 4), …")


def test_ranges_that_continue_each_other_grant_a_line_that_spans_them() -> None:
    assert first_not_granted([(0, 100, 20)], 1, [(110, 10, 2), (100, 10, 1)]) is None
    assert first_not_granted([(0, 100, 20)], 1, [(111, 10, 2), (100, 10, 1)]) == (0, 100, 20)


def test_the_own_id_needs_no_grant_but_only_alone() -> None:
    assert first_not_granted([(0, 1000, 1)], 1000, []) is None
    assert first_not_granted([(0, 1000, 2)], 1000, []) == (0, 1000, 2)


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("debian", "sudo apt install uidmap"),
        ("linuxmint ubuntu debian", "sudo apt install uidmap"),
        ("rocky rhel centos fedora", "sudo dnf install shadow-utils"),
        ("opensuse-leap suse opensuse", "sudo zypper install shadow"),
        ("", "install the package that has newuidmap (uidmap, shadow-utils or shadow)"),
    ],
)
def test_the_fix_for_a_missing_helper_is_the_distributions(words: str, fix: str) -> None:
    assert helper_missing("newuidmap", words).hint == fix


def direct(**facts: Any) -> Evidence:
    return evidence(
        **{"helper": None, "errno": 1, "file": "uid_map", "asked": [(0, 1000, 1)], "said": "", **facts}
    )


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"errno": 2}, "target-gone"),
        ({"errno": 3}, "target-gone"),
        ({"target_exists": False}, "target-gone"),
        ({"mapped": True}, "already-mapped"),
        ({"dumpable": False, "errno": 13}, "target-not-dumpable"),
        ({"apparmor_restricts": True}, "apparmor-userns"),
        ({"apparmor_restricts": True, "errno": 13}, "apparmor-userns"),
        ({"asked": ASKED}, "missing-capability"),
        ({"asked": [(0, 0, 1)], "own": 0, "uid": 0}, "missing-capability"),
        ({"asked": [(0, 0, 1)], "own": 0, "uid": 0, "effective": ALL_CAPS}, "map-write-refused"),
        ({"errno": 22}, "map-write-refused"),
        ({}, "map-write-refused"),
    ],
)  # fmt: skip
def test_each_refusal_of_a_direct_write_has_its_cause(facts: dict[str, Any], reason: str) -> None:
    assert explain_direct(direct(**facts)).reason == reason


def test_a_refused_direct_write_without_cause_names_file_and_errno() -> None:
    assert explain_direct(direct(errno=22)).message == "/proc/77/uid_map: Invalid argument (map 0:1000:1)"
