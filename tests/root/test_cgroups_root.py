"""The drivers on the kernel's own cgroups, as root: the machine's mounts, and a v2 tree of our own.

Only cgroups below /rt-test-PID are made, and removed again. The v2 tree is mounted in a private
mount namespace.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab.waiting import PATIENCE, until

from rootless_rt import cgroups
from rootless_rt.cgroups.v1 import V1
from rootless_rt.cgroups.v2 import V2
from rootless_rt.errors import RtError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="cgroups are made as root")

REPO = Path(__file__).parents[2]
PARENT = f"rt-test-{os.getpid()}"
INSIDE = "RT_TEST_V2_VIEW"
FORK_TREE = "import os, time\nfor _ in range(3): os.fork()\ntime.sleep(60)"


def as_root_may() -> cgroups.Manager:
    return cgroups.choose(
        cgroups.view(),
        manager="cgroupfs",
        cgroups_path=f"/{PARENT}/box",
        container_id="box",
        euid=0,
        strict=False,
        rootless=False,
    )


@pytest.fixture
def box() -> Iterator[cgroups.Manager]:
    manager = as_root_may()
    if manager.kind == "none":
        pytest.skip(f"no cgroup can be made here: {manager.reason}")
    manager.create()
    try:
        yield manager
    finally:
        manager.kill()
        manager.undo()
        manager.delete()
    assert not [path for path in manager.paths if os.path.exists(os.path.dirname(path))]


def spawn(box: cgroups.Manager, code: str) -> subprocess.Popen[str]:
    """A Python process that waits for a line on stdin, once it is in the cgroup."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "input()\n" + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    box.add(child.pid)
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()
    return child


def members(box: cgroups.Manager, number: int) -> list[int]:
    until(lambda: len(box.procs()) == number, lambda: f"{number} are in it, not {box.procs()}")
    return box.procs()


def close(child: subprocess.Popen[str]) -> None:
    child.communicate()


def test_a_process_is_in_every_hierarchy(box: cgroups.Manager) -> None:
    child = spawn(box, "import time; time.sleep(60)")
    assert box.procs() == [child.pid]
    lines = Path(f"/proc/{child.pid}/cgroup").read_text().splitlines()
    assert sum(line.endswith(f"/{PARENT}/box") for line in lines) == len(box.paths)
    assert cgroups.load(box.to_state()).procs() == [child.pid]
    assert box.kill()
    close(child)


def test_kill_ends_a_whole_tree_of_processes_frozen_or_not(box: cgroups.Manager) -> None:
    for frozen in (False, True):
        child = spawn(box, FORK_TREE)
        members(box, 8)
        if frozen:
            box.freeze()
        assert box.kill(timeout=PATIENCE)
        assert box.procs() == []
        close(child)
        assert child.returncode == -signal.SIGKILL
        if frozen:
            box.thaw()


def test_a_frozen_process_makes_no_progress_until_thawed(box: cgroups.Manager) -> None:
    child = spawn(box, "while True: pass")

    def ticks() -> int:
        return int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[11])

    assert not box.frozen()
    box.freeze()
    assert box.frozen()
    before = ticks()
    time.sleep(0.1)
    assert ticks() == before
    box.thaw()
    assert not box.frozen()
    until(lambda: ticks() > before, "it goes on")
    box.kill()
    close(child)


def test_delete_waits_for_the_dying_and_names_what_lives(box: cgroups.Manager) -> None:
    child = spawn(box, FORK_TREE)
    members(box, 8)
    for path in box.paths:
        os.mkdir(path + "/sub")
    with pytest.raises(RtError, match="processes are still in it"):
        box.delete(timeout=0.05)
    for pid in box.procs():
        os.kill(pid, signal.SIGKILL)
    box.delete(timeout=PATIENCE)
    close(child)
    assert not [path for path in box.paths if os.path.exists(path)]


def test_a_cgroup_in_use_is_not_taken(box: cgroups.Manager) -> None:
    child = spawn(box, "import time; time.sleep(60)")
    with pytest.raises(RtError, match="the cgroup is in use already"):
        as_root_may().create()
    box.kill()
    close(child)
    as_root_may().create()


def test_devices_outside_of_the_rules_cannot_be_opened(box: cgroups.Manager) -> None:
    code = (
        "import os\nfor path in ('/dev/null', '/dev/kmsg'):\n"
        "  try: os.close(os.open(path, os.O_WRONLY)); print('open')\n"
        "  except OSError as error: print(error.errno)\n"
    )
    kmsg: dict[str, Any] = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rw"}
    opened: list[dict[str, Any]] = [{"allow": False}, kmsg]
    rounds: list[tuple[list[dict[str, Any]], list[str]]] = [
        ([], ["open", "1"]),
        (opened, ["open", "open"]),
        ([], ["open", "1"]),
    ]
    for rules, expected in rounds:
        assert box.set_devices(rules) is None
        child = spawn(box, code)
        assert child.communicate()[0].split() == expected


@pytest.mark.skipif(INSIDE not in os.environ, reason="runs inside the private v2 view")
def test_the_v2_view_gives_a_descriptor_to_be_born_into(box: cgroups.Manager) -> None:
    assert isinstance(box, V2)
    fd = box.open_dir()
    assert fd is not None
    assert os.readlink(f"/proc/self/fd/{fd}") == box.paths[0]
    os.close(fd)


@pytest.mark.skipif(INSIDE not in os.environ, reason="runs inside the private v2 view")
def test_kill_without_the_kill_file_still_empties(
    box: cgroups.Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rootless_rt.cgroups import v2

    monkeypatch.setattr(v2, "kill_file", lambda path: False)
    child = spawn(box, FORK_TREE)
    members(box, 8)
    assert box.kill(timeout=PATIENCE)
    close(child)


@pytest.mark.skipif(INSIDE in os.environ, reason="is the way into the private v2 view")
def test_everything_holds_in_a_private_view_of_cgroup_v2() -> None:
    enter = (
        "umount -R /sys/fs/cgroup 2>/dev/null; mount -t cgroup2 none /sys/fs/cgroup || exit 77; "
        'exec "$0" -m pytest -q -p no:cacheprovider "$1"'
    )
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", enter, sys.executable, __file__],
        env={**os.environ, INSIDE: "1"},
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("a cgroup2 file system cannot be mounted here")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 passed" in done.stdout


def test_an_ordinary_user_gets_no_cgroup_and_no_error() -> None:
    code = (
        "import os; from rootless_rt import cgroups\n"
        "from rootless_rt.cgroups import choice, host, none, v1, v2\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "m = cgroups.choose(cgroups.view(), manager='auto', cgroups_path=None, container_id='x',"
        " euid=65534, strict=True, rootless=True)\n"
        "print(m.kind, m.reason)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("none no ")


@pytest.mark.skipif(INSIDE in os.environ, reason="looks at the machine's own mounts")
def test_the_machine_s_hierarchies_are_all_used(box: cgroups.Manager) -> None:
    if not isinstance(box, V1):
        pytest.skip("this machine has no v1 controllers")
    assert len(box.paths) == len(set(cgroups.view().mounts.values())) + ("unified" in box.dirs)
    assert len(box.task_files()) + (box.beside() is not None) == len(box.paths)
    assert all(os.access(file, os.W_OK) for file in box.task_files())
    fd = box.open_dir()
    assert (fd is None) == (box.beside() is None), "only a process of the v2 tree is made inside of it"
    if fd is not None:
        os.close(fd)
