"""The source tree as tests of the house look at it: modules, their imports, their syntax."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("rootless_rt", "idmap")


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the packages."""
    found = {}
    for package in PACKAGES:
        for path in sorted((TREE / package).rglob("*.py")):
            parts = list(path.relative_to(TREE).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), str(path))


def imports(name: str) -> tuple[tuple[int, str], ...]:
    """(line, module) of every import of a module, those inside functions too; not what only types need."""
    return _imports(name, modules()[name])


@cache
def _imports(name: str, path: Path) -> tuple[tuple[int, str], ...]:
    return tuple(_read_imports(name, path))


def _read_imports(name: str, path: Path) -> Iterator[tuple[int, str]]:
    skipped = {id(inner) for node in ast.walk(parsed(path)) if _for_types(node) for inner in ast.walk(node)}
    for node in ast.walk(parsed(path)):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(name, path, node)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in modules() else base


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _absolute(name: str, path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


@cache
def calls(path: Path) -> tuple[tuple[str, ast.Call], ...]:
    """(enclosing function, call) of every call in a file; "" is the module's own level."""

    def walk(node: ast.AST, inside: str) -> Iterator[tuple[str, ast.Call]]:
        if isinstance(node, ast.Call):
            yield inside, node
        name = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else inside
        for child in ast.iter_child_nodes(node):
            yield from walk(child, name)

    return tuple(walk(parsed(path), ""))


def called(call: ast.Call) -> str:
    """What is called, as it is written: "os.open", "int"."""
    return ast.unparse(call.func)
