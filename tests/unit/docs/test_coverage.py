"""The page on coverage is current, and what no test shows at work is written down here."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).resolve().parents[3] / "docs"
COVERAGE = runpy.run_path(str(DOCS / "generate_coverage.py"))

# Supported, and shown at work by no test: only to become shorter.
UNTESTED: set[str] = set()


def test_the_page_is_what_its_script_writes() -> None:
    written = COVERAGE["page"]()
    page = (DOCS / "spec-coverage.md").read_text(encoding="utf-8")
    assert page == written, "run: python3 docs/generate_coverage.py"


def test_every_field_and_option_has_a_test() -> None:
    found = set(COVERAGE["untested"](COVERAGE["marks"]()))
    assert found - UNTESTED == set(), "mark the tests that show them: @pytest.mark.covers"


def test_the_list_of_what_is_untested_is_no_longer_than_needed() -> None:
    assert UNTESTED - set(COVERAGE["untested"](COVERAGE["marks"]())) == set()


def test_marks_name_what_there_is() -> None:
    assert COVERAGE["unknown"](COVERAGE["marks"]()) == []


def test_fields_are_named_by_their_paths() -> None:
    fields = list(COVERAGE["fields"]())
    assert len(fields) == len(set(fields)) > 130
    assert {"root.path", "mounts[].options", "linux.sysctl", "linux.seccomp.syscalls[].args[].valueTwo"} <= {
        *fields
    }


def test_a_mark_stands_for_what_is_below_it_and_for_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "user").mkdir()
    (tmp_path / "user/test_x.py").write_text(
        'import pytest\nWORDS = {"ro": 1}\nWORDS2 = ["rw"]\nWORDS2 += ["suid"]\n'
        '@pytest.mark.covers("process.user", "linux.namespaces[].type time", "exec --cap")\n'
        "def test_a(rt): pass\n"
        '@pytest.mark.covers(*(f"mounts[].options {word}" for word in WORDS))\n'
        '@pytest.mark.covers(*[f"mounts[].options {word}" for word in WORDS2])\n'
        "def test_b(root_rt): pass\n"
    )
    marked = COVERAGE["marks"](tmp_path)
    covering = COVERAGE["covering"]
    assert covering("process.user.uid", marked)["rootless"] == {"user/test_x.py"}
    assert covering("linux.namespaces[].type", marked)["rootless"] == {"user/test_x.py"}
    assert covering("exec --cap", marked)["rootless"] and not any(covering("exec --cwd", marked).values())
    for word in ("ro", "rw", "suid"):
        assert covering(f"mounts[].options {word}", marked)["root"] == {"user/test_x.py"}
    assert not any(covering("mounts[].options rro", marked).values())
    assert not any(covering("process.args", marked).values())
