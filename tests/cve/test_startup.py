"""The start of `rt`: inside a hostile bundle, or with PYTHON* variables, it runs its own code only.

Engines start a runtime with the bundle as working directory: a plain Python program would import its json.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from lab.runtime import RT, TREE, Runtime

TRAP = "import posix; posix.write(posix.open({mark!r}, 0o2101, 0o666), (__name__ + ' ran\\n').encode())\n"
NAMES = """
json _json re enum os posix site sitecustomize usercustomize click jeepney pyroute2 seccomp pyseccomp codecs
fcntl select errno typing collections difflib subprocess signal socket struct time shutil pwd grp locale
traceback linecache tokenize warnings random hashlib ctypes contextlib functools abc io stat genericpath
""".split()  # noqa: SIM905
PACKAGES = ("encodings", "rootless_rt", "idmap", "json", "importlib", "collections", "click")


def trapped(place: Path, mark: Path) -> Path:
    """A directory full of modules that leave a mark when they are imported."""
    place.mkdir(exist_ok=True)
    trap = TRAP.format(mark=str(mark))
    for name in NAMES:
        (place / f"{name}.py").write_text(trap)
    for name in PACKAGES:
        (place / name).mkdir(exist_ok=True)
        for module in ("__init__", "utf_8", "ascii", "latin_1", "idna", "cp1252", "cli", "main"):
            (place / name / f"{module}.py").write_text(trap)
    (place / "evil.pth").write_text(f"import os; {trap}")
    (place / "pyvenv.cfg").write_text(f"home = {place}\n")
    version = f"python{os.sys.version_info[0]}.{os.sys.version_info[1]}"  # type: ignore[attr-defined]
    (place / "lib").mkdir(exist_ok=True)
    for link in (version, "python3"):
        (place / "lib" / link).symlink_to("..")
    (place / "site-packages").symlink_to(".")
    return place


COMMANDS: list[list[str]] = [
    ["--version"],
    ["help"],
    ["help", "run"],
    ["no-such-command"],
    ["run", "--no-such-option"],
    ["features"],
    ["list"],
    ["list", "--format", "json"],
    ["completion", "bash"],
    ["spec", "--rootless", "-f", "-"],
    ["plan"],
    ["plan", "--format", "json"],
    ["run", "c1"],
    ["create", "c2"],
    ["start", "c2"],
    ["state", "c2"],
    ["--debug", "state", "nobody"],
    ["run", "--detach", "c3"],
    ["exec", "c3", "/bin/true"],
    ["exec", "-u", "user", "c3", "/bin/true"],
    ["ps", "c3"],
    ["ps", "-f", "json", "c3"],
    ["pause", "c3"],
    ["resume", "c3"],
    ["kill", "c3", "KILL"],
    ["delete", "--force", "c3"],
    ["delete", "c1"],
]


def environment(rt: Runtime, trap: Path) -> dict[str, str]:
    return {
        **rt.user.environment(),
        "PYTHONPATH": str(trap),
        "PYTHONHOME": str(trap),
        "PYTHONSTARTUP": str(trap / "json.py"),
        "PYTHONUSERBASE": str(trap),
        "PYTHONBREAKPOINT": "json.evil",
        "PYTHONWARNINGS": "error::json.Evil",
        "PYTHONINSPECT": "1",
        "PYTHONPLATLIBDIR": "lib",
        "PYTHONPYCACHEPREFIX": str(trap),
        "PYTHONEXECUTABLE": str(trap / "python3"),
        "PYTHON_LAZY_IMPORTS": "all",
        "PYTHONIOENCODING": "cp1252",
        "LC_ALL": "xx_XX.cp1252",
        "LANG": "C",
    }


@pytest.mark.parametrize("how", ["working directory", "variables"])
def test_no_command_runs_code_of_the_caller_s_places(
    rt: Runtime, bundle: MakeBundle, place: Path, how: str
) -> None:
    made = bundle("sleep 1000").change(lambda config: config.update(annotations={"org.example": "é"}))
    mark = place / "mark"
    trapped(made.path, mark)
    rt.user.owns(made.path)
    options: dict[str, Any] = {"cwd": str(made.path)}
    if how == "variables":
        options["env"] = environment(rt, made.path)
    for words in COMMANDS:
        if words[0] == "run" and words[-1] == "c1":
            made.run(["/bin/true"])
        done = rt(*words, **options)
        made.run("sleep 1000")
        assert not mark.exists(), (words, mark.read_text())
        assert "Traceback" not in done.stderr, (words, done.stderr)
        if words in (["run", "c1"], ["create", "c2"], ["start", "c2"], ["exec", "c3", "/bin/true"]):
            assert done.returncode == 0, (words, done.stderr)


def test_the_trap_would_catch_a_plain_python(place: Path) -> None:
    mark = place / "mark"
    trapped(place / "bundle", mark)
    python = shutil.which("python3") or "/usr/bin/python3"
    subprocess.run([python, "-c", "import json"], cwd=place / "bundle", capture_output=True, check=False)
    assert "json ran" in mark.read_text()


# Code that others can change.


def installed(place: Path) -> tuple[Path, Path]:
    """(launcher, directory) of a copy of the source tree's packages."""
    tree = place / "tree"
    for package in ("rootless_rt", "idmap"):
        shutil.copytree(
            TREE / package, tree / package, ignore=shutil.ignore_patterns("__pycache__", "modules.*")
        )
    (tree / "build").mkdir()
    shutil.copy(Path(RT).parent / "rt-init", tree / "build/rt-init")
    words = ["sh", TREE / "rootless_rt/init/build.sh", "launcher", tree / "build/rt", tree]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot build a launcher here: {done.stderr.strip()[-200:]}")
    subprocess.run(["chmod", "-R", "u=rwX,go=rX", tree], check=True)
    return tree / "build/rt", tree


