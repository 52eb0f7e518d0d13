"""From the words of the command line to an `Invocation`, by the table and by nothing else.

The only parser of `rt`. It accepts what clients written for Go's flag package send: `--opt v`,
`--opt=v`, `-o v`, `-o=v`, long names with one dash, `--flag=false`, options after positionals.
Pure: it opens nothing, prints nothing, and raises only UsageError. Words that are not UTF-8 pass through as
Python decoded them (surrogateescape). Every call of `rt` loads this module, so the help for mistakes
is imported when there is one.
"""

from __future__ import annotations

from rootless_rt.cli.option import CHOICE, FLAG, LIST, NAME, NUMBER, NUMBER_MAX, Command, Option
from rootless_rt.cli.table import COMMANDS, GLOBAL_OPTIONS, HELP, find
from rootless_rt.errors import RtError

# Go's strconv.ParseBool: clients print their booleans with it.
_BOOLEANS = {
    "1": True, "t": True, "T": True, "true": True, "True": True, "TRUE": True,
    "0": False, "f": False, "F": False, "false": False, "False": False, "FALSE": False,
}  # fmt: skip

# Their status 1 tells what they found: scripts must not take a mistake in the command line for that.
_TELLING = ("batch", "doctor", "lint")


class Invocation:
    """What was asked: a command, the global options, its own options, its positional arguments.

    Every option of the table has an entry, its default when it was not given; keys are the long
    names with `_` for `-`. `command` is a name of the table, or "version". `prog` is for messages.
    `held` is not of the words: "", or the descriptors "DIRECTORY,CONNECTION" of a `start` that the launcher
    has begun, or descriptor and exit code "DIRECTORY,CODE" of a `run` that it has seen end (shortcut.h).
    """

    __slots__ = ("args", "command", "globals", "held", "options", "prog")

    def __init__(
        self,
        command: str,
        globals: dict[str, object],
        options: dict[str, object],
        args: list[str],
        prog: str = "rt",
    ) -> None:
        self.command = command
        self.globals = globals
        self.options = options
        self.args = args
        self.prog = prog
        self.held = ""


