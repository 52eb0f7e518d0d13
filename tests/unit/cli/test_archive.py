"""The archive of modules: used while it is fresh, never needed, never in the way."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lab.tree import TREE

ARCHIVE = TREE / "tools/archive.py"
TAG = sys.implementation.cache_tag


def launcher_code() -> str:
    """The code that the launcher gives to the interpreter, from its source."""
    text = (TREE / "rootless_rt/cli/launcher.c").read_text()
    body = text.partition("CODE[] =")[2].partition(";\n\n")[0]
    body = body.replace("SEPARATOR", '":"').replace("PACKAGE", '"rootless_rt"')
    parts = re.findall(r'"((?:[^"\\]|\\.)*)"', body)
    return "".join(parts).encode().decode("unicode_escape")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree of the same packages, whose main says where its modules come from."""
    for name in ("rootless_rt/cli", "idmap"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("rootless_rt/__init__.py", "rootless_rt/cli/__init__.py", "idmap/__init__.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "rootless_rt/word.py").write_text("WORD = 'old'\n\ndef where(): pass\n")
    (tmp_path / "rootless_rt/cli/main.py").write_text(
        "from rootless_rt import word\n"
        "def main(argv, held):\n"
        "    loader = type(word.__spec__.loader).__name__\n"
        "    if 'when' in argv:\n"
        "        import sys\n"
        "        lines = word.where.__code__.co_linetable != b''\n"
        "        argv += ['rootless_rt.cli.cmd_run' in sys.modules, lines]\n"
        "    print(word.WORD, loader, word.__file__, *argv)\n"
    )
    (tmp_path / "rootless_rt/cli/cmd_run.py").write_text(
        "from __future__ import annotations\nimport rootless_rt.word\nNOTHING: Unknown | None = None\n"
    )
    return tmp_path


def build(tree: Path, *options: str) -> Path:
    out = tree / f"rootless_rt/modules.{TAG}"
    subprocess.run([sys.executable, "-I", ARCHIVE, tree, out, *options], check=True)
    return out


def run(tree: Path, *words: str) -> list[str]:
    words = words or ("a", "b")
    argv = [sys.executable, "-I", "-S", "-B", "-c", launcher_code(), str(tree), "", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_modules_come_from_the_archive_and_know_their_file(tree: Path) -> None:
    build(tree, "--checked")
    assert run(tree) == ["old", "ArchiveImporter", f"{tree}/rootless_rt/word.py", "a", "b"]


def test_a_source_that_has_changed_since_is_believed_instead(tree: Path) -> None:
    build(tree, "--checked")
    source = tree / "rootless_rt/word.py"
    source.write_text("WORD = 'new'\n")
    os.utime(source, ns=(1, 1))
    assert run(tree)[:2] == ["new", "SourceFileLoader"]


def test_without_checks_the_archive_is_believed_as_installed(tree: Path) -> None:
    build(tree)
    os.utime(tree / "rootless_rt/word.py", ns=(1, 1))
    assert run(tree)[:2] == ["old", "ArchiveImporter"]


def test_a_module_that_the_archive_does_not_hold_is_imported_as_usual(tree: Path) -> None:
    (tree / "rootless_rt/word.py").rename(tree / "word.away")
    build(tree, "--checked")
    (tree / "word.away").rename(tree / "rootless_rt/word.py")
    assert run(tree)[:2] == ["old", "SourceFileLoader"]


def test_what_a_command_always_needs_is_imported_at_once(tree: Path) -> None:
    build(tree, "--checked")
    assert run(tree, "run", "when")[1:] == [
        "ArchiveImporter",
        f"{tree}/rootless_rt/word.py",
        "run",
        "when",
        "True",
        "False",
    ]
    assert run(tree, "when")[-2:] == ["False", "True"]


def test_with_debug_the_modules_keep_their_line_numbers(tree: Path) -> None:
    build(tree, "--checked")
    assert run(tree, "--debug", "run", "when")[-2:] == ["False", "True"]
    assert run(tree, "run", "--debug", "when")[-2:] == ["True", "False"]  # of a program in a container


def test_who_measures_imports_sees_them_one_by_one(tree: Path) -> None:
    build(tree, "--checked")
    argv = [sys.executable, "-I", "-S", "-B", "-X", "importtime", "-c", launcher_code(), str(tree), "run"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "rootless_rt.word" in done.stderr and "rootless_rt.cli.cmd_run" not in done.stderr


def test_a_changed_source_ends_the_import_at_once(tree: Path) -> None:
    build(tree, "--checked")
    (tree / "rootless_rt/word.py").write_text("WORD = 'new'\n\ndef where(): return 1\n")
    assert run(tree, "run", "when")[:2] == ["new", "SourceFileLoader"]


def test_an_archive_that_is_replaced_meanwhile_is_not_read_with_old_offsets(tree: Path) -> None:
    out = build(tree)
    main = tree / "rootless_rt/cli/main.py"
    main.write_text(
        "import posix\n"
        "def main(argv, held):\n"
        f"    posix.rename({str(out)!r} + '.next', {str(out)!r})\n"
        "    from rootless_rt import word\n"
        "    print(word.WORD, type(word.__spec__.loader).__name__)\n"
    )
    build(tree).with_name(out.name + ".next").write_bytes(b"another" * 1000)
    assert run(tree) == ["old", "SourceFileLoader"]


@pytest.mark.parametrize("content", [b"", b"junk", b"\xe3" * 100], ids=["empty", "junk", "tuple"])
def test_a_damaged_archive_is_passed_over(tree: Path, content: bytes) -> None:
    build(tree).write_bytes(content)
    assert run(tree)[:2] == ["old", "SourceFileLoader"]


def test_without_an_archive_all_works_as_well(tree: Path) -> None:
    assert run(tree)[:2] == ["old", "SourceFileLoader"]


def test_a_truncated_archive_is_passed_over(tree: Path) -> None:
    out = build(tree)
    out.write_bytes(out.read_bytes()[:-20])
    assert run(tree)[:2] == ["old", "SourceFileLoader"]
