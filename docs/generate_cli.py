"""Writes docs/cli.md from the table of the command line: python3 docs/generate_cli.py

Knows the table (rootless_rt/cli/table.py) and Markdown, nothing else: what a command does is said there.
tests/unit/cli/test_docs.py fails when the page is older than the table.
"""

from __future__ import annotations

import sys
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
if str(TREE) not in sys.path:
    sys.path.insert(0, str(TREE))

from rootless_rt.cli.option import CHOICE, FLAG, NUMBER, Command, Option  # noqa: E402
from rootless_rt.cli.table import COMMANDS, GLOBAL_OPTIONS  # noqa: E402

PAGE = TREE / "docs/cli.md"
_TOP = """\
<!-- Written by docs/generate_cli.py from rootless_rt/cli/table.py: change the table, then run the script. -->

# The command line

    rt [GLOBAL OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]

Global options come before the command, the command's own options after it. Names and meanings are those of
`runc` where both have them.

`rt run` and `rt exec` without `--detach` end with the exit status of the program: 128 + n when signal n ended
it. `rt exec` ends with 255 after an error of its own; other commands end with 0, or with 1 after an error. An
error is one line on stderr, often followed by a line that begins with `hint:`.
"""


def page() -> str:
    """The whole page."""
    parts = [_TOP, "## Global options\n\n" + _options(GLOBAL_OPTIONS), "## Commands\n\n" + _commands()]
    parts += [_command(command) for command in COMMANDS]
    return "\n".join(parts)


def _commands() -> str:
    rows = [f"| [`{command.name}`](#rt-{command.name}) | {_cell(command.help)} |" for command in COMMANDS]
    return "\n".join(["| command | what it does |", "|---|---|", *rows]) + "\n"


def _command(command: Command) -> str:
    words = ["rt", command.name]
    if command.options:
        words.append("[OPTIONS]")
    for at, name in enumerate(command.arguments):
        words.append(name if at < command.required else f"[{name}]")
    text = f"## rt {command.name}\n\n    {' '.join(words)}\n\n{command.help[0].upper()}{command.help[1:]}.\n"
    options = [option for option in command.options if not option.hidden]
    return text + ("\n" + _options(tuple(options)) if options else "")


def _options(options: tuple[Option, ...]) -> str:
    rows = [
        f"| {_spelling(option)} | {_cell(option.help)}{_default(option)} |"
        for option in options
        if not option.hidden
    ]
    return "\n".join(["| option | meaning |", "|---|---|", *rows]) + "\n"


def _spelling(option: Option) -> str:
    names = ", ".join(f"`{'-' if len(name) == 1 else '--'}{name}`" for name in option.names)
    if option.kind == FLAG:
        return names
    if option.kind == CHOICE:
        return names + " " + " \\| ".join(f"`{choice}`" for choice in option.choices)
    return f"{names} *{option.value}*"


def _default(option: Option) -> str:
    shown = option.default is not None and option.kind != FLAG
    return f" (default: `{option.default}`)" if shown and (option.default or option.kind == NUMBER) else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
