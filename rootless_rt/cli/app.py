"""Help and version: the click application built from the table, and the plain text without click.

Loaded only when someone asks for help or makes a mistake. It knows how help looks; parsing is
argv.py's alone, so the application carries parameters for help and completion, and runs nothing.
"""

from __future__ import annotations

from rootless_rt.cli.option import CHOICE, FLAG, LIST, NUMBER, Command, Option
from rootless_rt.cli.table import COMMANDS, GLOBAL_OPTIONS, HELP, find
from rootless_rt.version import SPEC_VERSION, VERSION, commit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import click

_ABOUT = "Run OCI containers without being root."
_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def version_text(prog: str) -> str:
    """What --version prints; docker reads the words after `version` and `commit:`."""
    built_from = commit()
    line = f"commit: {built_from}\n" if built_from else ""
    return f"{prog} version {VERSION}\n{line}spec: {SPEC_VERSION}\n"


def help_text(prog: str, name: str | None) -> str:
    """The help of the command `name`, or of the whole program for None, with a final newline."""
    try:
        return _click_help(prog, name)
    except ImportError:
        return _plain_help(prog, name)


def application(prog: str = "rt") -> click.Group:
    """The table as a click application. Raises ImportError without click."""
    import click

    return click.Group(
        prog,
        commands={command.name: _click_command(command) for command in COMMANDS},
        params=[_click_option(option) for option in GLOBAL_OPTIONS if option is not HELP],
        help=_ABOUT,
        context_settings=_SETTINGS,
    )


def _click_command(command: Command) -> click.Command:
    import click

    arguments: list[click.Parameter] = [
        click.Argument([name.lower()], required=at < command.required, metavar=_argument(command, at))
        for at, name in enumerate(command.arguments)
    ]
    options: list[click.Parameter] = [_click_option(option) for option in command.options]
    help = command.help[0].upper() + command.help[1:] + "."
    return click.Command(command.name, params=arguments + options, help=help, context_settings=_SETTINGS)


def _click_option(option: Option) -> click.Option:
    import click

    spellings = [("-" if len(name) == 1 else "--") + name for name in option.names]
    if option.kind == FLAG:
        return click.Option([*spellings, option.key], is_flag=True, help=option.help, hidden=option.hidden)
    kind: click.ParamType[Any] | None = None
    if option.kind == CHOICE:
        kind = click.Choice(option.choices)
    elif option.kind == NUMBER:
        kind = click.INT
    return click.Option(
        [*spellings, option.key],
        type=kind,
        default=option.default,
        show_default=option.default is not None,
        multiple=option.kind == LIST,
        metavar=option.value or None,
        help=option.help,
        hidden=option.hidden,
    )


def _click_help(prog: str, name: str | None) -> str:
    import click

    group = application(prog)
    context = click.Context(group, info_name=prog, **_SETTINGS)
    if name is None:
        return group.get_help(context) + "\n"
    command = group.commands[name]
    return command.get_help(click.Context(command, info_name=name, parent=context, **_SETTINGS)) + "\n"


def _plain_help(prog: str, name: str | None) -> str:
    """The help without click: the same facts, one line an item."""
    command = find(name) if name is not None else None
    if command is None:
        usage, about = f"{prog} [OPTIONS] COMMAND [ARGS]...", _ABOUT
        options = GLOBAL_OPTIONS
    else:
        arguments = [_argument(command, at) for at in range(len(command.arguments))]
        usage, about = " ".join([prog, command.name, "[OPTIONS]", *arguments]), command.help
        options = (*command.options, HELP)
    items = [(_spelling(option), option.help) for option in options if not option.hidden]
    lines = [f"Usage: {usage}", "", f"  {about}", "", "Options:", *_columns(items)]
    if command is None:
        lines += ["", "Commands:", *_columns([(known.name, known.help) for known in COMMANDS])]
    return "\n".join(lines) + "\n"


def _argument(command: Command, at: int) -> str:
    """How the positional number `at` is written in a usage line."""
    name = command.arguments[at]
    return name if at < command.required else f"[{name}]"


def _spelling(option: Option) -> str:
    names = ", ".join(("-" if len(name) == 1 else "--") + name for name in option.names)
    value = option.value or "|".join(option.choices)
    return f"{names} {value}" if value else names


def _columns(items: list[tuple[str, str]]) -> list[str]:
    width = max(len(left) for left, _ in items) + 2
    return [f"  {left.ljust(width)}{right}" for left, right in items]
