"""Bundles with a busybox rootfs, and configs to change."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rootless_rt.spec.defaults import default_spec, rootless

Config = dict[str, Any]
Change = Callable[[Config], None]

BUSYBOX = "/bin/busybox"


def busybox_rootfs(path: Path) -> Path:
    """A rootfs with a static busybox and links for all its applets."""
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr/bin", "var"):
        (path / name).mkdir(parents=True)
    (path / "tmp").chmod(0o1777)
    (path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
    (path / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    shutil.copy(BUSYBOX, path / "bin/busybox")
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in listed:
        if name != "busybox" and "/" not in name:
            (path / "bin" / name).symlink_to("busybox")
    return path


def plain_config(*, args: list[str] | str) -> Config:
    """The default config for root, without a terminal and with a writable rootfs; a string runs in sh."""
    config = default_spec(cgroup2=False)
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/bin/sh", "-c", args] if isinstance(args, str) else args
    config["root"]["readonly"] = False
    return config


def rootless_config(uid: int, gid: int, *, args: list[str] | str) -> Config:
    """The same for an ordinary user, the own ids alone mapped."""
    return rootless(plain_config(args=args), uid, gid, cgroup2=False)


class Bundle:
    """A bundle directory and the config in it."""

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        self.config = config
        self.rootfs = path / "rootfs"
        self.write()

    def write(self) -> None:
        """Put the config, as changed, into config.json."""
        (self.path / "config.json").write_text(json.dumps(self.config, indent=1))

    def change(self, change: Change) -> Bundle:
        change(self.config)
        self.write()
        return self

    def run(self, args: list[str] | str) -> Bundle:
        """Have the bundle run this program (a string runs in sh)."""
        self.config["process"]["args"] = ["/bin/sh", "-c", args] if isinstance(args, str) else args
        self.write()
        return self
