"""What a container may leave behind: looked for in the kernel's own lists, not in the runtime's."""

from __future__ import annotations

import os
import time
from pathlib import Path

from lab.runtime import Runtime
from lab.waiting import PATIENCE


def processes_of(uid: int) -> dict[int, str]:
    """The processes of a user: pid -> command line. Zombies are left out: their parents will look."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            lines = (entry / "status").read_text().splitlines()
            state = next(line for line in lines if line.startswith("State:")).split()[1]
            ids = next(line for line in lines if line.startswith("Uid:")).split()[1:]
            if str(uid) in ids and state not in "ZX":
                words = (entry / "cmdline").read_bytes().split(b"\0")
                found[int(entry.name)] = b" ".join(words).decode("utf-8", "replace").strip()
        except (OSError, StopIteration):
            continue  # it ended while we looked
    return found


def cgroups_named(prefix: str, uid: int) -> list[str]:
    """All cgroup directories of a user whose name begins so."""
    return [
        os.path.join(where, name)
        for where, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
        if name.startswith(prefix) and _owner(os.path.join(where, name)) == uid
    ]


def _owner(path: str) -> int | None:
    try:
        return os.stat(path).st_uid
    except FileNotFoundError:
        return None  # another test's, gone by now


class Ground:
    """How things are before; `clean` waits until they are so again.

    `prefix`: what the ids of the test's containers begin with.
    """

    def __init__(self, rt: Runtime, prefix: str) -> None:
        self.rt = rt
        self.prefix = prefix
        self.processes = self._processes()
        self.mounts = self._mounts()
        self.files = self._files()

    def _processes(self) -> dict[int, str]:
        """Of an ordinary user all; of root those in our directories or cgroups: others work beside us."""
        found = processes_of(self.rt.user.uid)
        if self.rt.user.uid == 0:
            found = {pid: line for pid, line in found.items() if self._is_near(pid)}
        return found

    def _is_near(self, pid: int) -> bool:
        """Whether the process was started in our directory, or has its root there, or is in our cgroups."""
        here = Path(f"/proc/{pid}")
        near = str(self.rt.root.parent)
        try:
            return (
                os.readlink(here / "cwd").startswith(near)
                or any(near in line.split()[3] for line in (here / "mountinfo").read_text().splitlines())
                or f"/{self.prefix}" in (here / "cgroup").read_text()
            )
        except OSError:
            return False  # it has ended

    def _mounts(self) -> list[str]:
        """The host's mounts near our files: others may mount elsewhere meanwhile."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line for line in lines if str(self.rt.root.parent) in line]

    def _files(self) -> set[str]:
        found = set()
        own = (str(self.rt.root), str(self.rt.user.runtime))
        for where in ("/tmp", "/dev/shm", "/run", *own):
            if os.path.isdir(where):
                for entry in os.scandir(where):
                    try:
                        owner = entry.stat(follow_symlinks=False).st_uid
                    except FileNotFoundError:
                        continue
                    if where in own or owner == self.rt.user.uid != 0:
                        found.add(entry.path)
        return found

    def remains(self) -> dict[str, object]:
        """What is there now and was not before."""
        now = self._processes()
        found: dict[str, object] = {
            "processes": {pid: now[pid] for pid in now.keys() - self.processes.keys()},
            "mounts": [line for line in self._mounts() if line not in self.mounts],
            "files": self._files() - self.files,
            "cgroups": cgroups_named(self.prefix, self.rt.user.uid),
        }
        return {name: what for name, what in found.items() if what}

    def processes_end(self, seconds: float = PATIENCE) -> dict[int, str]:
        """Wait for all new processes to end by themselves; those that do not."""
        deadline = time.monotonic() + seconds
        while True:
            now = self._processes()
            left = {pid: now[pid] for pid in now.keys() - self.processes.keys()}
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.005)

    def clean(self) -> None:
        """Nothing is left. What has been killed takes a moment to be gone."""
        self.processes_end()
        remains = self.remains()
        assert not remains, remains
