"""Scripts that let bash, zsh and fish complete rt's words, made from the table of the command line.

They know commands, options, choices, signals and kinds of file; ids of containers they ask `rt list -q` for.
Must not know what a command does.
"""

from __future__ import annotations

from rootless_rt.cli.option import CHOICE, FLAG, Command, Option
from rootless_rt.cli.table import COMMANDS, GLOBAL_OPTIONS, HELP
from rootless_rt.spec.names import SIGNALS

SHELLS = ("bash", "zsh", "fish")
# Commands whose ID is a new one.
_MAKERS = ("create", "run")
_SIGNALS = tuple(name.removeprefix("SIG") for name in SIGNALS)


def script(shell: str) -> str:
    """The script for one of SHELLS."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _shown(options: tuple[Option, ...]) -> list[Option]:
    found = [option for option in options if not option.hidden]
    return found if HELP in found else [*found, HELP]


def _spellings(option: Option) -> list[str]:
    return [("-" if len(name) == 1 else "--") + name for name in option.names]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _words(command: Command, name: str) -> tuple[str, ...] | None:
    """What an argument of a command may be; None for an id of a container."""
    if name == "ID":
        return () if command.name in _MAKERS else None
    if name == "SIGNAL":
        return _SIGNALS
    if name == "SHELL":
        return SHELLS
    return tuple(known.name for known in COMMANDS) if command.name == "help" else ()


# bash


def _bash() -> str:
    taking = "|".join(word for option in GLOBAL_OPTIONS if option.kind != FLAG for word in _spellings(option))
    cases = "".join(_bash_case(command.name, command.options, command) for command in COMMANDS)
    return f"""\
# bash completion of rt: source <(rt completion bash)
_rt_ids() {{
    "${{COMP_WORDS[0]}}" "$@" list -q 2>/dev/null
}}

_rt() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command= word i at=0 values=
    local -a root=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        if [[ -n $command ]]; then
            # An option's value counts as an argument here: completion needs no exactness.
            [[ $word == -* ]] || ((at += 1))
            continue
        fi
        case $word in
        --root) root=(--root "${{COMP_WORDS[i+1]}}"); ((i += 1)) ;;
        {taking}) ((i += 1)) ;;
        -*) ;;
        *) command=$word ;;
        esac
    done
    case $command in
{_bash_case("''", GLOBAL_OPTIONS, None)}{cases}    esac
    COMPREPLY=($(compgen -W "$values" -- "$cur"))
}}
complete -o default -F _rt rt
"""


def _bash_case(name: str, options: tuple[Option, ...], command: Command | None) -> str:
    shown = _shown(options)
    lines = [f"    {name})"]
    values = [line for option in shown if (line := _bash_value(option))]
    if values:
        lines += ["        case $prev in", *values, "        esac"]
    words = " ".join(word for option in shown for word in _spellings(option))
    lines.append(f"        if [[ $cur == -* ]]; then values='{words}'")
    for at, argument in enumerate(command.arguments if command else ()):
        assert command is not None
        found = _words(command, argument)
        text = '"$(_rt_ids "${root[@]}")"' if found is None else _quoted(" ".join(found))
        lines.append(f"        elif ((at == {at})); then values={text}")
    if command is None:
        names = " ".join(known.name for known in COMMANDS)
        lines.append(f"        else values='{names}'")
    return "\n".join([*lines, "        fi ;;", ""])


def _bash_value(option: Option) -> str:
    """The line that completes the value of an option; empty for one that takes none."""
    if option.kind == FLAG:
        return ""
    kinds = {"DIR": "-d", "FILE": "-f", "PATH": "-f", "OUT": "-f"}
    how = f"-W '{' '.join(option.choices)}'" if option.kind == CHOICE else kinds.get(option.value, "")
    done = f'COMPREPLY=($(compgen {how} -- "$cur")); ' if how else ""
    return f"        {'|'.join(_spellings(option))}) {done}return ;;"


# zsh


def _zsh() -> str:
    names = "\n".join(f"        {_quoted(f'{known.name}:{known.help}')}" for known in COMMANDS)
    cases = "".join(_zsh_case(command) for command in COMMANDS)
    options = _zsh_options(GLOBAL_OPTIONS, "        ")
    return f"""\
