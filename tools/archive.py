"""Writes the archive of modules that a start of `rt` reads; rootless_rt/cli/archive.py tells its form.

    PYTHON tools/archive.py TREE OUT [--checked]

Run by the build, with the interpreter that is going to read it; standard library only. --checked: for a
source tree, where a module counts only while its source is unchanged. It finds out what a command imports at
its load, and holds the list of what every run of a command imports later.
"""

from __future__ import annotations
import __future__

import ast
import marshal
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

PACKAGES = ("rootless_rt", "idmap")
MADE_BY_THE_BUILD = "rootless_rt._commit"
MAIN = "rootless_rt.cli.main"
# Command -> the modules that functions of its import in every run, beside what is imported at load.
_MAKING = (
    "rootless_rt.spec.load",
    "rootless_rt.cgroups.host",
    "rootless_rt.cgroups.choice",
    "rootless_rt.cgroups.none",
    "rootless_rt.plan.cgroupfs",
    "idmap.userns",
    "idmap.write",
)
ALWAYS: dict[str, tuple[str, ...]] = {
    "run": _MAKING,
    "create": (*_MAKING, "rootless_rt.container.shortcut"),
    "exec": ("rootless_rt.host.namespaces", "idmap.userns"),
    "start": ("rootless_rt.init.launch",),
    "state": (),
    "kill": (),
    "delete": (),
}
ANNOTATIONS = __future__.annotations.compiler_flag


class Sources:
    """The modules of the packages below a tree, and what each imports when it is loaded."""

    def __init__(self, tree: Path, checked: bool) -> None:
        self.tree = tree
        self.checked = checked
        self.paths: dict[str, str] = {}
        self._needs: dict[str, list[str]] = {}
        for package in PACKAGES:
            for path in sorted((tree / package).rglob("*.py")):
                relative = path.relative_to(tree)
                name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
                if name != MADE_BY_THE_BUILD:
                    self.paths[name] = str(relative)

    def is_package(self, name: str) -> bool:
        return self.paths[name].endswith("/__init__.py")

    def stamp(self, name: str) -> tuple[int, int] | None:
        """Size and time of the source, where they are to be looked at."""
        if not self.checked:
            return None
        status = (self.tree / self.paths[name]).stat()
        return status.st_size, status.st_mtime_ns

    def parsed(self, name: str) -> ast.Module:
        return ast.parse((self.tree / self.paths[name]).read_bytes(), self.paths[name])

    def code(self, name: str) -> CodeType:
        """The compiled module, without docstrings and asserts, and without `import __future__`."""
        module = self.parsed(name)
        flags = 0
        for statement in list(module.body):
            if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
                assert [alias.name for alias in statement.names] == ["annotations"], name
                module.body.remove(statement)
                flags = ANNOTATIONS
        code = compile(module, self.paths[name], "exec", flags, dont_inherit=True, optimize=2)
        assert isinstance(code, CodeType)
        return code

    def order(self, names: list[str]) -> list[str]:
        """These modules and all that they import at their load, in the order in which Python loads them."""
        done: list[str] = []
        under_way: set[str] = set()

        def visit(name: str) -> None:
            if name in under_way or name not in self.paths:
                return
            under_way.add(name)
            visit(name.rpartition(".")[0])
            for needed in self._imported(name):
                visit(needed)
            done.append(name)

        for name in names:
            visit(name)
        return done

    def _imported(self, name: str) -> list[str]:
        if name not in self._needs:
            self._needs[name] = list(self._read_imports(name))
        return self._needs[name]

    def _read_imports(self, name: str) -> Iterator[str]:
        above = name.split(".") if self.is_package(name) else name.split(".")[:-1]
        for statement in self.parsed(name).body:
            if isinstance(statement, ast.Import):
                yield from (alias.name for alias in statement.names)
            elif isinstance(statement, ast.ImportFrom):
                start = above[: len(above) - statement.level + 1] if statement.level else []
                source = ".".join([*start, *([statement.module] if statement.module else [])])
                yield source
                yield from (f"{source}.{alias.name}" for alias in statement.names)


def without_lines(code: CodeType) -> CodeType:
    """The code without its table of line numbers: a sixth of its memory."""
    constants = tuple(without_lines(one) if isinstance(one, CodeType) else one for one in code.co_consts)
    return code.replace(co_linetable=b"", co_consts=constants)


def sets(sources: Sources) -> dict[str, list[str]]:
    """The modules that each command always needs, in the order of their import."""
    entries = {command: f"rootless_rt.cli.cmd_{command}" for command in ALWAYS}
    return {
        command: sources.order([MAIN, entry, *ALWAYS[command]])
        for command, entry in entries.items()
        if entry in sources.paths
    }


def build(tree: Path, out: Path, checked: bool) -> None:
    """Write the archive of the packages below `tree` to the file `out`."""
    sources = Sources(tree, checked)
    body = bytearray()

    def add(value: Any) -> tuple[int, int]:
        data = marshal.dumps(value)
        body.extend(data)
        return len(body) - len(data), len(data)

    def described(name: str) -> tuple[bool, str, tuple[int, int] | None]:
        return sources.is_package(name), sources.paths[name], sources.stamp(name)

    # One piece a command, though many modules are in several: what one piece repeats is made only once.
    places = {
        command: add([(name, *described(name), without_lines(sources.code(name))) for name in names])
        for command, names in sets(sources).items()
    }
    entries = {name: (*described(name), add(sources.code(name))) for name in sources.paths}
    own = Path(__file__).parent.parent / "rootless_rt/cli/archive.py"
    loader = compile(own.read_bytes(), "rootless_rt/cli/archive.py", "exec", dont_inherit=True, optimize=2)
    head = marshal.dumps((loader, places, add(entries)))
    new = out.with_name(out.name + ".new")
    new.write_bytes(len(head).to_bytes(4, "little") + head + body)
    os.replace(new, out)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]), "--checked" in sys.argv[3:])
