"""State that somebody or something has changed, and many commands at once on one container."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import MakeBundle
from lab.attack import Canary
from lab.runtime import Runtime
from lab.waiting import command, until

from rootless_rt.container import shortcut

PARALLEL = 100


def spoil(path: Path, how: str, canary: Canary) -> None:
    text = path.read_text()
    state = json.loads(text)
    if how == "truncated":
        path.write_text(text[: len(text) // 2])
    elif how == "empty":
        path.write_text("")
    elif how == "missing":
        path.unlink()
    elif how == "directory":
        path.unlink()
        path.mkdir()
    elif how == "fifo":
        path.unlink()
        os.mkfifo(path)
    elif how == "link":
        kept = path.with_name("other")
        path.rename(kept)
        path.symlink_to(kept)
    elif how == "link to a file of the host":
        path.unlink()
        path.symlink_to(canary.file)
    elif how == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 30)
    elif how == "another's id":
        path.write_text(json.dumps({**state, "id": "d"}))
    elif how == "pid of a stranger":
        path.write_text(json.dumps({**state, "pid": os.getpid()}))
    elif how == "a cgroup that is none":
        path.write_text(json.dumps({**state, "cgroup": {"kind": "v2", "path": str(canary.path)}}))
    elif how == "nested":
        path.write_text("[" * 200_000)


KINDS = [
    *("truncated", "empty", "missing", "directory", "fifo", "link", "link to a file of the host", "huge"),
    *("another's id", "pid of a stranger", "a cgroup that is none", "nested"),
]


@pytest.mark.parametrize("how", KINDS)
def test_spoiled_state_is_an_error_and_delete_force_cleans_up(
    rt: Runtime, bundle: MakeBundle, place: Path, how: str
) -> None:
    canary = Canary(place / "canary")
    rt.user.owns(canary.path)
    canary.remember()
    rt.ok("run", "--detach", "--bundle", str(bundle(["/bin/sleep", "1000"]).path), "c")
    pid = rt.state("c")["pid"]
    spoil(rt.root / "c/state.json", how, canary)
    if os.getuid() == 0:
        subprocess.run(["chown", "-h", f"{rt.user.uid}:{rt.user.gid}", rt.root / "c/state.json"], check=False)
    for words in (["state", "c"], ["kill", "c", "KILL"], ["exec", "c", "/bin/true"], ["ps", "c"], ["list"]):
        done = rt(*words)
        assert "Traceback" not in done.stderr and "internal error" not in done.stderr, (words, done.stderr)
        if words[0] in ("kill", "exec") and how != "pid of a stranger":
            assert done.returncode != 0 and done.stderr.startswith("rt: "), (words, done)
    done = rt("delete", "--force", "c")
    assert "Traceback" not in done.stderr and not (rt.root / "c").exists(), done.stderr
    canary.check()
    if how == "pid of a stranger":
        os.kill(pid, 9)  # a sound record is believed
    until(lambda: not any("sleep" in word for word in command(pid)), "the container's process ends")


def forged(folder: Path, how: str, canary: Canary) -> bytes:
    """A record for the launcher that belongs to this state.json, and says something else."""
    kept = folder / "state.json"
    state = json.loads(kept.read_text())
    if how == "a stranger's pid":
        state["pid"] = os.getpid()
    record = shortcut.compiled(state, os.stat(kept))
    assert record is not None
    if how == "a cgroup that is none":
        # Of the three last texts (freezer, leaves, parents) only the leaves: the canary's directories.
        leaves = b"".join(os.fsencode(path) + b"\0" for path in (canary.path / "empty", canary.path))
        lists = [b"", leaves, b""]
        ends = b"".join(len(text).to_bytes(4, sys.byteorder) + text + b"\0" for text in lists)
        assert record.endswith(bytes(15)), "this user has no cgroup"
        body = record[16:-15] + ends
        flags = int.from_bytes(body[:8], sys.byteorder) | shortcut.FLAGS["CGROUP"]
        size = (16 + len(body)).to_bytes(8, sys.byteorder)
        record = shortcut.MAGIC + size + flags.to_bytes(8, sys.byteorder) + body[8:]
    elif how == "truncated":
        record = record[:-1]
    elif how == "noise":
        record = os.urandom(len(record))
    return record


@pytest.mark.parametrize(
    "how", ["a stranger's pid", "a cgroup that is none", "truncated", "noise", "link", "fifo", "writable"]
)
def test_a_forged_record_of_the_launcher_s_harms_nobody(
    rt: Runtime, bundle: MakeBundle, place: Path, how: str
) -> None:
    canary = Canary(place / "canary")
    rt.user.owns(canary.path)
    canary.remember()
    rt.ok("run", "--detach", "--bundle", str(bundle(["/bin/sleep", "1000"]).path), "c")
    folder = rt.root / "c"
    record = folder / shortcut.NAME
    if how in ("link", "fifo"):
        record.rename(folder / "other")
        record.symlink_to("other") if how == "link" else os.mkfifo(record)
    elif how == "writable":
        record.chmod(0o666)
    else:
        record.write_bytes(forged(folder, how, canary))
    if os.getuid() == 0:
        os.lchown(record, rt.user.uid, rt.user.gid)  # and nothing else: state.json is to be as it was
    assert rt.state("c")["pid"] != os.getpid()
    rt.ok("kill", "c", "KILL")
    rt.wait_for("c", "stopped")
    rt.ok("delete", "--force", "c")
    assert not folder.exists()
    canary.check()


def test_a_hundred_commands_at_once_on_one_id_do_no_harm(rt: Runtime, bundle: MakeBundle) -> None:
    made = bundle(["/bin/sleep", "1000"])
    rt.ok("create", "--bundle", str(made.path), "c")
    said: list[tuple[int, str]] = []

    def call(number: int) -> None:
        words = [
            ["start", "c"],
            ["kill", "c", "KILL"],
            ["delete", "c"],
            ["state", "c"],
            ["delete", "--force", "c"],
        ]
        done = rt(*words[number % 5], timeout=200)
        said.append((done.returncode, done.stderr))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(PARALLEL)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == PARALLEL
    for code, text in said:
        assert code in (0, 1) and "Traceback" not in text and "internal error" not in text, text
        assert len(text.splitlines()) <= 2, text
    rt("delete", "--force", "c")
    assert list(rt.root.iterdir()) == []
    rt.ok("run", "--bundle", str(made.run(["/bin/true"]).path), "c")
