"""Configs to begin with, for code that nobody trusts: `rt spec --hardened` for the caller of this program.

Knows which ids the caller can map, and which programs of the host there are. Must not know how they are run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from idmap.userns import in_user_namespace
from rootless_rt.api.config import words
from rootless_rt.errors import RtError
from rootless_rt.host.rootfs import make_rootfs
from rootless_rt.spec.hardened import USER, hardened_spec

_LINKED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_FOUND = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ssl/certs")
_PLACES = ("dev", "etc", "home", "proc", "run", "sys", "tmp", "usr", "var/tmp")


def hardened_config(rootfs: str | os.PathLike[str], args: Sequence[str] = ("sh",)) -> dict[str, Any]:
    """A config for code that nobody trusts, with its own root file system: what `rt spec --hardened` writes.

    The program is uid 1000 without a capability, on a read-only root with small file systems to work in
    (/home, /tmp), without a network, under a seccomp filter and Landlock, with at most 1 GiB of memory and
    256 processes. An ordinary user's program is that user on the host, root's is nobody: there the rootfs
    must have the places that are mounted on (/home, /var/tmp …). The dict can be changed.
    """
    uid, gid = _own_maps()
    config = hardened_spec([uid], [gid], devices=os.geteuid() == 0 and not in_user_namespace())
    config["process"]["args"] = words(args)
    config["process"]["terminal"] = False
    config["root"]["path"] = os.path.abspath(rootfs)
    return config


def host_config(directory: str | os.PathLike[str], args: Sequence[str] = ("sh",)) -> dict[str, Any]:
    """`hardened_config` with the programs and libraries of this host, read-only: its /usr, and this Python.

    `directory`, which is made if it is missing, becomes the root file system; it holds next to nothing. What
    is in /usr and in this Python's own directories can be read by the program. Raises RtError.
    """
    root = os.path.abspath(directory)
    own = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)}
    bound = ["/usr", *[path for path in _FOUND if os.path.exists(path)]]
    bound += [path for path in sorted(own) if not path.startswith("/usr")]
    try:
        for name in _PLACES:
            os.makedirs(os.path.join(root, name), exist_ok=True)
        for name in _LINKED:
            if os.path.islink("/" + name):
                if not os.path.lexists(os.path.join(root, name)):
                    os.symlink(os.readlink("/" + name), os.path.join(root, name))
            elif os.path.isdir("/" + name):
                bound.append("/" + name)
        for path in bound:
            _make_place(root + path, os.path.isdir(path))
    except OSError as error:
        raise RtError(f"cannot make {root}: {os.strerror(error.errno or 0).lower()}") from None
    config = hardened_config(root, args)
    config["mounts"] += [_bind(path) for path in bound]
    return config


def small_rootfs(path: str | os.PathLike[str]) -> str:
    """Make a small root file system of this host's busybox, or of copies of some programs; its path.

    `path` must not exist, or be empty: it is what `rt spec --rootfs-from-host` makes. Raises RtError.
    """
    make_rootfs(os.path.abspath(path))
    return os.path.abspath(path)


def _own_maps() -> tuple[dict[str, int], dict[str, int]]:
    if os.geteuid() == 0 and not in_user_namespace():
        from rootless_rt.host.idmaps import range_of_nobody

        start, count, _ = range_of_nobody()
        line = {"containerID": 0, "hostID": start, "size": count}
        return line, dict(line)
    uid, gid = ({"containerID": USER, "hostID": own, "size": 1} for own in (os.geteuid(), os.getegid()))
    return uid, gid


def _make_place(path: str, directory: bool) -> None:
    """Something to mount on: the root of the container may be nobody to this directory."""
    os.makedirs(path if directory else os.path.dirname(path), exist_ok=True)
    if not directory and not os.path.exists(path):
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))


def _bind(path: str) -> dict[str, Any]:
    options = ["rbind", "ro", "nosuid", "nodev"]
    return {"destination": path, "type": "none", "source": path, "options": options}
