"""The cache of compiled filters: what is found there again, and who is not believed."""

from __future__ import annotations

import os
import posix
import subprocess
import sys
from pathlib import Path

import pytest

from rootless_rt.host import cache as place
from rootless_rt.host import seccomp, seccomp_compile
from rootless_rt.host.cache import default_cache_dir
from rootless_rt.host.seccomp import FOLDER, filter_for, library_file

pytestmark = pytest.mark.skipif(library_file() is None, reason="libseccomp.so.2 is not installed")

REPOSITORY = Path(__file__).parents[2]
PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [{"names": ["read", "no_such_call", "other_such"], "action": "SCMP_ACT_ALLOW"}],
}


@pytest.fixture
def cache(tmp_path):
    directory = tmp_path / "cache"
    directory.mkdir(mode=0o700)
    return directory


def load(directory, profile=PROFILE):
    return filter_for(profile, cache_dir=str(directory))


def stored(directory) -> Path:
    (path,) = directory.iterdir()
    return path


def test_the_second_look_up_finds_the_first_result_whole(cache):
    first, second = load(cache), load(cache)
    assert (first.cached, second.cached) == (False, True)
    for field in ("program", "flags", "instructions", "warnings", "notes"):
        assert getattr(first, field) == getattr(second, field)
    assert second.instructions * 8 == len(second.program) > 0
    assert "no_such_call, other_such" in second.notes[0]


def test_the_file_is_ours_alone_and_no_partial_one_stays(cache):
    load(cache)
    assert stored(cache).stat().st_mode & 0o7777 == 0o600


def test_without_a_directory_every_filter_is_compiled(tmp_path):
    assert not filter_for(PROFILE, cache_dir=None).cached
    assert not load(tmp_path / "missing").cached
    assert not load(tmp_path / "missing").cached


@pytest.mark.parametrize("part", ["profile", "compiler", "library", "kernel"])
def test_everything_that_shapes_a_program_is_in_the_key(cache, monkeypatch, part):
    load(cache)
    profile = PROFILE
    if part == "profile":
        profile = {**PROFILE, "defaultErrnoRet": 2}
    elif part == "compiler":
        monkeypatch.setattr(seccomp, "COMPILER_VERSION", seccomp.COMPILER_VERSION + 1)
    elif part == "library":
        copy = cache.parent / "libseccomp.so.2"
        copy.write_bytes(Path(library_file() or "").read_bytes())
        monkeypatch.setattr(seccomp, "library_file", lambda: str(copy))
    else:
        monkeypatch.setattr(posix, "uname", lambda: os.uname_result(("Linux", "n", "9.9", "v", "x86_64")))
    assert not load(cache, profile).cached
    assert load(cache, profile).cached


def test_a_library_that_cannot_be_identified_means_no_cache(cache, monkeypatch):
    load(cache)
    monkeypatch.setattr(seccomp, "library_file", lambda: None)
    assert not load(cache).cached


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o702, 0o720])
def test_a_directory_others_can_write_is_neither_read_nor_written(cache, mode):
    load(cache)
    before = stored(cache).read_bytes()
    cache.chmod(mode)
    result = load(cache)
    assert not result.cached
    assert "others can write it" in result.warnings[-1]
    stored(cache).unlink()
    load(cache)
    assert list(cache.iterdir()) == []
    assert before


def test_a_directory_of_somebody_else_is_not_read(cache, monkeypatch):
    load(cache)
    owner = os.geteuid()
    monkeypatch.setattr(posix, "geteuid", lambda: owner + 1)
    assert not load(cache).cached


def test_a_symbolic_link_to_a_directory_is_not_followed(cache, tmp_path):
    load(cache)
    link = tmp_path / "link"
    link.symlink_to(cache)
    result = load(link)
    assert not result.cached
    assert "is not used" in result.warnings[-1]


def other_checksum(data: bytes) -> bytes:
    return data[:10] + bytes([data[10] ^ 1]) + data[11:]


def allow_all(data: bytes) -> bytes:
    """The last instruction becomes `ret ALLOW`, as an attacker would have it."""
    return data[:-100] + bytes(100)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: data[:47],
        lambda data: data[:48],
        lambda data: data[:49],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"X" + data[1:],
        lambda data: data + bytes(1 << 20),
        other_checksum,
        allow_all,
    ],
    ids=["empty", "20", "47", "header", "49", "truncated", "longer", "magic", "huge", "checksum", "body"],
)
def test_a_damaged_file_is_compiled_again_and_mended(cache, damage):
    good = load(cache)
    path = stored(cache)
    path.write_bytes(damage(path.read_bytes()))
    again = load(cache)
    assert not again.cached
    assert again.program == good.program
    assert load(cache).cached


