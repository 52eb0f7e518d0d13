"""The command line: every form that clients send, and every mistake that people make."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless_rt.cli.argv import Invocation, UsageError, flag, number, parse, text
from rootless_rt.cli.option import FLAG, NUMBER
from rootless_rt.cli.table import COMMANDS, GLOBAL_OPTIONS

# As recorded from podman, buildah, containerd, Docker and BuildKit; then what must be understood:
# command, positionals, and the options and global options that differ from their defaults.
ENGINES = [
    ("--log-format=json --log F create --bundle B --pid-file F ID",
     "create", ["ID"], {"bundle": "B", "pid_file": "F"}, {"log_format": "json", "log": "F"}),
    ("--log-format=json --log F create --bundle B --pid-file F --console-socket S ID",
     "create", ["ID"], {"bundle": "B", "pid_file": "F", "console_socket": "S"},
     {"log_format": "json", "log": "F"}),
    ("--log-format=json --log F create --bundle B --pid-file F --preserve-fds 2 ID",
     "create", ["ID"], {"bundle": "B", "pid_file": "F", "preserve_fds": 2},
     {"log_format": "json", "log": "F"}),
    ("--log-format=json --log F --cgroup-manager disabled create --bundle B --pid-file F ID",
     "create", ["ID"], {"bundle": "B", "pid_file": "F"},
     {"log_format": "json", "log": "F", "cgroup_manager": "disabled"}),
    ("create --bundle B --pid-file F ID", "create", ["ID"], {"bundle": "B", "pid_file": "F"}, {}),
    ("--debug --root=D --log-format=json --log F create --bundle B --pid-file F ID",
     "create", ["ID"], {"bundle": "B", "pid_file": "F"},
     {"debug": True, "root": "D", "log_format": "json", "log": "F"}),
    ("--systemd-cgroup create --bundle B --pid-file F ID",
     "create", ["ID"], {"bundle": "B", "pid_file": "F"}, {"systemd_cgroup": True}),
    ("start ID", "start", ["ID"], {}, {}),
    ("kill ID 15", "kill", ["ID", "15"], {}, {}),
    ("kill --all ID 9", "kill", ["ID", "9"], {"all": True}, {}),
    ("delete --force ID", "delete", ["ID"], {"force": True}, {}),
    ("create --bundle B --pid-file B/pid --no-new-keyring --console-socket S BID",
     "create", ["BID"],
     {"bundle": "B", "pid_file": "B/pid", "no_new_keyring": True, "console_socket": "S"}, {}),
    ("state BID", "state", ["BID"], {}, {}),
    ("kill BID SIGKILL", "kill", ["BID", "SIGKILL"], {}, {}),
    ("kill BID", "kill", ["BID"], {}, {}),
    ("delete BID", "delete", ["BID"], {}, {}),
    ("--root R --log L --log-format json create --bundle B --pid-file B/init.pid --console-socket S ID",
     "create", ["ID"], {"bundle": "B", "pid_file": "B/init.pid", "console_socket": "S"},
     {"root": "R", "log": "L", "log_format": "json"}),
    ("--root R --log L --log-format json kill --all ID 9",
     "kill", ["ID", "9"], {"all": True}, {"root": "R", "log": "L", "log_format": "json"}),
    ("--debug --criu P --systemd-cgroup --rootless=true"
     " create --no-pivot --no-new-keyring --preserve-fds 3 --detach ID",
     "create", ["ID"], {"no_pivot": True, "no_new_keyring": True, "preserve_fds": 3, "detach": True},
     {"debug": True, "criu": "P", "systemd_cgroup": True, "rootless": "true"}),
    ("--log-format=json --log F exec --pid-file F --process F --detach --tty --console-socket S ID",
     "exec", ["ID"],
     {"pid_file": "F", "process": "F", "detach": True, "tty": True, "console_socket": "S"},
     {"log_format": "json", "log": "F"}),
    ("--root R --log L --log-format json exec --process F --detach --pid-file F ID",
     "exec", ["ID"], {"process": "F", "detach": True, "pid_file": "F"},
     {"root": "R", "log": "L", "log_format": "json"}),
    ("pause ID", "pause", ["ID"], {}, {}),
    ("--root R --log L --log-format json resume ID", "resume", ["ID"], {},
     {"root": "R", "log": "L", "log_format": "json"}),
    ("--root R --log L --log-format json ps --format json ID", "ps", ["ID"], {"format": "json"},
     {"root": "R", "log": "L", "log_format": "json"}),
    ("ps --format table ID -o pid,args -x", "ps", ["ID", "-o", "pid,args", "-x"], {}, {}),
    ("--root R --log L --log-format json start ID", "start", ["ID"], {},
     {"root": "R", "log": "L", "log_format": "json"}),
    ("--root R --log L --log-format json delete --force ID", "delete", ["ID"], {"force": True},
     {"root": "R", "log": "L", "log_format": "json"}),
    ("delete ID --force", "delete", ["ID"], {"force": True}, {}),
    ("kill ID --all KILL", "kill", ["ID", "KILL"], {"all": True}, {}),
    ("kill --regex ^web KILL", "kill", ["^web", "KILL"], {"regex": True}, {}),
    ("run ID --detach -b=B", "run", ["ID"], {"detach": True, "bundle": "B"}, {}),
    ("-root=R -debug state ID", "state", ["ID"], {}, {"root": "R", "debug": True}),
    ("exec -t -u 1:2 -e A=1 -e B=2 ID ls -l --all", "exec", ["ID", "ls", "-l", "--all"],
     {"tty": True, "user": "1:2", "env": ("A=1", "B=2")}, {}),
    ("list -f json -q", "list", [], {"format": "json", "quiet": True}, {}),
    ("features", "features", [], {}, {}),
    ("--rootless=false features", "features", [], {}, {"rootless": "false"}),
    ("list --format=json", "list", [], {"format": "json"}, {}),
    ("run --bundle B ID", "run", ["ID"], {"bundle": "B"}, {}),
    ("--log L --log-format json run --bundle B ID",
     "run", ["ID"], {"bundle": "B"}, {"log": "L", "log_format": "json"}),
    ("run -detach -no-subreaper -pid-file=F -b=B ID",
     "run", ["ID"], {"detach": True, "no_subreaper": True, "pid_file": "F", "bundle": "B"}, {}),
]  # fmt: skip


def changed(values: dict[str, object], command: str | None) -> dict[str, object]:
    """The values that differ from the table's defaults."""
    options = GLOBAL_OPTIONS
    if command is not None:
        options = next(known.options for known in COMMANDS if known.name == command)
    defaults = {option.key: option.default for option in options}
    assert values.keys() == defaults.keys()
    return {key: value for key, value in values.items() if value != defaults[key]}


