"""The command itself with any words and any config: it answers, without a traceback or a side effect.

RT_FUZZ says how many of each; the usual run is short. The parsers alone meet far more in tests/unit.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeBundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab.leftovers import Ground
from lab.runtime import Runtime
from lab.spoil import spoiled

from rootless_rt.cli.option import FLAG
from rootless_rt.cli.table import COMMANDS, GLOBAL_OPTIONS

COUNT = int(os.environ.get("RT_FUZZ", "20"))
FUZZ = settings(
    max_examples=COUNT,
    deadline=None,
    database=None,
    derandomize="RT_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
# None begins with a dash or names what others use: a word may become a path, a program or a pattern.
VALUES = st.sampled_from(
    [
        "",
        "c",
        "0",
        "1",
        "-1",
        "65536",
        "1_0",
        "٣",
        "9" * 400,
        "a,b",
        "a=b",
        "x:y",
        "no/such",
        "\n",
        "é",
        "\udcff",
    ]
)


def given_options(options: tuple[Any, ...]) -> st.SearchStrategy[list[str]]:
    """One option as it may be written, with a value or without."""
    if not options:
        return st.just([])

    def written(option: Any) -> st.SearchStrategy[list[str]]:
        name = st.sampled_from(
            [dashes + name for name in option.names for dashes in ("-", "--") if name != "root"] or ["--"]
        )
        alone = name.map(lambda word: [word])
        joined = st.tuples(name, VALUES).map(lambda pair: [f"{pair[0]}={pair[1]}"])
        apart = st.tuples(name, VALUES).map(list)
        return (alone | joined) if option.kind == FLAG else (joined | apart | alone)

    return st.sampled_from(options).flatmap(written)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    command = draw(st.sampled_from(COMMANDS))
    before = draw(st.lists(given_options(GLOBAL_OPTIONS), max_size=2))
    behind = draw(st.lists(given_options(command.options), max_size=4))
    name = draw(st.sampled_from([command.name] * 8 + ["", "nonsense"]))
    words = draw(st.lists(VALUES, max_size=3))
    return [word for part in before for word in part] + [name] + [w for part in behind for w in part] + words


class Fuzzed:
    """Commands in a directory of the test's; what they leave is what the kernel lists."""

    def __init__(self, rt: Runtime, place: Path) -> None:
        self.rt, self.here = rt, place / "here"
        self.here.mkdir()
        rt.user.owns(self.here)
        self.ground = Ground(rt, "fuzzed")

    def files(self) -> list[str]:
        return sorted(str(path) for path in self.here.rglob("*"))

    def __call__(self, *words: str) -> None:
        before = self.files()
        done = self.rt(*words, cwd=str(self.here))
        assert 0 <= done.returncode <= 255, (words, done)
        assert "Traceback" not in done.stderr + done.stdout and len(done.stderr) < 4000, (words, done)
        asked = any(word.lstrip("-").startswith("log") for word in words)  # an error goes there too
        if done.returncode:
            assert done.stdout + done.stderr, (words, done)
            assert asked or self.files() == before, (words, done)
        for path in self.here.iterdir():
            path.unlink()
        for entry in self.rt.root.iterdir():
            assert done.returncode == 0, (words, done)
            self.rt.ok("delete", "--force", entry.name)
        self.ground.clean()


@pytest.fixture
def fuzzed(rt: Runtime, place: Path) -> Fuzzed:
    return Fuzzed(rt, place)


def test_any_words_are_answered(fuzzed: Fuzzed) -> None:
    @FUZZ
    @given(command_lines())
    def tried(words: list[str]) -> None:
        fuzzed(*words)

    tried()


def test_any_config_runs_or_is_refused_and_leaves_nothing(fuzzed: Fuzzed, bundle: MakeBundle) -> None:
    made = bundle(["/bin/true"])
    sound = json.loads(json.dumps(made.config))

    @FUZZ
    @given(st.data())
    def tried(data: st.DataObject) -> None:
        made.config = spoiled(data, sound)
        made.write()
        fuzzed("run", "--bundle", str(made.path), "fuzzed")

    tried()