#compdef rt
# zsh completion of rt: rt completion zsh > a directory of $fpath/_rt
_rt_ids() {{
    local -a ids
    ids=(${{(f)"$(_call_program ids rt ${{_rt_root:+--root}} $_rt_root list -q 2>/dev/null)"}})
    compadd -a ids
}}

_rt() {{
    local curcontext=$curcontext state line _rt_root
    local -a commands
    local -A opt_args
    commands=(
{names}
    )
    _arguments -C \\
{options}
        '1:command:->command' '*::argument:->argument'
    _rt_root=${{opt_args[--root]-}}
    case $state in
    command) _describe command commands ;;
    argument)
        case $line[1] in
{cases}        esac ;;
    esac
}}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _rt "$@"; else compdef _rt rt; fi
"""


def _zsh_case(command: Command) -> str:
    indent = " " * 12
    arguments = []
    for at, name in enumerate(command.arguments, 1):
        found = _words(command, name)
        action = "_rt_ids" if found is None else f"({' '.join(found)})" if found else "_files"
        if found == () and name == "ID":
            action = ""
        arguments.append(_quoted(f"{at}:{name}:{action}"))
    if command.stops:
        arguments[-1] = _quoted(f"*:{command.arguments[-1]}:_files")
    ends = " ".join(["-A '-*'"] if command.stops else [])
    return (
        f"        {command.name})\n            _arguments {ends} \\\n"
        f"{_zsh_options(command.options, indent)}\n{indent}{' '.join(arguments)} ;;\n"
    )


def _zsh_options(options: tuple[Option, ...], indent: str) -> str:
    lines = []
    for option in _shown(options):
        kinds = {"DIR": "_directories", "FILE": "_files", "PATH": "_files", "OUT": "_files"}
        action = f"({' '.join(option.choices)})" if option.choices else kinds.get(option.value, "")
        help = option.help.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
        value = (option.value or "value").replace("[", "").replace("]", "").replace(":", "-")
        tail = f"[{help}]" + ("" if option.kind == FLAG else f":{value}:{action}")
        lines += [f"{indent}{_quoted('*' + word + tail)} \\" for word in _spellings(option)]
    return "\n".join(lines)


# fish


def _fish() -> str:
    lines = [
        "# fish completion of rt: rt completion fish | source",
        "function __rt_ids",
        "    set -l words (commandline -opc)",
        "    set -l at (contains -i -- --root $words)",
        "    and set -l root --root $words[(math $at + 1)]",
        "    rt $root list -q 2>/dev/null",
        "end",
        "complete -c rt -f",
    ]
    start = "-n __fish_use_subcommand"
    lines += [_fish_option(start, option) for option in _shown(GLOBAL_OPTIONS)]
    for command in COMMANDS:
        lines.append(f"complete -c rt {start} -a {command.name} -d {_fish_quoted(command.help)}")
        inside = f"-n '__fish_seen_subcommand_from {command.name}'"
        lines += [_fish_option(inside, option) for option in _shown(command.options)]
        for name in command.arguments:
            found = _words(command, name)
            if found is None:
                lines.append(f"complete -c rt {inside} -a '(__rt_ids)'")
            elif found:
                lines.append(f"complete -c rt {inside} -a '{' '.join(found)}'")
    return "\n".join(lines) + "\n"


def _fish_option(where: str, option: Option) -> str:
    names = " ".join(("-s " if len(name) == 1 else "-l ") + name for name in option.names)
    value = ""
    if option.choices:
        value = f" -x -a '{' '.join(option.choices)}'"
    elif option.kind != FLAG:
        value = " -r -F" if option.value in ("DIR", "FILE", "PATH", "OUT") else " -x"
    return f"complete -c rt {where} {names}{value} -d {_fish_quoted(option.help)}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