@pytest.mark.parametrize(("line", "command", "args", "options", "globals"), ENGINES)
def test_every_form_that_engines_send_is_understood(
    line: str, command: str, args: list[str], options: dict[str, object], globals: dict[str, object]
) -> None:
    inv = parse(line.split())
    assert (inv.command, inv.args) == (command, args)
    assert changed(inv.options, command) == options
    assert changed(inv.globals, None) == globals


@pytest.mark.parametrize(
    "line",
    ["run -b B ID", "run -b=B ID", "run --b B ID", "run --bundle=B ID", "run -bundle B ID",
     "run -bundle=B ID", "run ID --bundle B", "run ID -b=B", "run --bundle A --bundle B ID",
     "run --bundle B -- ID"],
)  # fmt: skip
def test_a_value_may_be_written_in_any_of_go_s_ways_and_places(line: str) -> None:
    inv = parse(line.split())
    assert (text(inv.options, "bundle"), inv.args) == ("B", ["ID"])


@pytest.mark.parametrize(
    ("value", "wanted"), [("true", True), ("1", True), ("T", True), ("false", False), ("0", False)]
)
def test_a_flag_may_be_given_a_boolean(value: str, wanted: bool) -> None:
    assert flag(parse(["run", f"--detach={value}", "ID"]).options, "detach") is wanted


def test_words_after_two_dashes_are_positional_even_with_dashes() -> None:
    assert parse(["state", "--", "--help"]).args == ["--help"]
    assert parse(["--", "state", "x"]).command == "state"


def test_an_empty_value_is_the_same_as_no_value() -> None:
    inv = parse(["--root=", "run", "--bundle", "", "--pid-file=", "ID"])
    assert (inv.globals["root"], inv.options["bundle"], inv.options["pid_file"]) == (None, ".", None)


def test_a_value_may_contain_equals_signs_and_dashes() -> None:
    inv = parse(["run", "--bundle=a=b", "--pid-file", "-x", "ID"])
    assert (inv.options["bundle"], inv.options["pid_file"]) == ("a=b", "-x")


def test_an_empty_or_dash_word_stays_positional() -> None:
    assert parse(["state", ""]).args == [""]
    assert parse(["state", "-"]).args == ["-"]


def test_words_that_are_not_utf8_pass_through() -> None:
    word = b"bundle-\xff\x80".decode("utf-8", "surrogateescape")
    inv = parse(["run", "-b", word, word])
    assert (inv.options["bundle"], inv.args) == (word, [word])
    assert inv.args[0].encode("utf-8", "surrogateescape") == b"bundle-\xff\x80"


@pytest.mark.parametrize("value", ["0", "3", "007", "2147483647"])
def test_a_number_is_read_in_decimal(value: str) -> None:
    assert number(parse(["run", "--preserve-fds", value, "ID"]).options, "preserve_fds") == int(value)


