"""The launcher's reader of command lines (cli/shortcut_argv.c) beside the parser: never another meaning."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.tree import TREE

from rootless_rt.cli.argv import flag, parse, text
from rootless_rt.cli.table import COMMANDS, GLOBAL_OPTIONS, find
from rootless_rt.spec.names import SIGNALS, signal_number

VERBS = ("state", "kill", "start", "delete", "run", "exec")  # as in shortcut.h
CLI = TREE / "rootless_rt/cli"
# What changes neither what these verbs do nor, when all goes well, what they say.
WITHOUT_EFFECT = {"log", "log_format", "systemd_cgroup", "cgroup_manager", "rootless", "degrade", "criu"}


class Reader:
    """A program around the C function, that answers one command line after the other."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, words: list[str]) -> list[str] | None:
        """What shortcut_calls.c tells of it; None for what is left to Python."""
        assert self.process.stdin and self.process.stdout
        data = b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words)
        self.process.stdin.write(bytes([len(words)]) + data)
        self.process.stdin.flush()
        line = self.process.stdout.readline().decode("utf-8", "surrogateescape").rstrip("\n")
        return None if line == "-" else line.split("\t")

    def close(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    gcc = shutil.which("gcc")
    if not gcc:
        pytest.skip("needs gcc")
    program = tmp_path_factory.mktemp("calls") / "calls"
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{CLI}"]
    sources = [TREE / "tests/lab/shortcut_calls.c", CLI / "shortcut_argv.c"]
    subprocess.run([gcc, *flags, "-o", program, *sources], check=True)
    reader = Reader(program)
    yield reader
    reader.close()


def expected(words: list[str]) -> list[str]:
    """What the parser makes of it. Raises RtError where that is a mistake."""
    inv = parse(words)
    number = signal_number(inv.args[1] if len(inv.args) > 1 and inv.command != "exec" else "TERM")
    if inv.command == "exec":
        number = 0
    everyone = flag(inv.options, "all") if inv.command == "kill" else False
    force = flag(inv.options, "force") if inv.command == "delete" else False
    for option in GLOBAL_OPTIONS:
        if option.key not in WITHOUT_EFFECT | {"root"}:
            assert inv.globals[option.key] == option.default, option.key
    command = find(inv.command)
    assert command is not None
    for option in command.options:
        if option.key not in ("all", "force", "bundle", "process"):
            assert inv.options[option.key] == option.default, option.key
    verb = VERBS.index(inv.command)
    root = text(inv.globals, "root") or ""
    bundle = (
        text(inv.options, {"run": "bundle", "exec": "process"}[inv.command])
        if inv.command in ("run", "exec")
        else None
    )
    return [str(verb), inv.args[0], str(number), str(int(everyone)), str(int(force)), root, bundle or ""]


NAMES = sorted({name for option in GLOBAL_OPTIONS for name in option.names})
OWN = sorted(
    {name for command in COMMANDS if command.name in VERBS for o in command.options for name in o.names}
)
VALUES = [
    *["", "true", "false", "1", "F", "TRUE", "json", "text", "auto", "warn", "disabled", "/r", "-", "perhaps"]
]
SIGNS = [
    *[
        "9",
        "KILL",
        "sigkill",
        "SigTerm",
        "RTMIN",
        "RTMIN+3",
        "rtmax-1",
        "RTMAX-31",
        "RTMIN+31",
        "0",
        "64",
        "65",
        "009",
        "99999999999",
        "+9",
        "K",
    ],
    *["SIGSIGKILL", "\u017figkill", "RTMIN-1", "RTMAX+1", "RTMIN+", "sig", "SIG9", "POLL", "CLD", "IOT"],
    *("0" * 19 + "9", "0" * 20 + "9", " 9", ""),
]
option = st.builds(
    lambda dash, name, value: dash + name + value,
    st.sampled_from(["-", "--", "---"]),
    st.sampled_from([*NAMES, *OWN, "nothing", ""]),
    st.one_of(st.just(""), st.sampled_from(VALUES).map("=".__add__)),
)
word = st.one_of(
    option,
    option,
    st.sampled_from(VALUES),
    st.sampled_from(SIGNS),
    st.sampled_from(["c", "--", *[command.name for command in COMMANDS], "a b", "\udcff"]),
    st.text(st.characters(exclude_characters="\0\n\t", exclude_categories=("Cs",)), max_size=8),
)
lines = st.builds(
    lambda before, verb, after: [*before, verb, *after],
    st.lists(word, max_size=4),
    st.sampled_from([*VERBS, "list"]),
    st.lists(word, max_size=5),
)


@settings(max_examples=400, deadline=None)
@given(lines)
def test_what_the_launcher_understands_means_the_same_to_the_parser(read: Reader, words: list[str]) -> None:
    found = read(words)
    if found is not None:
        *told, other, first = found
        if told[0] == str(VERBS.index("run")):
            told[6] = told[6] or "."  # not given: the parser's default
        assert told == expected(words)
        inv = parse(words)
        assert first == (inv.args[1] if inv.command == "exec" and inv.args[1:] else "")
        # `run` and `exec` heed them all: the launcher must not overlook one that changes something.
        given = inv.globals
        changed = any(
            given[option.key] != option.default for option in GLOBAL_OPTIONS if option.key != "root"
        )
        assert other == "1" or not changed


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.sampled_from(SIGNS), st.text(max_size=12), st.sampled_from(sorted(SIGNALS))))
def test_a_signal_is_the_same_number(read: Reader, sign: str) -> None:
    if "\0" in sign or "\t" in sign or "\n" in sign or not sign.isprintable() or sign.startswith("-"):
        return
    found = read(["kill", "c", sign])
    if found is not None:
        assert found[2] == str(signal_number(sign))


def test_every_name_and_number_of_a_signal_is_known(read: Reader) -> None:
    for sign in [
        *SIGNALS,
        *(name[3:].lower() for name in SIGNALS),
        *map(str, range(1, 65)),
        "RTMIN+3",
        "RTMAX-3",
    ]:
        assert read(["kill", "c", sign]) is not None, sign


def test_every_option_without_effect_is_taken(read: Reader) -> None:
    """A new global option is a decision: does it change what the short verbs do or say?"""
    known = WITHOUT_EFFECT | {"root", "debug", "log_level", "version", "help"}
    assert {option.key for option in GLOBAL_OPTIONS} == known
    for option in GLOBAL_OPTIONS:
        if option.key in WITHOUT_EFFECT | {"root"}:
            for value in option.choices or ("true", "/r")[option.key != "systemd_cgroup" :][:1]:
                assert read([f"--{option.names[-1]}={value}", "state", "c"]) is not None, (option.key, value)
        else:
            assert read([f"--{option.names[-1]}", "state", "c"]) is None
