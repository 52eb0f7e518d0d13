"""docs/rootless.md, "From nothing to a container": its commands, as a fresh user types them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.inside import subordinate
from lab.newcomer import login
from lab.runtime import TREE
from lab.users import User, made_user

PAGE = (TREE / "docs/rootless.md").read_text(encoding="utf-8")
CHAPTER = PAGE.split("\n## From nothing to a container\n", 1)[1].split("\n## ", 1)[0]


def commands(whose: str) -> list[str]:
    """The blocks of shell commands that somebody runs: root, user; or full, which takes minutes."""
    return re.findall(rf"^```sh {whose}\n(.*?)^```$", CHAPTER, re.MULTILINE | re.DOTALL)


@pytest.fixture
def newcomer() -> Iterator[User]:
    if os.getuid() != 0:
        pytest.skip("needs root, to make a user")
    with made_user("newcomer", ranges=True) as user:
        yield user


def typed(newcomer: User, wheel: Path, place: Path) -> str:
    """The user's commands; the source tree is there as the wheel that pip makes of it."""
    shutil.copy(wheel, place)
    (newcomer.home / "rt").mkdir()
    newcomer.owns(newcomer.home / "rt")
    script = "".join(commands("user"))
    assert script.count("'.[seccomp,dbus]'") == 1
    return script.replace("'.[seccomp,dbus]'", f"'{place / wheel.name}[seccomp,dbus]'")


def test_every_block_of_commands_has_somebody_who_runs_it() -> None:
    assert set(re.findall(r"^```(.+)$", CHAPTER, re.MULTILINE)) == {"sh root", "sh user", "sh full"}
    (line,) = commands("root")
    assert line.startswith("sudo apt install ")


def test_the_packages_are_those_that_debian_has() -> None:
    (line,) = commands("root")
    names = line.removeprefix("sudo apt install ").split()
    if not shutil.which("dpkg-query"):
        pytest.skip("needs Debian")
    words = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *names]
    shown = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    there = {row.split()[0] for row in shown.splitlines() if row.endswith(" installed")}
    if missing := set(names) - there:
        known = subprocess.run(
            ["apt-cache", "show", *missing], capture_output=True, text=True, check=False
        ).stdout
        if not known:
            pytest.skip("needs the lists of packages: apt-get update")
        assert {name for name in missing if f"Package: {name}\n" in known} == missing


def test_a_fresh_user_gets_from_nothing_to_a_container(newcomer: User, wheel: Path, place: Path) -> None:
    done = login(newcomer, typed(newcomer, wheel, place))
    assert done.returncode == 0, done.stdout
    shown = re.search(r"^It prints[^:]*:\n\n((?:    [^\n]*\n)+)", CHAPTER, re.MULTILINE)
    assert shown
    wanted = [line.split() for line in shown[1].splitlines()]
    printed = [line.split() for line in done.stdout.splitlines()]
    at = printed.index(wanted[0])
    own = [word.replace("1005", str(newcomer.uid)).replace("165536", str(subordinate(newcomer)))
           for line in wanted for word in line]  # fmt: skip
    assert [word for line in printed[at : at + len(wanted)] for word in line] == own
    lines = done.stdout.splitlines()
    assert any(re.match(r"box +\d+ +running ", line) for line in lines), done.stdout
    assert login(newcomer, "export PATH=~/.local/rt/bin:$PATH; rt list --quiet").stdout == ""


@pytest.mark.skipif(
    os.environ.get("RT_DOCS") != "1", reason="RT_DOCS=1 is not set: it installs a Debian tree"
)
def test_a_whole_distribution_is_made_without_root(newcomer: User, wheel: Path, place: Path) -> None:
    (script,) = commands("full")
    # Mirrors that are copies may be older than their lists say they are valid.
    script = script.replace("mmdebstrap ", "mmdebstrap --aptopt='Acquire::Check-Valid-Until \"false\"' ")
    install = typed(newcomer, wheel, place).split("mkdir ~/hello")[0]
    done = login(newcomer, install + script, seconds=800)
    assert done.returncode == 0 and "uid=1(daemon)" in done.stdout and "\napt " in done.stdout, done.stdout
    gone = login(newcomer, "export PATH=~/.local/rt/bin:$PATH; rt rm ~/debian/rootfs; ls ~/debian")
    assert "rootfs" not in gone.stdout.split(), gone.stdout
