"""Help and the click application: made from the table, and of one mind with the parser."""

from __future__ import annotations

import sys

import click
import pytest

from rootless_rt.cli.app import application, help_text, version_text
from rootless_rt.cli.argv import parse
from rootless_rt.cli.option import Option
from rootless_rt.cli.table import COMMANDS, GLOBAL_OPTIONS, HELP

PAGES = [(None, GLOBAL_OPTIONS)] + [(command.name, command.options) for command in COMMANDS]


@pytest.fixture(params=["click", "plain"])
def renderer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "click", None)
    return str(request.param)


@pytest.mark.usefixtures("renderer")
@pytest.mark.parametrize(("name", "options"), PAGES)
def test_help_names_every_option_but_hidden_ones(name: str | None, options: tuple[Option, ...]) -> None:
    words = help_text("rt", name).replace(",", " ").split()
    for option in (*options, HELP):
        for spelling in option.names:
            dashed = ("-" if len(spelling) == 1 else "--") + spelling
            assert (dashed in words) is not option.hidden


@pytest.mark.usefixtures("renderer")
def test_the_first_page_names_every_command() -> None:
    page = help_text("rt", None)
    assert page.startswith("Usage: rt [OPTIONS] COMMAND")
    assert page.endswith("\n")
    first_words = [line.split()[0] for line in page.partition("Commands:\n")[2].splitlines() if line]
    assert sorted(first_words) == sorted(command.name for command in COMMANDS)


@pytest.mark.usefixtures("renderer")
def test_usage_shows_which_arguments_may_be_left_out() -> None:
    assert help_text("rt", "kill").splitlines()[0] == "Usage: rt kill [OPTIONS] ID [SIGNAL]"


def test_version_has_the_lines_that_docker_reads() -> None:
    first, *rest = version_text("rt").splitlines()
    assert first.startswith("rt version 0.")
    assert "spec: 1.3.0" in rest


@pytest.mark.parametrize(
    "line",
    [
        "create --bundle B --pid-file F ID", "run -d --keep -b B --preserve-fds 3 ID", "run ID",
        "kill ID KILL", "kill -a ID", "delete -f ID", "list --format json -q", "list",
        "spec --rootless --idmap full -f OUT",
        "spec --from FILE --rootfs-from-host", "features", "plan -f C --format text", "help run",
        "pause ID", "resume ID", "ps -f json ID",
        "delete -r ID", "kill --regex ID",
    ],
)  # fmt: skip
def test_click_and_the_parser_understand_a_line_the_same_way(line: str) -> None:
    inv = parse(line.split())
    group = application()
    command = group.get_command(click.Context(group), inv.command)
    assert command is not None
    params = command.make_context(inv.command, line.split()[1:]).params
    spec = next(known for known in COMMANDS if known.name == inv.command)
    for option in spec.options:
        assert (params[option.key] or None) == (inv.options[option.key] or None)
    given = [params[name.lower()] for name in spec.arguments]
    assert [value for value in given if value is not None] == inv.args


def test_names_in_the_table_are_unique_and_ascii() -> None:
    names = [command.name for command in COMMANDS]
    assert len(set(names)) == len(names)
    for _, options in PAGES:
        spellings = [name for option in {*options, HELP} for name in option.names]
        assert len(set(spellings)) == len(spellings)
        assert all(name.isascii() for name in spellings)
