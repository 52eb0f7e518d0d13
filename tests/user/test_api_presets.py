"""Configs to begin with, and the pytest plugin, by an ordinary user."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from conftest import MakeBundle
from lab.programs import Programs
from lab.runtime import TREE

SUITE = """
import pytest, rootless_rt

def test_with_the_programs_of_the_host(rt_sandbox):
    result = rt_sandbox().run(["python3", "-c", "print(6 * 7)"], timeout=60)
    assert result.check().text == "42\\n"

def test_with_a_config_of_its_own(rt_sandbox, tmp_path):
    config = rootless_rt.hardened_config(rootless_rt.small_rootfs(tmp_path / "root"))
    sandbox = rt_sandbox(config, limits=rootless_rt.Limits(open_files=32))
    assert sandbox.run(["sh", "-c", "ulimit -n"]).text == "32\\n"
"""


def test_a_hardened_config_runs_a_program_that_can_do_little(program: Programs, bundle: MakeBundle) -> None:
    program(
        bundle("true").path,
        """
        with Sandbox(hardened_config(bundle + "/rootfs")) as sandbox:
            assert sandbox.run(["sh", "-c", "id -u; cd; pwd"]).check().text == "1000\\n/home\\n"
            assert "Read-only" in sandbox.run(["touch", "/file"]).stderr.decode()
            assert sandbox.run(["sh", "-c", "grep CapBnd /proc/self/status"]).text.split()[1] == "0" * 16
            assert sandbox.run(["ls", "/sys/class/net"]).text == "lo\\n"
        """,
    )


def test_a_host_config_runs_this_python_and_writes_nothing_to_the_host(
    program: Programs, bundle: MakeBundle
) -> None:
    program(
        bundle("true").path,
        """
        import tempfile
        with tempfile.TemporaryDirectory() as folder:
            config = host_config(folder + "/root")
            with Sandbox(config) as sandbox, Pool(sandbox, 1) as pool:
                code = "import sys; print(sys.version_info[:2]); open('/tmp/x', 'w')"
                for place in (sandbox, pool):
                    result = place.run([sys.executable, "-c", code], timeout=60)
                    assert result.check().text == f"{sys.version_info[:2]}\\n"
                assert sandbox.run(["touch", "/usr/file"]).returncode == 1
                assert sandbox.run(["ls", bundle]).returncode != 0
            host_config(folder + "/root")  # a second time is fine
        """,
    )


def test_a_test_suite_gets_sandboxes_from_a_fixture(program: Programs, place: Path) -> None:
    folder = place / "suite"
    folder.mkdir()
    (folder / "test_suite.py").write_text(SUITE)
    program.user.owns(folder)
    words = [
        sys.executable,
        "-P",
        "-B",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        str(folder / "t"),
    ]
    words += ["-p", "rootless_rt.pytest_plugin", "-c", "/dev/null", "--rootdir", str(folder), str(folder)]
    done = program.run(words, timeout=120)
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_is_found_by_its_entry_point() -> None:
    project = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"rootless-rt": "rootless_rt.pytest_plugin"}
