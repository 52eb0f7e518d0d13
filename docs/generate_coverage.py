"""Writes docs/spec-coverage.md, which tests show what at work: python3 docs/generate_coverage.py

The fields come from rootless_rt/spec/schema.py, the mount options from spec/mountopts.py, the commands and
options from cli/table.py; the tests from their `@pytest.mark.covers(...)`, read without running them. A mark
names a field by its JSON path (with [] for the items of a list), which also stands for all fields below it;
a mount option as "mounts[].options WORD"; a command or an option as "COMMAND --option".
tests/unit/docs/test_coverage.py fails when the page is older than those.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parent.parent
if str(TREE) not in sys.path:
    sys.path.insert(0, str(TREE))

from rootless_rt.cli.table import COMMANDS, GLOBAL_OPTIONS, HELP  # noqa: E402
from rootless_rt.spec import schema  # noqa: E402
from rootless_rt.spec.mountopts import OPTIONS  # noqa: E402

PAGE = TREE / "docs/spec-coverage.md"
LANES = ("rootless", "root", "unit")
OPTION = "mounts[].options "
TOP = frozenset(schema.CONFIG[1])
_TOP = """\
<!-- Written by docs/generate_coverage.py from the code and the tests: mark tests, then run the script. -->

# What is covered by which tests

Every field of `config.json` that Linux uses, every mount option and every option of the command line, with
the files of the tests that show it at work: as an ordinary user, as root, and without running a container.
"""

# what a mark says -> lane -> files of tests
Marks = dict[str, dict[str, set[str]]]


def fields(node: tuple[Any, ...] = schema.CONFIG, path: str = "") -> Iterator[str]:
    """The JSON paths of all fields that hold no further named fields."""
    if node[0] == schema.OBJECT:
        for name, below in node[1].items():
            yield from fields(below, f"{path}.{name}".removeprefix("."))
    elif node[0] == schema.LIST and node[1][0] == schema.OBJECT:
        yield from fields(node[1], path + "[]")
    else:
        yield path


def mount_options() -> list[str]:
    """The mount options as marks name them."""
    return [OPTION + word for word in OPTIONS]


def commands() -> list[str]:
    """The global options, the commands and their options as marks name them."""
    found = [f"--{option.names[-1]}" for option in GLOBAL_OPTIONS]
    for command in COMMANDS:
        found.append(command.name)
        found += [f"{command.name} --{option.names[-1]}" for option in command.options if option is not HELP]
    return found


@cache
def marks(tests: Path = TREE / "tests") -> Marks:
    """What the tests' marks say, by reading them."""
    found: Marks = {}
    for path in sorted(tests.rglob("test_*.py")):
        where = path.relative_to(tests)
        tree = ast.parse(path.read_bytes(), str(path))
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.Assign):
                continue
            lane = _lane(where, node)
            lists = node.decorator_list if isinstance(node, ast.FunctionDef) else [node.value]
            for inner in (inner for given in lists for inner in ast.walk(given)):
                if isinstance(inner, ast.Call) and ast.unparse(inner.func) == "pytest.mark.covers":
                    for word in (word for argument in inner.args for word in _words(argument, tree)):
                        _add(found, word, lane, where.as_posix())
    return found


def _words(argument: ast.expr, module: ast.Module) -> list[str]:
    """The texts of an argument: one, or *(f"... {word}" for word in A_CONSTANT_OF_THE_MODULE)."""
    if isinstance(argument, ast.JoinedStr):  # a value behind the field, which is cut off anyway
        return ["".join(str(getattr(part, "value", "")) for part in argument.values)]
    if not isinstance(argument, ast.Starred):
        return [ast.literal_eval(argument)]
    made = argument.value
    if isinstance(made, ast.GeneratorExp | ast.ListComp) and isinstance(made.elt, ast.JoinedStr):
        name, values = ast.unparse(made.generators[0].target), _constant(made.generators[0].iter, module)
        return ["".join(_part(part, name, value) for part in made.elt.values) for value in values]
    return _constant(made, module)


def _part(part: ast.expr, name: str, value: str) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue) and ast.unparse(part.value) == name, ast.unparse(part)
    return value


def _constant(node: ast.expr, module: ast.Module) -> list[str]:
    """The items, of a dict the keys, of a literal or of what the module's constant of that name holds."""
    added: list[str] = []
    name = ast.unparse(node)
    for line in module.body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == name:
            node = line.value
        elif isinstance(line, ast.AugAssign) and ast.unparse(line.target) == name:
            added += ast.literal_eval(line.value)
    keys = ast.Tuple([key for key in node.keys if key is not None]) if isinstance(node, ast.Dict) else node
    return [*ast.literal_eval(keys), *added]


def _add(found: Marks, word: str, lane: str, where: str) -> None:
    # Behind a field may follow the value that is tested: only options of mounts have rows of their own.
    first = word.partition(" ")[0]
    row = first if ("." in first and not word.startswith(OPTION)) or first in TOP else word
    found.setdefault(row, {}).setdefault(lane, set()).add(where)


def _lane(where: Path, node: ast.FunctionDef | ast.Assign) -> str:
    """Who the test runs as: told by its directory, in the others by its fixtures."""
    if where.parts[0] in ("unit", "root"):
        return where.parts[0]
    arguments = {argument.arg for argument in node.args.args} if isinstance(node, ast.FunctionDef) else set()
    return "root" if "root_rt" in arguments else "rootless"


def covering(row: str, marked: Marks) -> dict[str, set[str]]:
    """lane -> files of the tests for a row, whether they name it or something above it."""
    found: dict[str, set[str]] = {lane: set() for lane in LANES}
    for word, lanes in marked.items():
        if word == row or _related(word, row):
            for lane, files in lanes.items():
                found[lane] |= files
    return found


def untested(marked: Marks) -> list[str]:
    """The fields and options that no test shows at work."""
    rows = [*fields(), *mount_options(), *commands()]
    return [row for row in rows if not any(covering(row, marked).values())]


def unknown(marked: Marks) -> list[str]:
    """The marks that name nothing rt knows; variables of the environment (in capitals) have no rows."""
    rows = [*fields(), *mount_options(), *commands()]
    known = set(rows) | {OPTION.strip()}
    return [
        word
        for word in marked
        if word not in known and not word.isupper() and not any(_related(word, row) for row in rows)
    ]


def _related(word: str, row: str) -> bool:
    """Whether one is a part of the other: items of a map have no rows of their own."""
    return " " not in row and (_above(word, row) or _above(row, word))


def _above(word: str, row: str) -> bool:
    return row.startswith((word + ".", word + "[]"))


def page() -> str:
    """The whole page."""
    marked = marks()
    parts = [_TOP]
    sections = {"Fields of config.json": list(fields()), "Mount options": mount_options()}
    sections["Commands and options"] = commands()
    for title, rows in sections.items():
        lines = [f"## {title}\n", "| | as a user | as root | unit |", "|---|---|---|---|"]
        parts.append("\n".join(lines + [_row(row, marked) for row in rows]) + "\n")
    return "\n".join(parts)


def _row(row: str, marked: Marks) -> str:
    name = row.removeprefix(OPTION)
    found = covering(row, marked)
    cells = [", ".join(_link(file) for file in sorted(found[lane])) for lane in LANES]
    return f"| `{name}` | {' | '.join(cells)} |"


def _link(file: str) -> str:
    return f"[{Path(file).stem.removeprefix('test_')}](../tests/{file})"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
