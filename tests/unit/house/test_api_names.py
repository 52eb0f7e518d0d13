"""The package's own names: loaded when they are used, documented, and known to type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from lab.tree import TREE, modules, parsed

import rootless_rt

CODE = """
import sys
before = set(sys.modules)
import rootless_rt
assert set(dir(rootless_rt)) >= set(rootless_rt.__all__)
print(sorted(set(sys.modules) - before))
"""


def imported_for_types() -> dict[str, str]:
    """Name -> module, of the imports that only type checkers see."""
    block = next(node for node in parsed(modules()["rootless_rt"]).body if isinstance(node, ast.If))
    return {
        alias.name: node.module or ""
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_importing_the_package_loads_nothing_else():
    words = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(TREE)!r})\n{CODE}"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "['__future__', 'rootless_rt']\n"


def test_what_is_loaded_is_what_type_checkers_see():
    seen = imported_for_types()
    assert set(seen) == set(rootless_rt.__all__) == set(rootless_rt._HOME)
    assert {name: f"rootless_rt.{home}" for name, home in rootless_rt._HOME.items()} == seen


@pytest.mark.parametrize("name", rootless_rt.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(rootless_rt, name)
    if isinstance(value, int):
        return  # a constant
    assert value.__doc__ and value.__doc__.strip()
    if not isinstance(value, type):
        return
    for attribute, member in vars(value).items():
        if not attribute.startswith("_") and (callable(member) or isinstance(member, property)):
            assert member.__doc__, f"{name}.{attribute}"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_like_that"):
        rootless_rt.nothing_like_that  # noqa: B018