@pytest.mark.parametrize(
    "value", ["", " 1", "1_0", "+1", "-1", "1.0", "0x1", "\u0661", "²", "x", "2147483648", "9" * 5000]
)
def test_a_number_in_any_other_writing_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="--preserve-fds takes a whole number"):
        parse(["run", f"--preserve-fds={value}", "ID"])


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("rnu ID", 'unknown command "rnu"', "did you mean run?"),
        ("qqq", 'unknown command "qqq"', "`rt help` lists the commands"),
        ("help rnu", 'unknown command "rnu"', "did you mean run?"),
        ("run --bundel B ID", 'unknown option --bundel of command "run"', "did you mean --bundle?"),
        ("run --qqq=1 ID", 'unknown option --qqq of command "run"', "`rt help run` lists its options"),
        ("--rot D list", "unknown option --rot", "did you mean --root?"),
        ("-Q list", "unknown option -Q", "`rt --help` lists the global options"),
        ("run ID --root D", 'unknown option --root of command "run"',
         "--root is a global option: write it before the command, `rt --root … run`"),
        ("kill -9 ID", 'unknown option -9 of command "kill"', "the signal goes after the id: `rt kill ID 9`"),
        ("run ID --bundle", "option --bundle needs a value", None),
        ("run --detach=maybe ID", 'option --detach is either on or off, not "maybe"',
         "write --detach or --detach=false"),
        ("list -f yaml", 'option --format cannot be "yaml"', "choose one of: table, json"),
        ("--rootless=perhaps list", 'option --rootless cannot be "perhaps"',
         "choose one of: auto, true, false"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_remedy(line: str, message: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line.split())
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert (caught.value.code, caught.value.command) == (1, None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("state", '"state" requires exactly 1 argument(s): ID; 0 given'),
        ("start a b", '"start" requires exactly 1 argument(s): ID; 2 given'),
        ("kill", '"kill" requires at least 1 argument(s): ID; 0 given'),
        ("kill a 9 b", '"kill" takes at most 2 argument(s): ID SIGNAL; 3 given'),
        ("list a", '"list" takes no arguments; 1 given'),
    ],
)
def test_a_wrong_number_of_arguments_asks_for_the_commands_help(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line.split())
    assert (caught.value.message, caught.value.command) == (message, line.split()[0])


def test_an_error_knows_the_log_that_was_named_before_it() -> None:
    with pytest.raises(UsageError) as caught:
        parse(["--log", "L", "--log-format=json", "run", "--bogus", "ID"])
    assert (caught.value.globals["log"], caught.value.globals["log_format"]) == ("L", "json")


@pytest.mark.parametrize(
    ("line", "command", "args"),
    [
        ("", "help", []), ("-h", "help", []), ("--help run", "help", []), ("help", "help", []),
        ("help run", "help", ["run"]), ("run --help", "help", ["run"]),
        ("run ID -h --bogus", "help", ["run"]),
        ("help --help", "help", ["help"]), ("-v", "version", []), ("--version", "version", []),
        ("-version", "version", []), ("--debug --version", "version", []),
    ],
)  # fmt: skip
def test_help_and_version_are_commands_like_others(line: str, command: str, args: list[str]) -> None:
    inv = parse(line.split())
    assert (inv.command, inv.args) == (command, args)


SPELLINGS = sorted(
    dashes + name + tail
    for options in (GLOBAL_OPTIONS, *(command.options for command in COMMANDS))
    for option in options
    for name in option.names
    for dashes in ("-", "--")
    for tail in ("", "=", "=1")
)
WORDS = (
    st.sampled_from(SPELLINGS)
    | st.sampled_from([command.name for command in COMMANDS])
    | st.sampled_from(["-", "--", "---", "--=", "=", "ID", "9"])
    | st.text(st.characters(codec=None, exclude_characters="\0"), max_size=12)
)


@settings(max_examples=500, deadline=None)
@given(st.lists(WORDS, max_size=8))
def test_no_command_line_is_answered_with_anything_but_an_invocation_or_a_usage_error(
    words: list[str],
) -> None:
    try:
        inv = parse(words)
    except UsageError as error:
        assert error.message
        assert "\n" not in error.message or any("\n" in word for word in words)
        return
    assert isinstance(inv, Invocation)
    assert changed(inv.globals, None) is not None
    for option in GLOBAL_OPTIONS:
        value = inv.globals[option.key]
        assert isinstance(value, bool) if option.kind == FLAG else value is None or isinstance(value, str)
    for command in COMMANDS:
        for option in command.options:
            if command.name == inv.command and option.kind == NUMBER:
                assert isinstance(inv.options[option.key], int)
