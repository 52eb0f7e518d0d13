"""The directory of a container: its lock, its files, its end."""

from __future__ import annotations

import os
import posix
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rootless_rt.container.lifecycle import delete
from rootless_rt.container.store import Handle, Store, check_id, default_root
from rootless_rt.errors import RtError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    root = tmp_path / "root"
    root.mkdir(mode=0o700)
    return Store(str(root), True)


def opened(store: Store, name: str = "c") -> Handle:
    handle = store.find(name)
    assert handle is not None
    return handle


def test_a_new_container_is_locked_and_its_id_taken(store: Store) -> None:
    handle = store.create("c")
    assert not opened(store).lock(wait=False)
    with pytest.raises(RtError, match="exists"):
        store.create("c")
    handle.unlock()
    assert opened(store).lock(wait=False)


def test_the_way_to_one_container_does_not_lead_past_the_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("a").close()
    for name in ("scandir", "listdir"):
        monkeypatch.delattr(posix, name)
    store.create("b").close()
    store.open("a").close()
    assert store.find("none") is None


def test_the_lock_of_a_removed_container_is_worth_nothing(store: Store) -> None:
    handle, other = store.create("c"), opened(store)
    handle.remove()
    handle.close()
    assert not other.lock()
    # A new one of that name is another container.
    store.create("c").close()
    assert not other.lock() and not other.exists()


def test_the_lock_ends_with_its_holder(store: Store, tmp_path: Path) -> None:
    store.create("c").close()
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from rootless_rt.container.store import Store
handle = Store({store.root!r}, True).open("c")
print(handle.lock(), flush=True)
input()
"""
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        mine = opened(store)
        assert not mine.lock(wait=False)
        holder.kill()
        assert mine.lock()


def test_a_file_is_replaced_whole_and_closed_to_others(store: Store) -> None:
    handle = store.create("c")
    handle.write("state.json", b"old")
    before = os.open(f"{handle.path}/state.json", os.O_RDONLY)
    handle.write("state.json", b"new")
    assert os.read(before, 10) == b"old" and handle.read("state.json") == b"new"
    os.close(before)
    assert stat.S_IMODE(os.stat(f"{handle.path}/state.json").st_mode) == 0o600
    assert os.listdir(handle.path) == ["state.json"]


def test_a_failed_write_leaves_the_old_file_and_no_other(store: Store) -> None:
    handle = store.create("c")
    os.mkdir(f"{handle.path}/state.json")
    with pytest.raises(RtError, match="cannot write"):
        handle.write("state.json", b"new")
    assert os.listdir(handle.path) == ["state.json"]


def test_a_file_that_lies_ready_counts_once_the_same_is_written(store: Store) -> None:
    handle = store.create("c")
    handle.write("note", b"old")
    handle.write("note", b"new", staged=True)
    assert handle.read("note") == b"old"
    ready = {os.stat(entry).st_ino for entry in os.scandir(handle.path) if entry.name != "note"}
    handle.write("note", b"new")
    assert handle.read("note") == b"new"
    assert {os.stat(entry).st_ino for entry in os.scandir(handle.path)} == ready


def test_a_file_that_lies_ready_is_passed_over_when_another_is_written(store: Store) -> None:
    handle = store.create("c")
    handle.write("note", b"never to be seen, and longer", staged=True)
    handle.write("note", b"new")
    assert handle.read("note") == b"new"
    handle.write("note", b"never to be seen, and longer")
    assert handle.read("note") == b"never to be seen, and longer"
    assert os.listdir(handle.path) == ["note"]


def test_a_temporary_name_that_is_a_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    handle = store.create("c")
    (tmp_path / "victim").write_text("mine")
    os.symlink(tmp_path / "victim", f"{handle.path}/.state.json.{os.getpid()}")
    with pytest.raises(RtError):
        handle.write("state.json", b"new")
    assert (tmp_path / "victim").read_text() == "mine"


def test_removing_follows_no_link(store: Store, tmp_path: Path) -> None:
    handle = store.create("c")
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/file").write_text("mine")
    os.symlink(tmp_path / "victim", f"{handle.path}/link")
    os.makedirs(f"{handle.path}/deep/er")
    os.symlink(tmp_path / "victim", f"{handle.path}/deep/link")
    handle.remove()
    assert not os.path.exists(handle.path) and (tmp_path / "victim/file").read_text() == "mine"
    handle.remove()


def test_a_state_that_is_gone_with_its_container_is_unknown(store: Store) -> None:
    handle = store.create("c")
    with pytest.raises(RtError, match="never finished"):
        handle.read_state()
    handle.remove()
    with pytest.raises(RtError, match="does not exist"):
        handle.read_state()


def test_a_made_root_is_the_users_alone_and_sticky(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Store(f"{tmp_path}/new/root", True).create("c").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new/root").stat().st_mode) == 0o1700


def test_a_default_root_is_never_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    Store(f"{tmp_path}/link", True).create("c").close()
    with pytest.raises(RtError, match="cannot open the state root"):
        Store(f"{tmp_path}/link", False).create("c")


@pytest.mark.parametrize("root", ["/", "//", "///", "/.", "/tmp/.."])
def test_the_root_directory_is_no_state_root(root: str) -> None:
    with pytest.raises(RtError, match="cannot be the state root"):
        Store(root, True)


@pytest.mark.parametrize("name", ["a", "A_+.-9", "...", ".a", "-", "x" * 255])
def test_plain_names_are_ids(name: str) -> None:
    assert check_id(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a\n", "\0", "é", "٣", "x" * 256, "\udcff"])
def test_other_names_are_not(name: str) -> None:
    with pytest.raises(RtError, match="invalid container id"):
        check_id(name)


def test_root_keeps_containers_in_run_whatever_the_environment() -> None:
    assert default_root({"XDG_RUNTIME_DIR": "/tmp", "HOME": "/root"}, 0, True) == "/run/rt"


def test_the_chain_of_default_roots(tmp_path: Path) -> None:
    euid = os.geteuid()
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    run, home, open_to_all = (str(tmp_path / name) for name in ("run", "home", "open"))
    assert default_root({"XDG_RUNTIME_DIR": run, "HOME": home}, euid, False) == run + "/rt"
    if os.path.exists(f"/run/user/{euid}"):
        pytest.skip("the user has a session: /run/user/UID comes before home")
    for runtime in (open_to_all, "", "run", f"{run}/none"):
        assert default_root({"XDG_RUNTIME_DIR": runtime, "HOME": home}, euid, False) == home + "/.rt/run"
    for other in (open_to_all, "", "/", "home", f"{home}/none"):
        assert default_root({"HOME": other}, euid, False) == f"/tmp/rt-{euid}"


class Vanishing(Store):
    """The store of a command that meets another which is removing the container: the files go first."""

    def find(self, container_id: str) -> Handle | None:
        found = super().find(container_id)
        if found is not None:
            found.__class__ = _Going
        return found


class _Going(Handle):
    __slots__ = ()

    def read_state(self) -> dict[str, Any]:
        self.unlink("state.json")
        try:
            return super().read_state()
        finally:
            os.rmdir(self.path)


def test_a_container_that_is_removed_meanwhile_does_not_exist(store: Store) -> None:
    handle = store.create("c")
    handle.write("state.json", b"{}")
    handle.close()
    with pytest.raises(RtError, match="does not exist"):
        delete(Vanishing(store.root, True), "c", print, force=False)