class UsageError(RtError):
    """The command line itself is wrong.

    `globals` holds the global options read before the mistake, because --log wants this error too;
    `command` is set when that command's help should be shown with it.
    """

    def __init__(self, message: str, globals: dict[str, object], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.globals = globals
        self.command: str | None = None


def text(values: dict[str, object], key: str) -> str | None:
    """The value of a TEXT or CHOICE option out of `options` or `globals`; None when not given."""
    value = values[key]
    return value if isinstance(value, str) else None


def flag(values: dict[str, object], key: str) -> bool:
    """The value of a FLAG option out of `options` or `globals`."""
    return values[key] is True


def items(values: dict[str, object], key: str) -> tuple[str, ...]:
    """The texts of an option that may be given again, in their order."""
    value = values[key]
    return value if isinstance(value, tuple) else ()


def number(values: dict[str, object], key: str) -> int:
    """The value of a NUMBER option out of `options` or `globals`."""
    value = values[key]
    return value if isinstance(value, int) else 0


def parse(argv: list[str], prog: str = "rt") -> Invocation:
    """Read the words after the program's name. Raises UsageError."""
    globals = {option.key: option.default for option in GLOBAL_OPTIONS}
    words: list[str] = []
    _scan(argv, GLOBAL_OPTIONS, globals, words, True, globals, None)
    if globals["version"]:
        return Invocation("version", globals, {}, [], prog)
    if globals["help"] or not words:
        return Invocation("help", globals, {}, [], prog)

    command = _command(words[0], globals)
    options = {option.key: option.default for option in command.options}
    options["help"] = False
    args: list[str] = []
    try:
        _scan(words[1:], command.options + (HELP,), options, args, command.stops, globals, command)
        if options.pop("help"):
            return Invocation("help", globals, {}, [command.name], prog)
        if len(args) < command.required or (not command.stops and len(args) > len(command.arguments)):
            raise _wrong_count(command, len(args), globals)
    except UsageError as error:
        if command.name in _TELLING:
            error.code = 2
        raise
    if command.name == "help" and args:
        _command(args[0], globals)
    return Invocation(command.name, globals, options, args, prog)


def _command(name: str, globals: dict[str, object]) -> Command:
    command = find(name)
    if command is not None:
        return command
    hint = _closest(name, [known.name for known in COMMANDS], "")
    raise UsageError(f'unknown command "{name}"', globals, hint=hint or "`rt help` lists the commands")


def _scan(
    words: list[str],
    options: tuple[Option, ...],
    values: dict[str, object],
    positionals: list[str],
    stops: bool,
    globals: dict[str, object],
    command: Command | None,
) -> None:
    """Sort `words` into `values` and `positionals`; stop early at a request for help."""
    names = {name: option for option in options for name in option.names}
    at, end = 0, len(words)
    while at < end:
        word = words[at]
        at += 1
        # A lone dash is a value (standard input), and so is the empty word.
        if len(word) < 2 or word[0] != "-":
            positionals.append(word)
            if stops:
                positionals += words[at:]
                return
            continue
        if word == "--":
            positionals += words[at:]
            return
        name, equals, value = word[2 if word[1] == "-" else 1 :].partition("=")
        option = names.get(name)
        if option is None:
            raise _unknown_option(word, name, options, globals, command)
        if option.kind == FLAG and not equals:
            values[option.key] = True
            if option is HELP:
                return
            continue
        if not equals:
            if at == end:
                raise UsageError(f"option {word} needs a value", globals)
            value = words[at]
            at += 1
        if option.kind == LIST:
            values[option.key] = (*items(values, option.key), value)
        else:
            values[option.key] = _value(option, value, globals)


def _value(option: Option, value: str, globals: dict[str, object]) -> object:
    """The value of `option` from its word."""
    name = "--" + option.names[-1]
    if option.kind == FLAG:
        if value in _BOOLEANS:
            return _BOOLEANS[value]
        raise UsageError(f'option {name} is either on or off, not "{value}"', globals,
                         hint=f"write {name} or {name}=false")  # fmt: skip
    if option.kind == NUMBER:
        # Not int() alone: it also takes signs, spaces, underscores and other scripts' digits.
        if value.isascii() and value.isdigit() and len(value) <= 10 and int(value) <= NUMBER_MAX:
            return int(value)
        raise UsageError(f'option {name} takes a whole number from 0 to {NUMBER_MAX}, not "{value}"', globals)
    if option.kind == CHOICE:
        if value in option.choices:
            return value
        raise UsageError(f'option {name} cannot be "{value}"', globals,
                         hint="choose one of: " + ", ".join(option.choices))  # fmt: skip
    if option.kind == NAME and not value:
        raise UsageError(f"option {name} cannot be empty", globals, hint="is a variable not set?")
    # An empty text is what an unset variable of a script leaves: the same as not given.
    return value or option.default


def _wrong_count(command: Command, given: int, globals: dict[str, object]) -> UsageError:
    least, most = command.required, len(command.arguments)
    if most == 0:
        wanted = "takes no arguments"
    elif least == most:
        wanted = f"requires exactly {least} argument(s): {' '.join(command.arguments)}"
    elif given < least:
        wanted = f"requires at least {least} argument(s): {' '.join(command.arguments[:least])}"
    else:
        wanted = f"takes at most {most} argument(s): {' '.join(command.arguments)}"
    error = UsageError(f'"{command.name}" {wanted}; {given} given', globals)
    error.command = command.name
    return error


def _unknown_option(
    word: str,
    name: str,
    options: tuple[Option, ...],
    globals: dict[str, object],
    command: Command | None,
) -> UsageError:
    """The error for a `word` with dashes that `command` (None: no command yet) does not have."""
    given = word.partition("=")[0]
    if command is None:
        message = f"unknown option {given}"
        fallback = "`rt --help` lists the global options"
    else:
        message = f'unknown option {given} of command "{command.name}"'
        fallback = f"`rt help {command.name}` lists its options"
        if any(name in option.names for option in GLOBAL_OPTIONS):
            hint = f"{given} is a global option: write it before the command, `rt {given} … {command.name}`"
            return UsageError(message, globals, hint=hint)
        if command.name == "kill" and not word.startswith("--"):
            return UsageError(message, globals, hint=f"the signal goes after the id: `rt kill ID {name}`")
    known = [long for option in options if not option.hidden for long in option.names if len(long) > 1]
    return UsageError(message, globals, hint=_closest(name, known, "--") or fallback)


def _closest(name: str, known: list[str], dashes: str) -> str | None:
    """A hint with the name that was probably meant, or None."""
    import difflib

    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {dashes}{near[0]}?" if near else None