def test_a_filter_under_the_name_of_another_is_not_taken(cache):
    load(cache)
    first = stored(cache)
    other = {**PROFILE, "defaultAction": "SCMP_ACT_ALLOW"}
    load(cache, other)
    (second,) = set(cache.iterdir()) - {first}
    second.rename(first)
    assert not load(cache).cached


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_others_can_write_is_replaced(cache, mode):
    load(cache)
    stored(cache).chmod(mode)
    assert not load(cache).cached
    assert stored(cache).stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_planted_by_another_user_is_replaced(cache):
    load(cache)
    os.chown(stored(cache), 12345, 12345)
    assert not load(cache).cached
    assert stored(cache).stat().st_uid == 0


def test_a_symbolic_link_in_place_of_the_file_is_not_followed(cache, tmp_path):
    load(cache)
    path = stored(cache)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert not load(cache).cached
    assert not stored(cache).is_symlink()


def test_a_fifo_in_place_of_the_file_does_not_hold_us(cache):
    load(cache)
    path = stored(cache)
    path.unlink()
    os.mkfifo(path, 0o600)
    assert not load(cache).cached


def test_a_cache_that_cannot_be_written_is_no_error(cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(posix, "write", full)
    assert not load(cache).cached
    assert list(cache.iterdir()) == []


def test_old_filters_are_thrown_out_before_the_directory_grows_large(cache):
    for number in range(130):
        path = cache / f"old{number:03}"
        path.touch()
        os.utime(path, (number, number))
    load(cache)
    names = {path.name for path in cache.iterdir()}
    assert len(names) == 66
    assert "old064" not in names and "old065" in names


def test_the_users_cache_is_made_for_the_user_alone(tmp_path, monkeypatch):
    made = user_cache_dir(monkeypatch, {"HOME": str(tmp_path)})
    assert made == f"{tmp_path}/.cache/rt/seccomp"
    assert Path(made).stat().st_mode & 0o777 == 0o700
    assert user_cache_dir(monkeypatch, {"HOME": str(tmp_path)}) == made
    xdg = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path) + "/"}
    assert user_cache_dir(monkeypatch, xdg) == f"{tmp_path}/rt/seccomp"


def user_cache_dir(monkeypatch, environ, inside=True):
    """default_cache_dir() where /var/cache is out of reach, as for the root of a user namespace."""
    real = place._make_directories
    with monkeypatch.context() as patch:
        patch.setattr(
            place, "_make_directories", lambda base, names: base != "/var/cache" and real(base, names)
        )
        patch.setattr("idmap.userns.in_user_namespace", lambda: inside)
        return default_cache_dir(environ, FOLDER)


@pytest.mark.parametrize(
    "environ",
    [{}, {"HOME": ""}, {"HOME": "relative"}, {"XDG_CACHE_HOME": "relative"}, {"HOME": "/nonexistent"}],
)
def test_no_home_means_no_cache_directory(monkeypatch, environ):
    assert user_cache_dir(monkeypatch, environ) is None


def test_real_root_has_no_cache_in_any_home(tmp_path, monkeypatch):
    monkeypatch.setattr(posix, "geteuid", lambda: 0)
    for environ in ({"HOME": str(tmp_path)}, {"XDG_CACHE_HOME": str(tmp_path)}):
        assert user_cache_dir(monkeypatch, environ, inside=False) is None
    assert list(tmp_path.iterdir()) == []


def test_a_home_of_somebody_else_gets_no_directory(tmp_path, monkeypatch):
    owner = os.geteuid()
    monkeypatch.setattr(posix, "geteuid", lambda: owner + 1)
    assert user_cache_dir(monkeypatch, {"HOME": str(tmp_path)}) is None
    assert list(tmp_path.iterdir()) == []


def test_the_compiler_is_not_loaded_when_the_cache_has_the_filter(cache, monkeypatch):
    load(cache)
    monkeypatch.setattr(seccomp_compile, "compile", lambda profile: pytest.fail("compiled"))
    assert load(cache).cached


def test_importing_it_loads_only_c_modules_and_os():
    script = """if True:
        import os, sys
        before = set(sys.modules)
        sys.path.insert(0, sys.argv[1])
        import rootless_rt.host.seccomp
        new = set(sys.modules) - before
        own = {"rootless_rt" + room for room in ("", ".host", ".host.cache", ".host.seccomp")}
        print(sorted(new - own - {"__future__"}))
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(REPOSITORY)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "['_blake2']\n"
