"""A plan compiled once and encoded for many runs: it is the plan of each run as if made for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lab.bundles import rootless_config
from lab.tree import TREE

from rootless_rt.api.compiled import Compiled
from rootless_rt.api.config import changed, spec_of
from rootless_rt.container.prepare import Options
from rootless_rt.errors import RtError, SpecError

# What type checkers of a user see.
PROGRAM = """
from rootless_rt import PIPE, AsyncSandbox, Limits, Pool, Process, Result, Runtime, Sandbox

def run(bundle: str) -> bytes:
    with Sandbox(bundle, limits=Limits(memory=1 << 30)) as sandbox, Pool(sandbox, 2) as pool:
        result: Result = sandbox.run(["true"], stdin=b"x", env={"A": None}, timeout=1.5)
        process: Process = pool.popen(stdin=PIPE)
        with process:
            process.communicate(b"in")
        return result.check().stdout

async def wait(bundle: str) -> int:
    async with AsyncSandbox(bundle) as sandbox:
        return (await sandbox.run(stdout=PIPE)).returncode

def named() -> list[str]:
    with Runtime() as runtime:
        return [container.id for container in runtime.containers()]
"""


@pytest.fixture
def compiled(tmp_path: Path) -> Compiled:
    return compiled_of(tmp_path, ["sh", "-c", "echo"])


def compiled_of(tmp_path: Path, args: list[str]) -> Compiled:
    (tmp_path / "rootfs").mkdir(exist_ok=True)
    config = rootless_config(os.geteuid(), os.getegid(), args=args)
    options = Options()
    options.start_later = False
    options.cgroup_manager = "disabled"
    return Compiled(spec_of(config, tmp_path / "rootfs"), options, "name")


def test_another_task_gives_the_bytes_of_a_plan_made_for_it(compiled: Compiled, tmp_path: Path) -> None:
    task = compiled.with_task(["cat", "x"], {"A": "1"}, "/tmp")
    made = changed(compiled.spec, args=["cat", "x"], env={"A": "1"}, cwd="/tmp")
    other = Compiled(made, compiled.options, "name")
    assert compiled.wire(3, task) == other.wire(3, other.task) != compiled.wire(3, compiled.task)


def test_runs_differ_only_by_their_number(compiled: Compiled) -> None:
    first, second = (compiled.wire(number, compiled.task) for number in (1, 2))
    assert first != second and first.replace(b"name-00000001", b"name-00000002") == second


def test_head_and_tail_are_the_whole_plan_in_two(compiled: Compiled) -> None:
    task = compiled.with_task(["cat"], None, None)
    names = [op.name for op in compiled.plan_of(1, task).ops]
    head = [op.name for op in compiled.head(1)[1].ops]
    tail = [op.name for op in compiled.tail(1, task)[1]]
    assert sorted([*head, *tail]) == sorted([*names, "wait_start", "more", "stdio"])
    assert head[-2:] == ["wait_start", "more"] and tail[:2] == ["stdio", "find"] and tail[-1] == "exec"


@pytest.mark.parametrize(
    ("args", "env", "cwd", "path"),
    [
        ([], None, None, "process.args"),
        (["a\0b"], None, None, "process.args[0]"),
        (["a"], {"A": "\0"}, None, "process.env["),
        (["a"], {"": "x"}, None, "process.env["),
        (["a"], None, "relative", "process.cwd"),
        (["a"], None, "/a\0", "process.cwd"),
    ],
)
def test_a_task_is_checked_as_a_config_is(compiled, args, env, cwd, path) -> None:
    with pytest.raises(SpecError) as failed:
        compiled.with_task(args, env, cwd)
    assert failed.value.path.startswith(path)


def test_one_string_is_no_command(compiled: Compiled) -> None:
    with pytest.raises(TypeError, match="list of words"):
        compiled.with_task("echo hello", None, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: config.update(hooks={"poststop": [{"path": "/bin/true"}]}), "hooks"),
        (lambda config: config["process"].update(terminal=True), "terminal"),
        (lambda config: config["process"].update(ioPriority={"class": "IOPRIO_CLASS_IDLE"}), "ioPriority"),
        (
            lambda config: config["linux"].update(
                namespaces=[item for item in config["linux"]["namespaces"] if item["type"] != "pid"]
            ),
            "pid namespace",
        ),
    ],
)
def test_what_a_sandbox_has_not_is_refused(compiled: Compiled, change, words: str) -> None:
    import copy

    config = copy.deepcopy(dict(compiled.spec.data))
    change(config)
    with pytest.raises(RtError, match=words) as failed:
        Compiled(spec_of(config, compiled.spec.rootfs), compiled.options)
    assert failed.value.hint


def test_type_checkers_of_users_see_everything(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    words += ["--config-file", "/dev/null", "--follow-imports", "silent", str(tmp_path / "program.py")]
    env = {**os.environ, "MYPYPATH": str(TREE)}
    done = subprocess.run(words, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
    if "No module named mypy" in done.stderr:
        pytest.skip("needs mypy")
    assert done.returncode == 0, done.stdout
