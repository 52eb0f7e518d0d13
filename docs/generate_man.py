"""Writes the manual pages rt.1 and rt-COMMAND.1 from the table of the command line, in man(7)'s macros.

    python3 docs/generate_man.py DIRECTORY    writes them all
    python3 docs/generate_man.py --list       prints their names

The build calls it. It knows the table (rootless_rt/cli/table.py) and roff, nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
if str(TREE) not in sys.path:
    sys.path.insert(0, str(TREE))

from rootless_rt.cli.option import FLAG, NUMBER, Command, Option  # noqa: E402
from rootless_rt.cli.table import COMMANDS, GLOBAL_OPTIONS, HELP  # noqa: E402
from rootless_rt.version import VERSION  # noqa: E402

_EXIT = """\
.SH EXIT STATUS
A command ends with 0, or with 1 after an error.
.B rt run
in the foreground and
.B rt exec
end with the status of the program: 128 + n when signal n ended it;
.B rt exec
ends with 255 after an error of its own.
"""
_FILES = """\
.SH FILES
.TP
.I /run/rt
the state of root's containers
.TP
.I $XDG_RUNTIME_DIR/rt
the state of another user's containers
.TP
.I config.json
what a container is, in its bundle: the OCI runtime specification
"""


def pages() -> dict[str, str]:
    """The name of each page's file and what is in it."""
    return {"rt.1": _overview(), **{f"rt-{command.name}.1": _page(command) for command in COMMANDS}}


def _overview() -> str:
    return "".join(
        [
            _title("rt"),
            ".SH NAME\nrt \\- run OCI containers without being root\n",
            ".SH SYNOPSIS\n.B rt\n",
            "[\\fIGLOBAL OPTIONS\\fR] \\fICOMMAND\\fR [\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]\n",
            ".SH DESCRIPTION\n.B rt\ntakes a bundle, a directory with a config.json and the files of a root,",
            " and runs it as a container. Its commands and options are those of\n.BR runc (8)\n",
            "where both have them.\n",
            ".SH GLOBAL OPTIONS\nThey come before the command.\n" + _options(GLOBAL_OPTIONS),
            ".SH COMMANDS\n",
            *(f".TP\n\\fBrt\\-{command.name}\\fR(1)\n{_text(command.help)}\n" for command in COMMANDS),
            _EXIT,
            _FILES,
        ]
    )


def _page(command: Command) -> str:
    name = f"rt-{command.name}"
    words = [f".B rt {command.name}"]
    shown = tuple(option for option in command.options if not option.hidden)
    words.append("[\\fIOPTIONS\\fR]")
    for at, argument in enumerate(command.arguments):
        given = f"\\fI{argument}\\fR" + ("..." if command.stops and at == len(command.arguments) - 1 else "")
        words.append(given if at < command.required else f"[{given}]")
    parts = [
        _title(name),
        f".SH NAME\n{_text(name)} \\- {_text(command.help)}\n",
        f".SH SYNOPSIS\n{words[0]}\n{' '.join(words[1:])}\n",
        f".SH DESCRIPTION\n{_text(command.help[0].upper() + command.help[1:])}.\n",
    ]
    if command.stops:
        parts.append(
            f"Options end at the first argument: what follows the {command.arguments[0]} is not for rt.\n"
        )
    parts.append(".SH OPTIONS\n" + _options((*shown, HELP)))
    return "".join([*parts, ".SH SEE ALSO\n.BR rt (1)\n"])


def _title(name: str) -> str:
    first = '.\\" Written by docs/generate_man.py.\n'
    return first + f'.TH {_text(name.upper())} 1 "" "rt {VERSION}" "User Commands"\n'


def _options(options: tuple[Option, ...]) -> str:
    return "".join(_option(option) for option in options if not option.hidden)


def _option(option: Option) -> str:
    names = ", ".join(
        "\\fB" + _text(("-" if len(name) == 1 else "--") + name) + "\\fR" for name in option.names
    )
    value = ""
    if option.choices:
        value = " " + "|".join(f"\\fB{_text(choice)}\\fR" for choice in option.choices)
    elif option.kind != FLAG:
        value = f" \\fI{_text(option.value)}\\fR"
    shown = option.kind != FLAG and (option.default or option.kind == NUMBER)
    default = f" (default: {_text(str(option.default))})" if shown else ""
    return f".TP\n{names}{value}\n{_text(option.help)}{default}\n"


def _text(text: str) -> str:
    """Text as roff takes it: no escapes, dashes to copy, no line that begins with a request."""
    safe = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + safe if safe.startswith((".", "'")) else safe


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print("\n".join(pages()))
    else:
        for file, page in pages().items():
            Path(sys.argv[1], file).write_text(page, encoding="utf-8")
