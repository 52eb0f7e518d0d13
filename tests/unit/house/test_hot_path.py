"""What each hot command imports: an allow-list. One module more is a tenth of a millisecond or ten."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import sysconfig
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from lab.bundles import BUSYBOX, busybox_rootfs, plain_config, rootless_config
from lab.runtime import TREE

# Written in C, and loaded as files of their own in some builds of Python.
C_MODULES = {
    "_blake2", "_json", "_signal", "_socket", "_stat", "_struct", "errno", "fcntl", "posix", "resource",
    "select", "termios", "time",
}  # fmt: skip
# Frozen into the interpreter, cheap, and loaded at its start in most builds. Not `os`: a millisecond.
FROZEN = {"__future__", "_sitebuiltins", "abc", "codecs", "io", "site"}
# Ours, and too heavy for the path on which all is well: help, explanations, compilers, other commands.
RARE = {
    "rootless_rt.cli.app", "rootless_rt.cli.cmd_features", "rootless_rt.cli.cmd_plan",
    "rootless_rt.cli.cmd_spec", "rootless_rt.container.report", "rootless_rt.host.rootfs",
    "rootless_rt.cli.cmd_pause", "rootless_rt.cli.cmd_ps", "rootless_rt.cli.cmd_resume",
    "rootless_rt.cli.each", "rootless_rt.cli.cmd_completion", "rootless_rt.cli.completion",
    "rootless_rt.container.members", "rootless_rt.container.pause", "rootless_rt.host.proctable",
    "rootless_rt.host.abilities",
    "rootless_rt.host.seccomp_compile", "rootless_rt.host.userns", "rootless_rt.spec.features",
    "rootless_rt.cgroups.resctrl", "rootless_rt.container.outside", "rootless_rt.net.devices",
    "rootless_rt.plan.outside", "rootless_rt.spec.outside",
    "rootless_rt.container.tuning", "rootless_rt.plan.tuning", "rootless_rt.spec.tuning",
    "rootless_rt.cli.cmd_events", "rootless_rt.cli.cmd_update", "rootless_rt.container.events",
    "rootless_rt.container.update", "rootless_rt.cgroups.change", "rootless_rt.cgroups.merge",
    "rootless_rt.cgroups.oom", "rootless_rt.cgroups.resctrl_stats", "rootless_rt.cgroups.stats",
    "rootless_rt.spec.amounts",
    "idmap.diagnose", "idmap.evidence",
}  # fmt: skip

# Of this run alone: the containers of root have cgroups by their ids.
BOX = f"box{os.getpid()}"

CODE = """
import sys
before = set(sys.modules)
sys.path += sys.argv[1].split(":")
from rootless_rt.cli.main import run
status = run(sys.argv[3:])
after = sorted(set(sys.modules) - before)
import posix
fd = posix.open(sys.argv[2], posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o600)
posix.write(fd, (str(status) + " " + " ".join(after)).encode())
"""
SITE = sysconfig.get_path("purelib")  # for libseccomp's bindings, as the launcher gives it
FLAGS = ["-I", "-S", "-B", "-X", "utf8"]


class Watched:
    """Runs commands in a child each, and keeps what they import."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.bundle = place / "bundle"
        (place / "cache").mkdir()

    def __call__(self, *words: str, status: int | None = 0) -> set[str]:
        told = self.place / "modules"
        told.unlink(missing_ok=True)
        argv = [
            sys.executable,
            *FLAGS,
            "-c",
            CODE,
            f"{TREE}:{SITE}",
            str(told),
            "--root",
            str(self.place / "state"),
        ]
        with open(self.place / "errors", "w+b") as errors:
            subprocess.run(
                [*argv, "--degrade", "warn", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={"XDG_CACHE_HOME": str(self.place / "cache"), "PATH": os.environ["PATH"]},
                timeout=60,
                check=True,
            )
            errors.seek(0)
            said = errors.read().decode()
        code, *modules = told.read_text().split()
        assert status is None or int(code) == status, said
        return set(modules)


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path)


@pytest.fixture(params=["user namespace", "root"])
def container(request, watched):
    """A bundle that can really be run by whoever runs the tests."""
    if not os.access(BUSYBOX, os.X_OK):
        pytest.skip("needs a static busybox: apt install busybox-static")
    if not (TREE / "build/rt-init").exists():
        pytest.skip("rt-init is not built: make build")
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("needs root")
    busybox_rootfs(watched.bundle / "rootfs")
    own = rootless_config(os.geteuid(), os.getegid(), args=["/bin/true"])
    config = own if request.param == "user namespace" else plain_config(args=["/bin/true"])
    (watched.bundle / "config.json").write_text(json.dumps(config))
    yield watched
    watched("delete", "--force", BOX, status=None)


