"""podman and buildah of the machine, with storage and state of their own, as root or as an ordinary user."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from lab.bundles import busybox_rootfs
from lab.engines import RUNTIMES, Done, NotHere, Place, finish
from lab.users import User

IMAGE = "localhost/busybox"
_NUMBERS = itertools.count()

# What docs/engines.md shows, with places of our own. The hard limits of a test run's own root may be low;
# podman's defaults would exceed them.
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "none"

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "rt"
runtime_supports_json = ["rt", "runc", "crun"]

[network]
network_config_dir = "{base}/networks"

[engine.runtimes]
rt = ["{rt}"]
runc = ["{runc}"]
"""


class Podman:
    """podman of one user on one storage; called with words it runs a command, `on` sets the runtime."""

    engine = "podman"

    def __init__(self, place: Place, base: Path, user: User, mode: str, storage: list[str]) -> None:
        self.place, self.base, self.user, self.mode = place, base, user, mode
        self.storage = storage
        self.runtime = "runc"
        self.conf = base / "containers.conf"
        self.conf.write_text(CONTAINERS_CONF.format(base=base, **RUNTIMES))
        for name in ("work", "runtime"):
            (base / name).mkdir(mode=0o700)
        user.owns(base)
        # What podman makes outside of the directories it is told: removed at the end, unless it was there.
        made = [] if place.keeper else [Path("/dev/shm", f"libpod_rootless_lock_{user.uid}")]
        if not self.rootless:
            made += [path / "libpod_parent" for path in Path("/sys/fs/cgroup").iterdir() if path.is_dir()]
        self.outside = [path for path in made if not path.exists()]

    def on(self, runtime: str) -> Podman:
        """The same engine, with containers made by this runtime."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, runtime=runtime)
        return other

    @property
    def rootless(self) -> bool:
        return self.user.uid != 0

    def environment(self) -> dict[str, str]:
        mine = {"CONTAINERS_CONF": str(self.conf), "TMPDIR": str(self.base / "work")}
        if self.rootless:
            mine["XDG_RUNTIME_DIR"] = str(self.base / "runtime")
        return {**self.user.environment(), **mine}

    def stored(self) -> list[str]:
        """The options that say where images and containers are kept."""
        return ["--root", f"{self.base}/store", "--runroot", f"{self.base}/run", *self.storage]

    def argv(self, *words: str) -> list[str]:
        """The command line of a podman command."""
        first = ["podman", "--tmpdir", f"{self.base}/tmp", *self.stored(), "--runtime", self.runtime]
        return self.place.argv(self.user, self.base / "work", [*first, *words])

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command and return at once."""
        options.setdefault("env", self.environment())
        return subprocess.Popen(self.argv(*words), **options)

    def __call__(self, *words: str, timeout: float = 60, stdin: str = "", **options: Any) -> Done:
        """Run a command to its end, with this text (a file) on its stdin."""
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            tempfile.TemporaryFile() as fed,
        ):
            fed.write(stdin.encode())
            fed.seek(0)
            process = self.popen(*words, stdin=fed, stdout=out, stderr=err, **options)
            return finish(process, [out, err], timeout)

    def ok(self, *words: str, **options: Any) -> str:
        """A command that must succeed; its stdout, without the last newline."""
        done = self(*words, **options)
        assert done.code == 0, str(done)
        return done.out.rstrip("\n")

    def run(self, *words: str, **options: Any) -> str:
        """The output of `podman run --rm` with these words, which name options, then a program."""
        return self.ok("run", "--rm", *self._with_image(words), **options)

    def start(self, *words: str) -> str:
        """Start a container in the background; its name."""
        name = self.name()
        self.ok("run", "-d", "--name", name, *self._with_image(words))
        return name

    def name(self) -> str:
        """A name no other container has."""
        return f"{self.runtime}-{os.getpid()}-{next(_NUMBERS)}"

    def inspect(self, name: str, form: str) -> str:
        return self.ok("inspect", "--format", "{{" + form + "}}", name)

    @staticmethod
    def _with_image(words: tuple[str, ...]) -> list[str]:
        """The image put behind the options: before "--", or before the first word without a dash."""
        if "--" in words:
            cut = words.index("--")
            return [*words[:cut], IMAGE, *words[cut + 1 :]]
        cut = next((n for n, word in enumerate(words) if not word.startswith("-")), len(words))
        return [*words[:cut], IMAGE, *words[cut:]]

    def needs_cgroups(self) -> None:
        """Rootless podman makes none where there is cgroup v1 only."""
        if self.rootless and not Path("/sys/fs/cgroup/cgroup.controllers").exists():
            raise NotHere("rootless podman has no cgroups on cgroup v1")

    def load_image(self) -> None:
        """Make the image that all cases use."""
        rootfs = Path(tempfile.mkdtemp(prefix="rt-test-rootfs-"))
        try:
            busybox_rootfs(rootfs / "root")
            packed = self.base / "busybox.tar"
            subprocess.run(["tar", "-C", str(rootfs / "root"), "-cf", str(packed), "."], check=True)
            self.user.owns(packed)
        finally:
            shutil.rmtree(rootfs)
        self.ok("import", "--change", "ENV PATH=/bin:/usr/bin", str(packed), IMAGE)

    def close(self) -> None:
        """Stop and remove everything; what is mounted goes with the place."""
        for words in (
            ["pod", "rm", "--all", "--force", "--time", "0"],
            ["rm", "--all", "--force", "--time", "0"],
        ):
            self(*words, timeout=120)
        wipe = ["rm", "-rf", f"{self.base}/store", f"{self.base}/run", f"{self.base}/tmp"]
        if self.rootless:  # files of subordinate ids
            wipe = [*self.argv("unshare"), *wipe]
            subprocess.run(wipe, env=self.environment(), check=False, stderr=subprocess.DEVNULL)
            self("system", "migrate")  # ends the process that keeps the user namespace
        else:
            subprocess.run(self.place.argv(self.user, "/", wipe), check=False, stderr=subprocess.DEVNULL)
        for path in self.outside:
            if path.is_dir():  # cgroups: empty ones can be removed
                below = sorted(path.rglob("*/"), reverse=True)
                subprocess.run(["rmdir", *below, path], check=False, stderr=subprocess.DEVNULL)
            else:
                path.unlink(missing_ok=True)
