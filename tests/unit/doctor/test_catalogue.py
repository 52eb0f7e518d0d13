"""The ids of `rt doctor` and `rt explain`: stable, complete, with texts; and the administrator's script."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from lab.tree import TREE

from idmap.diagnose import helper_missing
from rootless_rt.cli.main import run
from rootless_rt.host.doctor.explain import long_form
from rootless_rt.host.doctor.fixes import DISTRIBUTIONS, INSTALL, PACKAGES, install, quote, sysctl
from rootless_rt.host.doctor.model import Finding, Me, Trouble, worst
from rootless_rt.host.doctor.reasons import BY_ID, REASONS
from rootless_rt.host.doctor.script import fix_script
from rootless_rt.host.doctor.system import MANAGERS

# Programs look for these. An id is added at its place, never renamed, never used for anything else.
_WORDS = """
RT-KERNEL-VERSION RT-KERNEL-CALLS RT-KERNEL-FEATURES RT-KERNEL-OVERLAY RT-PROC-MISSING RT-USERNS-KERNEL
RT-USERNS-CLONE RT-USERNS-MAX RT-USERNS-APPARMOR RT-USERNS-SECCOMP RT-USERNS-CHROOT RT-USERNS-UNMAPPED
RT-USERNS-REFUSED RT-NAMESPACES-MAX RT-PRIV-NNP RT-PRIV-BOUNDING RT-LSM RT-NESTED RT-PROC-MASKED
RT-SYS-MASKED RT-IDS-HELPER RT-IDS-HELPER-RIGHTS RT-IDS-SUBID RT-IDS-SUBID-SIZE RT-IDS-SUBID-OVERLAP
RT-IDS-SUBID-LINK RT-IDS-PROVIDER RT-IDS-NSRESOURCE RT-IDS-NAME RT-CGROUP-MOUNT RT-CGROUP-VERSION
RT-CGROUP-DELEGATED RT-CGROUP-CONTROLLERS RT-CGROUP-LIMITS RT-SYSTEMD-BUS RT-SYSTEMD-CLIENT
RT-SYSTEMD-LINGER RT-SESSION-RUNTIME-DIR RT-SESSION-HOME RT-SESSION-PATH RT-PYTHON RT-QUOTA-KEYS
RT-QUOTA-INOTIFY RT-QUOTA-PROCESSES RT-QUOTA-FILES RT-NET-PING RT-NET-PORTS RT-NET-HELPER RT-DEV-FUSE
RT-DEV-KVM RT-TOOL-SECCOMP RT-TOOL-CRIU RT-BUNDLE-CONFIG RT-BUNDLE-LIMITS RT-BUNDLE-RLIMITS
RT-BUNDLE-DEVICES RT-BUNDLE-IDS RT-BUNDLE-PATH RT-BUNDLE-FILESYSTEM RT-BUNDLE-MOUNT-FLAGS
RT-BUNDLE-PLAN RT-IDS-UNMAPPED RT-MOUNT-LOCKED RT-IDS-GROUPS RT-MOUNT-OWNER RT-SECCOMP-CALLS
RT-EXEC-DENIED RT-EXEC-MISSING
"""
IDS = _WORDS.split()


def test_the_ids_are_those_that_programs_know() -> None:
    assert [reason.id for reason in REASONS] == IDS


@pytest.mark.parametrize("reason", REASONS, ids=IDS)
def test_every_id_has_cause_evidence_fix_and_a_chapter(reason) -> None:
    assert reason.severity in ("degraded", "blocked")
    assert reason.cause.endswith(".") and not reason.found.endswith(".") and reason.fixes
    headings = re.findall(r"^#+ (.*)$", (TREE / "docs/rootless.md").read_text(), re.MULTILINE)
    assert any(heading.startswith(reason.chapter) for heading in headings), reason.chapter
    text = long_form(reason)
    assert max(map(len, text.splitlines())) <= 110 and text.startswith(reason.id + ": ")
    for named in re.findall(r"RT-[A-Z-]+[A-Z]", text):
        assert named in BY_ID, named


@pytest.mark.covers("explain")
def test_explain_lists_all_ids_and_says_more_on_one(capfd) -> None:
    assert run(["explain"]) == 0
    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()] == IDS
    assert run(["explain", "RT-IDS-HELPER"]) == 0
    whole = capfd.readouterr().out
    for command in (
        "apt install uidmap",
        "dnf install shadow-utils",
        "apk add shadow-uidmap",
        "pacman -S shadow",
    ):
        assert command in whole
    assert run(["explain", "ids-helper"]) == 0
    assert capfd.readouterr().out == whole


@pytest.mark.parametrize(("word", "hint"), [
    ("RT-USERN-MAX", "did you mean RT-USERNS-MAX?"), ("", "`rt explain` lists"), ("\x1b[2J",
    "`rt explain` lists"),
])  # fmt: skip
def test_an_unknown_id_is_an_error_with_the_nearest_one(capfd, word: str, hint: str) -> None:
    assert run(["explain", word]) == 1
    out, err = capfd.readouterr()
    assert out == "" and hint in err and "\x1b" not in err


def test_every_package_manager_has_a_command_and_a_name() -> None:
    assert set(INSTALL) == set(DISTRIBUTIONS) == set(MANAGERS.values())
    for thing in PACKAGES:
        for manager in INSTALL:
            assert install(thing, manager)[1], (thing, manager)
        assert install(thing, "")[1] == ()


def test_the_helpers_package_is_the_one_that_idmap_names() -> None:
    for words, manager in (
        ("debian", "apt"),
        ("fedora", "dnf"),
        ("suse", "zypper"),
        ("arch", "pacman"),
        ("alpine", "apk"),
    ):
        assert helper_missing("newuidmap", words).hint == install("newuidmap", manager)[0]


def found(*commands: str, why: str = "a cause", fix: str = "a fix") -> Finding:
    return Finding("RT-USERNS-MAX", Trouble(why, fix, commands))


def shell_accepts(script: str) -> None:
    done = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0 and done.stderr == "", (script, done.stderr)


def test_the_script_has_each_command_once_under_its_id() -> None:
    script = fix_script([found("echo a", "echo b"), found("echo a"), found(), Finding("RT-LSM", None)], Me())
    assert script.startswith("#!/bin/sh\n") and "\nset -eu\n" in script
    assert script.count("echo a\n") == 1 and script.count("# RT-USERNS-MAX: ") == 3 and "RT-LSM" not in script
    assert "# Not for a script: a fix\n" in script and 'if [ "$(id -u)" -ne 0 ]' in script
    shell_accepts(script)


def test_the_script_of_a_healthy_host_does_nothing() -> None:
    script = fix_script([Finding("RT-LSM", None)], Me())
    assert "# Nothing to do." in script
    done = subprocess.run(["sh"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_from_outside_can_break_out_of_a_comment_or_a_word() -> None:
    evil = "x\nrm -rf /\n'; touch /evil; '"
    script = fix_script([found(why=evil, fix=evil)], Me(name=evil))
    lines = [line for line in script.splitlines() if line and not line.startswith(("#", "set -eu"))]
    assert lines == []
    done = subprocess.run(
        ["sh", "-c", f"printf %s {quote(evil)}"], text=True, capture_output=True, check=True
    )
    assert done.stdout == evil


def test_a_sysctl_is_set_now_and_for_good(tmp_path: Path) -> None:
    shown, commands = sysctl("net.ipv4.ping_group_range", "0 2147483647")
    assert shown == "sudo sysctl 'net.ipv4.ping_group_range=0 2147483647'"
    there = [line.replace("/etc/sysctl.d", str(tmp_path)) for line in commands]
    for _ in range(2):
        subprocess.run(["sh", "-euc", there[0]], check=True)
    [file] = tmp_path.iterdir()
    assert file.read_text() == "net.ipv4.ping_group_range = 0 2147483647\n"


def test_the_worst_finding_decides() -> None:
    fine, bad = Finding("RT-LSM", "fine"), Finding("RT-LSM", Trouble("x"))
    assert [worst(items) for items in ([fine], [fine, bad], [bad, found()])] == ["ok", "degraded", "blocked"]
