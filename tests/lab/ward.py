"""A ward for daemons: mount, pid and network namespaces of their own, in which all of them end together.

What an engine's daemons mount, what bridges and packet filters they make, and every shim and container they
start, is gone when the ward's first process is killed. /run is a new one: daemons have fixed places there.
Only cgroups outlive it: daemons are told to make theirs below `cgroup`, which `close` removes.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.bundles import busybox_rootfs
from lab.engines import Done, finish
from lab.images import save_image
from lab.users import User, own_user
from lab.waiting import PATIENCE, until

IMAGE = "docker.io/library/busybox:1"
PAUSE = "docker.io/library/pause:1"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # the packages' own commands, whatever a machine has in /usr/local
_WARDS = itertools.count()

# The first process waits for others' orphans as well. /dev/fuse and /dev/net/tun are for everybody here.
_SET_UP = """set -e
mount -t tmpfs -o mode=755 run /run
for place in $@; do mount -t tmpfs -o mode=755 ward $place; done
mkdir -m 755 /run/devices /run/user
for node in fuse net/tun; do
    test -e /dev/$node || continue
    file=/run/devices/$(basename $node)
    mknod -m 666 $file c $(stat -c '0x%t 0x%T' /dev/$node)
    mount --bind $file /dev/$node
done
mount --make-rshared /
ip link set lo up
echo ready
exec > /dev/null
while :; do sleep 1000 & wait; done
"""
# Where daemons and network plugins write whatever they are told: empty ones of the ward's own.
_FIXED = (Path("/etc/docker"), Path("/var/lib/cni"))


class Ward:
    """The namespaces, a directory with a short path, and an image of busybox in a file."""

    def __init__(self) -> None:
        name = f"rt-test-{os.getpid()}-{next(_WARDS)}"
        self.cgroup = f"/{name}"
        self.base = Path(tempfile.mkdtemp(prefix="rt-ward-"))
        self.base.chmod(0o755)
        self.made = [place for place in _FIXED if not place.exists()]
        self.held = {place: _held(place) for place in _FIXED}
        unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
        self.keeper = subprocess.Popen(
            [*unshare, "sh", "-c", _SET_UP, "sh", *map(str, _FIXED)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self.keeper.stdout is not None
        if self.keeper.stdout.readline() != b"ready\n":
            self.keeper.wait()
            raise AssertionError("no namespaces for daemons")
        self.init = int(Path(f"/proc/{self.keeper.pid}/task/{self.keeper.pid}/children").read_text())
        busybox_rootfs(self.base / "rootfs")
        self.image, self.pause = self.base / "busybox.tar", self.base / "pause.tar"
        save_image(self.base / "rootfs", IMAGE, self.image, ["/bin/sh"])
        save_image(self.base / "rootfs", PAUSE, self.pause, ["/bin/sleep", "1000000"])

    def argv(self, words: Sequence[str], user: User | None = None) -> list[str]:
        """The words to start so that they run in the ward, as root or as this user."""
        enter = ["nsenter", f"--target={self.init}", "--mount", "--pid", "--net", "--wdns=/"]
        if user is not None and user.uid != 0:
            enter += ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--init-groups"]
        return [*enter, *words]

    def delegate(self, cgroup: str, user: User) -> None:
        """Make a cgroup in each hierarchy in which an ordinary user may make further ones."""
        for hierarchy in Path("/sys/fs/cgroup").iterdir():
            made = Path(f"{hierarchy}{cgroup}")
            made.mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (made / name).exists():
                    (made / name).write_text((hierarchy / name).read_text())
            user.owns(made)

    def environment(self, user: User | None = None) -> dict[str, str]:
        user = user or own_user()
        runtime = self.base / f"run-{user.uid}"
        if not runtime.exists():
            runtime.mkdir(mode=0o700)
            user.owns(runtime)
        mine = {"PATH": PATH, "XDG_RUNTIME_DIR": str(runtime), "HOME": str(runtime), "LC_ALL": "C"}
        return {**user.environment(), **mine}

    def popen(self, *words: str, user: User | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command in the ward and return at once; `env` adds to its environment."""
        environment = {**self.environment(user), **options.pop("env", {})}
        argv = self.argv(words, user)
        return subprocess.Popen(argv, env=environment, **options)

    def __call__(
        self, *words: str, timeout: float = 60, stdin: str = "", user: User | None = None, **options: Any
    ) -> Done:
        """Run a command to its end, with this text (a file) on its stdin."""
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            tempfile.TemporaryFile() as fed,
        ):
            fed.write(stdin.encode())
            fed.seek(0)
            process = self.popen(*words, user=user, stdin=fed, stdout=out, stderr=err, **options)
            return finish(process, [out, err], timeout)

    def ok(self, *words: str, **options: Any) -> str:
        """A command that must succeed; its stdout, without the last newline."""
        done = self(*words, **options)
        assert done.code == 0, str(done)
        return done.out.rstrip("\n")

    def daemon(self, name: str, *words: str, ready: Path, user: User | None = None, **options: Any) -> None:
        """Start a daemon, its output in `name`.log, and wait until it listens on the socket `ready`."""
        log = self.base / f"{name}.log"
        with log.open("wb") as out:
            process = self.popen(
                *words, user=user, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **options
            )

        def listens() -> bool:
            assert process.poll() is None, f"{name} ended: {log.read_text()[-2000:]}"
            return takes_connections(ready)

        try:
            until(listens, f"{name} listens on {ready}", 2 * PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}: {log.read_text()[-2000:]}") from None

    def end_all_of(self, user: User) -> None:
        """Kill all processes of an ordinary user, and see them gone."""
        until(
            lambda: subprocess.run(["pkill", "-KILL", "-u", str(user.uid)], check=False).returncode == 1,
            f"the processes of {user.name} end",
        )

    def close(self) -> None:
        """End everything, and remove what is left of it."""
        self.keeper.kill()  # its child, the first process, follows, and with it all others
        self.keeper.wait()
        deadline = time.monotonic() + PATIENCE
        while not self._cgroups_gone() and time.monotonic() < deadline:
            time.sleep(0.05)
        shutil.rmtree(self.base, ignore_errors=True)
        for place, lock in self.held.items():
            if place in self.made:
                with suppress(OSError):  # another run uses it too
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    place.rmdir()
            os.close(lock)

    def _cgroups_gone(self) -> bool:
        for ours in Path("/sys/fs/cgroup").glob(f"*{self.cgroup}*"):
            for where, _, _ in os.walk(ours, topdown=False):
                try:
                    os.rmdir(where)
                except OSError:
                    return False
        return True


def _held(place: Path) -> int:
    """Have a directory; a lock on it as long as it is used: what a ward has mounted on it goes with it."""
    while True:
        place.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # another run has just removed it
            lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_SH)
            if place.exists() and os.path.samestat(os.fstat(lock), place.stat()):
                return lock
            os.close(lock)


def takes_connections(path: Path) -> bool:
    """Whether somebody listens on a socket: its file is there before that."""
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(path))
        except OSError:
            return False
    return True
