"""Loading a bundle: where the files are, what a user is told when they are not, and what it costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lab import configs

from rootless_rt.errors import RtError, SpecError
from rootless_rt.spec import jsonio, schema
from rootless_rt.spec.load import from_bytes, load

SOURCE = Path(__file__).parents[3]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "config.json").write_bytes(configs.as_bytes(configs.valid()))
    return tmp_path


def test_a_bundle_is_loaded_with_real_paths_and_its_bytes(bundle: Path) -> None:
    link = bundle / "link"
    link.symlink_to(bundle)
    spec = load(str(link))
    assert spec.bundle == os.path.realpath(bundle)
    assert spec.rootfs == f"{spec.bundle}/rootfs"
    assert spec.raw == (bundle / "config.json").read_bytes()
    assert spec.data == configs.valid()
    assert spec.notes == ()


def test_a_relative_bundle_starts_at_the_working_directory(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle)
    assert load(".").bundle == os.path.realpath(bundle)


@pytest.mark.covers("create --config", "run --config")
def test_another_config_can_be_named(bundle: Path) -> None:
    other = bundle / "other.json"
    (bundle / "config.json").rename(other)
    assert load(str(bundle), str(other)).rootfs.endswith("/rootfs")


@pytest.mark.parametrize(
    ("path", "rootfs"),
    [
        ("rootfs", "/b/rootfs"),
        ("./x/../rootfs/", "/b/rootfs"),
        ("../r", "/r"),
        ("../../../r", "/r"),
        ("/", "/"),
        ("/var//lib/r", "/var/lib/r"),
    ],
)
def test_root_path_is_joined_to_the_bundle(path: str, rootfs: str) -> None:
    config = configs.valid()
    config["root"]["path"] = path
    assert from_bytes(configs.as_bytes(config), "/b").rootfs == rootfs


def test_a_directory_without_config_is_told_to_use_rt_spec(tmp_path: Path) -> None:
    with pytest.raises(RtError, match="is not a bundle") as caught:
        load(str(tmp_path))
    assert caught.value.hint is not None and "rt spec" in caught.value.hint


@pytest.mark.parametrize("path", ["/nonexistent", "/dev/null", "/a\0b", "", "/x\udce9"])
def test_a_bundle_that_is_no_directory_is_named(path: str) -> None:
    with pytest.raises(RtError, match=r"^bundle ") as caught:
        load(path)
    assert caught.value.message.isprintable()


def test_a_config_that_cannot_be_read_is_named(bundle: Path) -> None:
    (bundle / "config.json").unlink()
    (bundle / "config.json").mkdir()
    with pytest.raises(RtError, match=r'cannot read ".*/config.json": is a directory'):
        load(str(bundle))
    with pytest.raises(RtError, match="no such file"):
        load(str(bundle), str(bundle / "none.json"))


def test_a_missing_rootfs_is_named_with_its_path(bundle: Path) -> None:
    (bundle / "rootfs").rmdir()
    with pytest.raises(SpecError, match=r'root.path: ".*/rootfs" does not exist'):
        load(str(bundle))


def test_a_rootfs_that_is_a_link_or_a_file_is_refused(bundle: Path) -> None:
    (bundle / "rootfs").rename(bundle / "real")
    (bundle / "rootfs").symlink_to("real")
    with pytest.raises(SpecError, match="symbolic link"):
        load(str(bundle))
    (bundle / "rootfs").unlink()
    (bundle / "rootfs").touch()
    with pytest.raises(SpecError, match="not a directory"):
        load(str(bundle))


def test_no_descriptor_is_left_open(bundle: Path) -> None:
    before = os.listdir("/proc/self/fd")
    load(str(bundle))
    with pytest.raises(RtError):
        load(str(bundle / "rootfs"))
    assert os.listdir("/proc/self/fd") == before


def test_loading_imports_nothing_but_c_modules_and_this_room(bundle: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules)\n"
        "from rootless_rt.spec.load import load\n"
        "load(sys.argv[2])\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-I", "-S", "-B", "-c", code, str(SOURCE), str(bundle)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    others = {name for name in loaded if not name.startswith("rootless_rt")}
    assert others - set(sys.builtin_module_names) <= {"__future__", "_json"}
    own = "errors spec spec.jsonio spec.load spec.mountopts spec.names spec.rules spec.schema"
    assert set(loaded) - others == {"rootless_rt", *(f"rootless_rt.{name}" for name in own.split())}


def test_an_error_in_isolated_mode_is_one_line_too(bundle: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from rootless_rt.errors import RtError\n"
        "from rootless_rt.spec.jsonio import parse\n"
        "for text in (b'{\"a\" 1}', b'[1', b'\"\\x01\"', b'[NaN]', b'[' * 100000, b'1' * 5000):\n"
        "    try: parse(text, 'x')\n"
        "    except RtError as error: print(error.message)\n"
    )
    command = [sys.executable, "-I", "-S", "-B", "-c", code, str(SOURCE)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 6
    assert all(line.startswith("x: line 1 column ") for line in lines)


def test_a_seccomp_profile_of_376_names_is_checked_in_less_than_a_millisecond() -> None:
    config = jsonio.parse(configs.large(), "x")

    def once() -> float:
        start = time.perf_counter()
        schema.check(config, schema.CONFIG, escapes=False)
        return time.perf_counter() - start

    assert min(once() for _ in range(50)) < 0.001
