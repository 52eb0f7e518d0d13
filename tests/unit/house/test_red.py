"""Tests of attacks can fail: a patch makes each CVE's do so, and still finds what it takes out."""

from __future__ import annotations

import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from lab.tree import TREE

sys.path.insert(0, str(TREE / "tools"))
from red_patches import PATCHES, applies, named_tests, patches, taken_out

every_patch = pytest.mark.parametrize("patch", patches(), ids=lambda patch: patch.stem)
FILES = sorted((TREE / "tests/cve").glob("test_cve_*.py"))
CVE = re.compile(r"CVE-(\d{4})-(\d{4,})")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_test_of_each_cve_is_seen_to_fail_by_a_patch(file: Path) -> None:
    named = {test.split("::")[0] for patch in patches() for test in named_tests(patch)}
    assert str(file.relative_to(TREE)) in named, f"{PATCHES} has no patch with which it fails"


@every_patch
def test_a_patch_says_what_it_takes_out_and_names_tests_that_there_are(patch: Path) -> None:
    assert taken_out(patch)
    for test in named_tests(patch):
        file, _, function = test.partition("::")
        text = (TREE / file).read_text()
        assert not function or f"def {function.partition('[')[0]}(" in text, test


@every_patch
def test_a_patch_still_finds_the_code_that_it_takes_out(patch: Path) -> None:
    if not shutil.which("patch"):
        pytest.skip("needs patch")
    assert applies(patch, TREE, only_try=True), (
        "the code has changed: write the patch anew, and run red_runs.py"
    )


def test_a_patch_whose_code_has_changed_is_found_out(tmp_path: Path) -> None:
    if not shutil.which("patch"):
        pytest.skip("needs patch")
    (tmp_path / "code").write_text("one\ntwo\nthree\n")
    patch = tmp_path / "a.patch"
    patch.write_text("Test: x\n\nTwo.\n\n--- a/code\n+++ b/code\n@@ -1,3 +1,2 @@\n one\n-two\n three\n")
    assert applies(patch, tmp_path, only_try=True)
    (tmp_path / "code").write_text("one\nother\nthree\n")
    assert not applies(patch, tmp_path, only_try=True)
    assert (tmp_path / "code").read_text() == "one\nother\nthree\n"


def test_the_table_of_patches_is_what_its_script_writes() -> None:
    written = runpy.run_path(str(TREE / "docs/generate_red.py"))["page"]()
    assert (TREE / "docs/security.md").read_text() == written, "run: python3 docs/generate_red.py"


def test_the_page_names_the_file_of_every_cve_that_it_speaks_of_and_each_file_is_spoken_of() -> None:
    text = (TREE / "docs/security.md").read_text()
    files = {tuple(file.stem.split("_")[2:]) for file in FILES}
    spoken = set(CVE.findall(text))
    without = {("2016", "8659"), ("2019", "12439"), ("2020", "5291"), ("2022", "27650"), ("2025", "27612")}
    assert spoken - files == without, "the page says of these why they have no file"
    assert files <= spoken


def test_the_page_names_only_tests_that_there_are() -> None:
    """Behind a file's name, the names in italics are its tests."""
    text = (TREE / "docs/security.md").read_text()
    named = re.findall(r"`(tests/[\w/.]+)`((?:(?::|\s*\()\s*(?:\*\w+\*(?:,\s*)?)+)?)", text)
    assert named
    for file, functions in named:
        path = TREE / file
        assert path.exists(), file
        for function in re.findall(r"\*(\w+)\*", functions):
            assert f"def {function}(" in path.read_text(), (file, function)
