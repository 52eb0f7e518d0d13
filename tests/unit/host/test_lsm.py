"""What is seen of AppArmor and SELinux, on recorded trees of /proc and /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootless_rt.host.facts import gather
from rootless_rt.host.lsm import LsmFacts, look

POLICY = "sys/kernel/security/apparmor"
FILESYSTEMS = "nodev\tsysfs\nnodev\ttmpfs\n{}\text4\n"
NONE = {"proc/filesystems": FILESYSTEMS.format(""), "sys/kernel/security/lsm": "capability,landlock,yama"}
# Debian 13 and Ubuntu: AppArmor answers in its own directory and in the shared one.
APPARMOR = {
    "proc/filesystems": FILESYSTEMS.format(""),
    "proc/self/attr/current": "unconfined\n",
    "proc/self/attr/apparmor/current": "unconfined\n",
    "sys/module/apparmor/parameters/enabled": "Y\n",
}
LISTED = {
    f"{POLICY}/profiles": "docker-default (enforce)\n/usr/bin/a b (complain)\nfirefox//child (enforce)\n"
}
FOLDERS = {
    f"{POLICY}/policy/profiles/docker-default.12/name": "docker-default\n",
    f"{POLICY}/policy/profiles/usr.bin.a_b.3/name": "/usr/bin/a b\n",
}
# Fedora: the contexts end in NUL.
SELINUX = {
    "proc/filesystems": FILESYSTEMS.format("nodev\tselinuxfs\n"),
    "proc/self/attr/current": "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023\0",
    "sys/fs/selinux/enforce": "1",
}


@pytest.fixture
def host(tmp_path):
    def make(*trees: dict[str, str]) -> str:
        for name, text in {name: text for tree in trees for name, text in tree.items()}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(tmp_path)

    return make


def seen(facts: LsmFacts) -> tuple[bool, bool | None, bool]:
    return facts.apparmor, facts.loaded, facts.selinux


def test_a_kernel_without_either_has_neither(host):
    assert seen(look("docker-default", host(NONE))) == (False, None, False)
    assert seen(look("docker-default", host())) == (False, None, False)


def test_apparmor_counts_when_it_answers_not_when_its_code_is_there(host, tmp_path):
    root = host(NONE, {"sys/module/apparmor/parameters/enabled": "N\n"})
    (tmp_path / "proc/self/attr/apparmor/current").mkdir(parents=True)  # a read fails
    assert seen(look("x", root)) == (False, None, False)


def test_selinux_counts_once_it_has_a_policy(host):
    assert seen(look("", host(SELINUX))) == (False, None, True)
    for text in ("kernel\0", "kernel", ""):
        assert not look("", host(SELINUX, {"proc/self/attr/current": text})).selinux


def test_apparmors_answer_is_not_taken_for_selinuxs(host):
    assert seen(look("", host(APPARMOR))) == (True, None, False)


@pytest.mark.parametrize("tree", [LISTED, FOLDERS], ids=["as root", "as a user"])
@pytest.mark.parametrize(
    ("profile", "loaded"),
    [
        ("docker-default", True),
        ("/usr/bin/a b", True),
        ("docker", False),
        ("docker-default.12", False),
        ("docker-default (enforce)", False),
        ("../docker-default.12", False),
        ("unconfined", True),
        (":ns:docker-default", None),
        (":ns://docker-default", None),
        ("&docker-default", None),
        ("docker-default//&firefox", None),
        ("\udcff", False),
    ],
)
def test_a_profile_is_looked_for_where_the_caller_may_look(host, tree, profile, loaded):
    assert look(profile, host(APPARMOR, tree)).loaded is loaded


def test_a_child_profile_is_only_in_roots_list(host):
    assert look("firefox//child", host(APPARMOR, FOLDERS)).loaded is None
    assert look("firefox//child", host(LISTED)).loaded is True
    assert look("firefox//other", host(LISTED)).loaded is False


def test_without_a_view_of_the_policy_nothing_is_claimed(host, tmp_path):
    root = host(APPARMOR)
    assert look("docker-default", root).loaded is None
    host(FOLDERS)
    (tmp_path / POLICY / "policy/profiles/locked.1/name").mkdir(parents=True)  # a read fails
    assert look("docker-default", root).loaded is True
    assert look("other", root).loaded is None


def test_an_empty_list_has_no_profile(host):
    assert look("x", host(APPARMOR, {f"{POLICY}/profiles": ""})).loaded is False


def test_the_host_is_looked_at_only_for_what_asks(monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr("rootless_rt.host.lsm.look", lambda profile: asked.append(profile) or LsmFacts())
    assert (
        gather({"process": {"apparmorProfile": "", "selinuxLabel": ""}, "linux": {"mountLabel": ""}}).lsm
        is None
    )
    assert asked == []
    for config in (
        {"process": {"apparmorProfile": "x"}},
        {"process": {"selinuxLabel": "u:r:t"}},
        {"linux": {"mountLabel": "u:r:t"}},
    ):
        assert gather(config).lsm is not None
    assert asked == ["x", "", ""]


def test_this_host_is_seen_without_an_error():
    facts = look("docker-default")
    assert facts.apparmor == ("apparmor" in _modules() if _modules() else facts.apparmor)


def _modules() -> list[str]:
    path = Path("/sys/kernel/security/lsm")
    return path.read_text().split(",") if path.exists() else []
