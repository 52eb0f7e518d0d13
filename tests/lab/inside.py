"""What a container says of itself, and hosts whose mounts differ from this machine's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.bundles import Bundle, Config
from lab.runtime import Runtime
from lab.users import User


class Mount:
    """A line of mountinfo (proc_pid_mountinfo(5)): options of the mount, of its superblock, and tags."""

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        self.root, self.point, options, *self.tags = left.split(" ")[3:]
        self.options = set(options.split(","))
        self.kind, self.source, data = right.split(" ", 2)
        self.data = set(data.split(","))

    @property
    def propagation(self) -> set[str]:
        """The kinds of the tags, without the numbers of peer groups; empty for a private mount."""
        return {tag.partition(":")[0] for tag in self.tags}


def mounts_of(mountinfo: str) -> dict[str, Mount]:
    """Mount point -> what lies on top there."""
    return {made.point: made for made in map(Mount, mountinfo.splitlines())}


def mount(destination: str, kind: str, source: str | Path, *options: str) -> Config:
    """An item of config.json's mounts."""
    return {"destination": destination, "type": kind, "source": str(source), "options": list(options)}


def bind(destination: str, source: str | Path, *options: str) -> Config:
    return mount(destination, "none", source, "bind", *options)


def with_mounts(bundle: Bundle, *mounts: Config) -> Bundle:
    """Add mounts behind those that are there."""
    return bundle.change(lambda config: config["mounts"].extend(mounts))


def namespace(kind: str, path: str | Path | None = None) -> Config:
    """An item of linux.namespaces."""
    return {"type": kind, "path": str(path)} if path else {"type": kind}


def set_namespace(
    bundle: Bundle, kind: str, path: str | Path | None = None, *, absent: bool = False
) -> Bundle:
    """Have a namespace new, joined by path, or not at all."""

    def change(config: Config) -> None:
        others = [item for item in config["linux"]["namespaces"] if item["type"] != kind]
        config["linux"]["namespaces"] = others if absent else [*others, namespace(kind, path)]

    return bundle.change(change)


def output(rt: Runtime, bundle: Bundle, script: str | None = None, *options: str) -> str:
    """What a container prints that runs to a good end without a word of rt's own."""
    if script is not None:
        bundle.run(script)
    return rt.ok("run", *options, "--bundle", str(bundle.path), "said").strip()


def told(rt: Runtime, bundle: Bundle, script: str | None = None, *options: str) -> tuple[str, str]:
    """(stdout, stderr) of a container that runs to a good end."""
    if script is not None:
        bundle.run(script)
    done = rt("run", *options, "--bundle", str(bundle.path), "told")
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout.strip(), done.stderr


def refusal(rt: Runtime, bundle: Bundle, *options: str, before: tuple[str, ...] = ()) -> str:
    """The error of a container that cannot be made: one line and at most one hint, and nothing is left."""
    done = rt(*before, "run", *options, "--bundle", str(bundle.path), "refused")
    assert done.returncode != 0 and done.stdout == "", (done.returncode, done.stdout, done.stderr)
    first, *hints = done.stderr.splitlines()
    assert (
        first.startswith("rt: ") and len(hints) <= 1 and all(hint.startswith("hint: ") for hint in hints)
    ), done.stderr
    assert "refused" not in {entry.name for entry in rt.root.iterdir()}
    return done.stderr


def held(rt: Runtime, bundle: Bundle, name: str = "held", script: str = "") -> int:
    """Start a container that goes on until the test ends; the pid of its first process.

    Without a script that is `sleep` from the start: a shell would make way for it in its own time.
    """
    rt.ok("run", "--detach", "--bundle", str(bundle.run(script or ["sleep", "1000"]).path), name)
    pid: int = rt.state(name)["pid"]
    return pid


def read(pid: int, name: str) -> str:
    """A file of /proc/PID."""
    return Path(f"/proc/{pid}/{name}").read_text()


def subordinate(user: User, kind: str = "uid") -> int:
    """The first id of the user's range in /etc/subuid or /etc/subgid."""
    for line in Path(f"/etc/sub{kind}").read_text().splitlines():
        name, first, _ = line.split(":")
        if name == user.name:
            return int(first)
    raise AssertionError(f"{user.name} has no range in /etc/sub{kind}")


def map_ids(
    bundle: Bundle, *extents: tuple[int, int, int], gids: tuple[tuple[int, int, int], ...] = ()
) -> Bundle:
    """Write (inside, outside, count) as both maps of the config, or `gids` as that of the groups."""

    def lines(listed: tuple[tuple[int, int, int], ...]) -> list[dict[str, int]]:
        return [
            {"containerID": inside, "hostID": outside, "size": count} for inside, outside, count in listed
        ]

    def change(config: Config) -> None:
        config["linux"]["uidMappings"] = lines(extents)
        config["linux"]["gidMappings"] = lines(gids or extents)

    return bundle.change(change)


class OwnMounts:
    """A mount namespace of the test's, and `sh` to change it as root."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def sh(self, script: str, *args: str) -> str:
        """Run a script as root in it; its output."""
        done = subprocess.run(
            ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "sh", "-ec", script, "sh", *args],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (script, done.stdout, done.stderr)
        return done.stdout

    def runtime(self, rt: Runtime) -> Runtime:
        """The same command of the same user, started in it."""
        return _Entering(rt, self.pid)


class _Entering(Runtime):
    def __init__(self, rt: Runtime, pid: int) -> None:
        super().__init__(rt.user, rt.root)
        self._pid = pid

    def argv(self, *words: str) -> list[str]:
        ids = ["--setuid", str(self.user.uid), "--setgid", str(self.user.gid)] if self.user.uid else []
        return ["nsenter", f"--mount=/proc/{self._pid}/ns/mnt", *ids, *super().argv(*words)]

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        return super().popen(*words, **{"user": None, "group": None, "extra_groups": None, **options})


@contextmanager
def own_mounts(propagation: str = "private") -> Iterator[OwnMounts]:
    """A copy of this machine's mounts, with a propagation for all of them. For root."""
    assert os.getuid() == 0
    ready, said = os.pipe()
    holder = subprocess.Popen(
        [
            "unshare",
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            f"mount --make-r{propagation} /; echo; exec cat",
        ],
        stdin=subprocess.PIPE,
        stdout=said,
    )
    os.close(said)
    try:
        assert os.read(ready, 1) == b"\n"
        yield OwnMounts(holder.pid)
    finally:
        os.close(ready)
        holder.communicate()
