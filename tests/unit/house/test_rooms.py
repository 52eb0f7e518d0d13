"""The rooms of the house and who may import whom: data flows one way."""

from __future__ import annotations

import ast

import pytest
from lab.tree import TREE, imports, modules, parsed

LOWER = {"spec", "host", "idmap"}
WORKERS = {"plan", "cgroups", "net", "init", "criu"}
# room -> rooms that it may import from, besides itself
ALLOWED = {
    "package": {"api"},  # the package itself, whose names are the API's, and the pytest plugin
    "api": {"container"} | WORKERS | LOWER,
    "batch": {"api", "plan", "spec"},
    "cli": {"batch", "container"} | WORKERS | LOWER,
    "container": WORKERS | LOWER,
    **dict.fromkeys(WORKERS, LOWER),
    "spec": set(),
    "host": {"spec", "idmap"},
    "idmap": set(),
}
FOR_ALL = ("rootless_rt.errors", "rootless_rt.paths", "rootless_rt.version")
TO_EXPLAIN = "rootless_rt.host.doctor.explain"  # when somebody asks an error for its long form
MADE_BY_THE_BUILD = "rootless_rt._commit"  # one constant, for version.py


def room(module: str) -> str:
    parts = module.split(".")
    if parts[0] == "idmap":
        return "idmap"
    if len(parts) == 1 or (len(parts) == 2 and parts[1] not in ALLOWED):
        return "package"
    return parts[1]


def problems() -> list[str]:
    found = []
    for name in modules():
        for line, target in imports(name):
            if target.split(".")[0] not in ("rootless_rt", "idmap") or target in FOR_ALL:
                if target in FOR_ALL and name.startswith("idmap"):
                    found.append(f"{name}:{line} imports {target}")
                continue
            here, there = room(name), room(target)
            if (name, target) == ("rootless_rt.errors", TO_EXPLAIN):
                continue
            if here != there and there not in ALLOWED.get(here, set()):
                found.append(f"{name}:{line} ({here}) imports {target} ({there})")
    return found


def test_every_module_is_in_a_room_of_the_design():
    rooms = {room(name) for name in modules()}
    assert rooms <= set(ALLOWED), rooms - set(ALLOWED)
    assert {"api", "cli", "container", "spec", "host", "plan", "init", "cgroups", "idmap"} <= rooms


def test_imports_go_from_left_to_right_only():
    assert problems() == []


def test_what_all_may_import_imports_nothing_itself():
    for name in FOR_ALL:
        targets = {target for _, target in imports(name)}
        targets -= {TO_EXPLAIN} if name == "rootless_rt.errors" else set()
        assert targets <= {"__future__", "posix", "sys", MADE_BY_THE_BUILD}, name


def test_idmap_stands_alone():
    targets = {target for name in modules() if room(name) == "idmap" for _, target in imports(name)}
    assert not [target for target in targets if target.startswith("rootless_rt")]


def test_nothing_is_imported_by_a_name_made_at_run_time_but_one_command():
    """The walls would be of paper if modules were loaded by strings."""
    found = []
    for name, path in modules().items():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "__import__",
                "importlib.import_module",
            ):
                found.append((name, ast.unparse(node.args[0])))
    # The command's module of cli/, and idmap's own names (PEP 562).
    allowed = {("rootless_rt.cli.main", "module"), ("idmap", "f'{__name__}.{home}'")}
    allowed |= {("rootless_rt", "f'{__name__}.{home}'")}
    assert set(found) <= allowed


@pytest.mark.parametrize("name", [name for name in modules() if room(name) == "plan"])
def test_planning_modules_import_nothing_that_could_look_at_the_host(name):
    """plan() is pure; the words of an error number, and the printing of the table, are not planning."""
    at_import = [
        node for node in parsed(modules()[name]).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    outside = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in at_import
        for alias in node.names
    }
    outside = {item for item in outside if item and not item.startswith("rootless_rt")}
    assert outside <= {"__future__", "errno", "sys"}, outside  # sys: the byte order
    late = {target for _, target in imports(name)} - outside
    assert not {"posix", "socket", "_socket", "subprocess", "resource", "ctypes"} & late


def test_the_test_sees_a_wrong_import(tmp_path, monkeypatch):
    """A guard of the guard: an import inside a function, upwards, is found."""
    import lab.tree

    file = tmp_path / "wrong.py"
    file.write_text("def f():\n    from rootless_rt.cli import main\n")
    extended = {**modules(), "rootless_rt.spec.wrong": file}
    for where in (lab.tree, __import__("sys").modules[__name__]):
        monkeypatch.setattr(where, "modules", lambda: extended)
    assert problems() == ["rootless_rt.spec.wrong:2 (spec) imports rootless_rt.cli.main (cli)"]


def test_nobody_imports_the_api_but_the_package_and_the_pytest_plugin():
    users = {
        name
        for name in modules()
        if room(name) != "api"
        for _, target in imports(name)
        if target.startswith("rootless_rt.api")
    }
    others = {name for name in users if room(name) not in ("batch", "cli")}
    assert others <= {"rootless_rt", "rootless_rt.pytest_plugin"}


def test_both_packages_say_that_they_are_typed():
    for package in ("rootless_rt", "idmap"):
        assert (TREE / package / "py.typed").is_file()