def stray(modules: set[str]) -> list[str]:
    """What is not allowed among these modules."""
    allowed = C_MODULES | FROZEN | set(sys.builtin_module_names)
    ours = {name for name in modules if name.split(".")[0] in ("rootless_rt", "idmap")} - RARE
    return sorted(modules - allowed - ours)


def test_a_whole_life_imports_only_what_is_allowed(container):
    bundle = str(container.bundle)
    assert stray(container("create", "--bundle", bundle, BOX)) == []
    assert stray(container("state", BOX)) == []
    pidfd = os.pidfd_open(json.loads((container.place / "state" / BOX / "state.json").read_text())["pid"])
    assert stray(container("start", BOX)) == []
    assert select.select([pidfd], [], [], 60)[0]
    os.close(pidfd)
    # It has ended by itself: what explains that is the one thing more.
    assert stray(container("kill", BOX, "KILL", status=1)) == []
    assert stray(container("delete", "--force", BOX)) == []


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.split(".")[0] in ("rootless_rt", "idmap")}


@cache
def archived() -> dict[str, list[str]]:
    """The modules of each command's piece of the archive."""
    spec = spec_from_file_location("archive_builder", TREE / "tools/archive.py")
    assert spec is not None and spec.loader is not None
    builder = module_from_spec(spec)
    spec.loader.exec_module(builder)
    found: dict[str, list[str]] = builder.sets(builder.Sources(TREE, False))
    return found


def differing(used: set[str], command: str) -> set[str]:
    """What the archive has this command import at once in vain, or not, cgroups apart: they differ."""
    found = ours(used) ^ set(archived()[command])
    return {name for name in found if not name.startswith("rootless_rt.cgroups")}


def test_what_the_archive_imports_at_once_is_what_the_command_needs(container):
    bundle = str(container.bundle)
    # Root has no maps.
    assert differing(container("create", "--bundle", bundle, BOX), "create") <= {"idmap.write"}
    assert differing(container("state", BOX), "state") == set()
    assert differing(container("start", BOX), "start") == set()
    container("kill", BOX, "KILL", status=None)
    container("delete", "--force", BOX)
    assert differing(container("run", "--bundle", bundle, BOX), "run") <= {"idmap.write"}


def test_a_run_imports_only_what_is_allowed(container):
    bundle = str(container.bundle)
    assert stray(container("run", "--bundle", bundle, BOX)) == []
    assert stray(container("run", "--detach", "--bundle", bundle, BOX)) == []


def test_a_run_with_a_cached_filter_compiles_nothing(container):
    config = json.loads((container.bundle / "config.json").read_text())
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mount", "bpf"], "action": "SCMP_ACT_ERRNO"}],
    }
    (container.bundle / "config.json").write_text(json.dumps(config))
    if find_spec("pyseccomp") is None:
        pytest.skip("no bindings of libseccomp to compile a filter with")
    container("run", "--bundle", str(container.bundle), BOX)
    assert stray(container("run", "--bundle", str(container.bundle), BOX)) == []


@pytest.mark.parametrize("command", ["start", "state", "delete", "kill"])
def test_a_command_on_an_unknown_container_fails_without_heavy_modules(watched, command):
    found = watched(command, "nobody", status=1)
    assert f"rootless_rt.cli.cmd_{command}" in found
    heavy = {
        "re",
        "enum",
        "dataclasses",
        "typing",
        "json",
        "click",
        "subprocess",
        "logging",
        "traceback",
        "ctypes",
    }
    assert not heavy & found


def test_the_list_has_nothing_that_the_budget_forbids():
    heavy = {"json", "re", "enum", "dataclasses", "typing", "collections", "pathlib", "subprocess", "logging"}
    heavy |= {
        "argparse",
        "click",
        "ctypes",
        "hashlib",
        "contextlib",
        "functools",
        "signal",
        "socket",
        "struct",
    }
    heavy |= {"tempfile", "shutil", "string"}
    assert not heavy & (C_MODULES | FROZEN)


def test_the_version_costs_no_more_than_the_parser(watched):
    found = watched("--version")
    assert not {"click", "re", "enum"} & found
