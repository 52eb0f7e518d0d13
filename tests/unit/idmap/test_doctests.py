"""The examples in the docstrings of the package are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import idmap

MODULES = ["idmap", *(f"idmap.{module.name}" for module in pkgutil.iter_modules(idmap.__path__))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
