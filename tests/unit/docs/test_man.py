"""The manual pages hold what the table does, and are clean roff."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from rootless_rt.cli.table import COMMANDS, GLOBAL_OPTIONS

MAN = runpy.run_path(str(Path(__file__).resolve().parents[3] / "docs/generate_man.py"))
PAGES: dict[str, str] = MAN["pages"]()


def test_there_is_a_page_for_rt_and_for_every_command() -> None:
    assert set(PAGES) == {"rt.1", *(f"rt-{command.name}.1" for command in COMMANDS)}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_page_names_every_option_that_is_shown(command: object) -> None:
    page = PAGES[f"rt-{command.name}.1"].replace("\\-", "-")  # type: ignore[attr-defined]
    for option in command.options:  # type: ignore[attr-defined]
        for name in option.names:
            dashed = f"\\fB{'-' if len(name) == 1 else '--'}{name}\\fR"
            assert (dashed in page) is not option.hidden


def test_the_first_page_names_commands_and_global_options() -> None:
    page = PAGES["rt.1"].replace("\\-", "-")
    assert all(f"rt-{command.name}" in page for command in COMMANDS)
    assert all(f"--{option.names[-1]}" in page for option in GLOBAL_OPTIONS if not option.hidden)


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_is_formatted_without_a_warning(name: str, tmp_path: Path) -> None:
    if not shutil.which("groff"):
        pytest.skip("needs groff")
    (tmp_path / name).write_text(PAGES[name], encoding="utf-8")
    groff = ["groff", "-man", "-Tutf8", "-ww", str(tmp_path / name)]
    done = subprocess.run(groff, capture_output=True, text=True, check=True)
    assert done.stderr == "" and "User Commands" in done.stdout


@pytest.mark.parametrize(
    ("text", "roff"),
    [("a-b", "a\\-b"), ("\\n", "\\en"), (".TH", "\\&.TH"), ("'x", "\\&'x")],
)
def test_text_is_no_request(text: str, roff: str) -> None:
    assert MAN["_text"](text) == roff
