"""The page on the command line says what the table says."""

from __future__ import annotations

import runpy
from pathlib import Path

from rootless_rt.cli.table import COMMANDS, GLOBAL_OPTIONS

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_page_on_the_command_line_is_what_its_script_writes() -> None:
    written = runpy.run_path(str(DOCS / "generate_cli.py"))["page"]()
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == written, "run: python3 docs/generate_cli.py"


def test_the_page_names_every_command_and_every_option_that_is_shown() -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"## rt {command.name}\n" in text
    for option in (*GLOBAL_OPTIONS, *(option for command in COMMANDS for option in command.options)):
        if not option.hidden:
            assert all(f"`{'-' if len(name) == 1 else '--'}{name}`" in text for name in option.names)