def run(program: Path, user: Runtime, *words: str) -> tuple[int, str]:
    ids: dict[str, Any] = {}
    if os.getuid() == 0:
        ids = {"user": user.user.uid, "group": user.user.gid, "extra_groups": []}
    done = subprocess.run(
        [program, *words],
        env=user.user.environment(),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        **ids,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


ROOMS = ["cli", "container", "plan", "cgroups", "net", "init", "spec", "host"]


def test_code_that_everybody_can_change_is_not_loaded(rt: Runtime, place: Path) -> None:
    program, tree = installed(place)
    assert run(program, rt, "--version") == (0, "")
    for name in (".", "rootless_rt", "idmap", *(f"rootless_rt/{room}" for room in ROOMS)):
        folder = tree / name
        folder.chmod(0o777)
        code, said = run(program, rt, "--version")
        folder.chmod(0o755)
        assert code == 1 and "refusing to load code" in said and "everyone can write there" in said, (
            name,
            said,
        )
        assert len(said.splitlines()) == 2, said
    assert run(program, rt, "--version") == (0, "")


def test_code_that_belongs_to_a_stranger_is_not_loaded(rt: Runtime, place: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to give files away")
    program, tree = installed(place)
    for name in (".", "rootless_rt", "rootless_rt/container", "idmap"):
        os.chown(tree / name, 54321, 54321)
        code, said = run(program, rt, "--version")
        os.chown(tree / name, 0, 0)
        assert code == 1 and "belongs to another user" in said, (name, said)
    assert run(program, rt, "--version") == (0, "")


def test_every_room_is_looked_at() -> None:
    """A new directory of code must be known to the launcher."""
    text = (TREE / "rootless_rt/cli/launcher.c").read_text()
    rooms = {path.parent.name for path in (TREE / "rootless_rt").glob("*/__init__.py")}
    rooms |= {path.parent.name for path in (TREE / "rootless_rt").glob("*/*.py")}
    for room in rooms - {"rootless_rt"}:
        assert f'"/" PACKAGE "/{room}"' in text, room
