"""What the package costs to import, and what it depends on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import idmap

ROOT = Path(idmap.__file__).parent.parent
CHEAP = {
    "os",
    "posix",
    "errno",
    "__future__",
    "_collections_abc",
    "_stat",
    "genericpath",
    "posixpath",
    "stat",
    "os.path",
    "_socket",
    "_struct",
    "time",
}


def modules_after(statement: str) -> set[str]:
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
before = set(sys.modules)
{statement}
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", sorted(p.stem for p in (ROOT / "idmap").glob("*.py")))
def test_every_module_imports_only_cheap_ones(module: str) -> None:
    name = "idmap" if module == "__init__" else f"idmap.{module}"
    extra = modules_after(f"import {name}")
    assert {m for m in extra if not m.startswith("idmap")} <= CHEAP


def test_importing_the_package_loads_none_of_its_modules() -> None:
    assert {m for m in modules_after("import idmap") if m.startswith("idmap")} == {"idmap"}


def test_importing_the_writer_loads_no_cause_finding() -> None:
    loaded = {m for m in modules_after("import idmap.write") if m.startswith("idmap")}
    assert loaded == {"idmap", "idmap.errors", "idmap.extents", "idmap.numbers", "idmap.write"}


def test_writing_a_single_map_loads_nothing_more() -> None:
    loaded = modules_after(
        "import os, idmap.write\n"
        "try: idmap.write.write_maps(2**22 + 1, [(0, 7, 1)], [(0, 7, 1)], euid=7, egid=7, privileged=False)\n"
        "except idmap.write.IdmapError: pass"
    )
    assert "idmap.userns" not in loaded
    assert "idmap.helpers" not in loaded


def test_every_public_name_can_be_had() -> None:
    assert all(getattr(idmap, name) is not None for name in idmap.__all__)
    assert set(idmap._HOME) == set(idmap.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = idmap.nothing


def test_the_package_imports_nothing_of_the_runtime() -> None:
    for path in (ROOT / "idmap").glob("*.py"):
        assert "rootless_rt" not in path.read_text()


def test_no_descriptor_stays_open_after_a_failed_write() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(idmap.IdmapError, match="is gone"):
        idmap.write_maps(2**22 + 1, [(0, 7, 1)], [(0, 7, 1)], euid=7, egid=7, privileged=False)
    assert len(os.listdir("/proc/self/fd")) == len(before)
