"""What an option and a command of the command line are: the words in which table.py is written.

Must not know any of them, and imports nothing: every call of `rt` loads it.
"""

from __future__ import annotations

# Kinds of option. FLAG stands alone (or `=true`, `=false`); the others take a value. LIST may be given again.
# An empty TEXT is the same as none; a NAME is a text for which that would do what nobody wants.
FLAG, TEXT, NUMBER, CHOICE, LIST, NAME = range(6)

# No file-descriptor or count on this command line can be larger (a C int).
NUMBER_MAX = 2**31 - 1


class Option:
    """One option: `key` is where its value is found, `names` are its spellings without dashes.

    `value` names the value in help; `hidden` options are accepted, and left out of help.
    """

    __slots__ = ("choices", "default", "help", "hidden", "key", "kind", "names", "value")

    def __init__(
        self,
        names: str,
        kind: int,
        help: str,
        value: str = "",
        default: object = None,
        choices: tuple[str, ...] = (),
        hidden: bool = False,
    ) -> None:
        self.names = tuple(names.split())
        self.key = self.names[-1].replace("-", "_")
        self.kind = kind
        self.help = help
        self.value = value
        if kind == FLAG:
            default = False
        elif kind == NUMBER:
            default = 0
        elif kind == LIST:
            default = ()
        self.default = default
        self.choices = choices
        self.hidden = hidden


class Command:
    """One command: its options and its positional arguments.

    `arguments` are the names of the positionals, of which the first `required` must be given.
    With `stops`, the first positional ends the options: what follows belongs to another program.
    """

    __slots__ = ("arguments", "help", "name", "options", "required", "stops")

    def __init__(
        self,
        name: str,
        help: str,
        arguments: tuple[str, ...] = (),
        required: int = 0,
        options: tuple[Option, ...] = (),
        stops: bool = False,
    ) -> None:
        self.name = name
        self.help = help
        self.arguments = arguments
        self.required = required
        self.options = options
        self.stops = stops
