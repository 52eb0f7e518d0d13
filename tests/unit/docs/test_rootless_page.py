"""docs/rootless.md says of the doctor's ids what the program says."""

from __future__ import annotations

import re
import runpy

from lab.tree import TREE

from rootless_rt.cli.table import COMMANDS
from rootless_rt.host.doctor.reasons import REASONS

PAGE = (TREE / "docs/rootless.md").read_text(encoding="utf-8")


def test_the_table_of_ids_is_fresh_and_whole() -> None:
    written = runpy.run_path(str(TREE / "docs/generate_doctor.py"))["page"](PAGE)
    assert written == PAGE, "run: python3 docs/generate_doctor.py"
    rows = re.findall(r"^\| `(RT-[A-Z-]+)` \| (degraded|blocked) \| .+ \| .+ \|$", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == [reason.id for reason in REASONS]


def test_every_option_that_is_named_exists() -> None:
    known = {option for command in COMMANDS for each in command.options for option in each.names}
    lines = [
        line
        for line in PAGE.splitlines()
        if re.match(r"( {4}|\$ |rt )*rt (run|create|spec|exec|delete) ", line.strip())
    ]
    for line in lines:
        named = re.findall(r"(?<!\S)--([a-z][a-z-]+)", line)
        assert set(named) <= known, line


def test_links_within_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", PAGE):
        assert (TREE / "docs" / target).exists(), target
    headings = {re.sub(r"[^a-z0-9 -]", "", line.lower()).strip().replace(" ", "-")
                for line in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)}  # fmt: skip
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings
