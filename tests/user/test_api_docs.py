"""The examples of docs/api.md, run by an ordinary user."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.programs import Programs
from lab.runtime import TREE

PAGE = (TREE / "docs/api.md").read_text()
EXAMPLES = re.findall(r"^## (.+?)$|^```python\n(.+?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def examples() -> list[tuple[str, str]]:
    """(chapter, code) of each."""
    found = []
    chapter = ""
    for heading, code in EXAMPLES:
        chapter = heading or chapter
        if code:
            found.append((chapter, code))
    return found


@pytest.mark.parametrize("code", [code for _, code in examples()], ids=[name for name, _ in examples()])
def test_the_example_runs(code: str, program: Programs, bundle: MakeBundle, place: Path) -> None:
    folder = place / "work"
    folder.mkdir()
    (folder / "bundle").symlink_to(bundle("true").path)
    program.user.owns(folder)
    program(place, code, timeout=120, cwd=str(folder))


def test_every_public_name_is_on_the_page() -> None:
    import rootless_rt

    words = set(re.findall(r"\w+", PAGE))
    assert set(rootless_rt.__all__) - {"Degradation", "DEVNULL"} <= words
