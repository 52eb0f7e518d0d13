"""The `rt` command behind something that changes its surroundings first."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab.runtime import Runtime

# Words of a wrapper's shell script: go on with the command.
GO_ON = 'exec "$@"'


class Wrapped(Runtime):
    """The same user and state root; every command is run by `prefix`.

    With `as_root` the prefix runs as root, and the command behind it is given back to the user by setpriv(1),
    with these further options.
    """

    def __init__(
        self, rt: Runtime, *prefix: str, as_root: bool = False, options: tuple[str, ...] = ()
    ) -> None:
        super().__init__(rt.user, rt.root)
        self.prefix = prefix
        self.as_root = as_root
        self.options = options
        if as_root and os.getuid() != 0:
            pytest.skip("needs root, to prepare what the user then meets")

    def argv(self, *words: str) -> list[str]:
        user = self.user
        ids = ["--reuid", str(user.uid), "--regid", str(user.gid), "--clear-groups", *self.options]
        become = ["setpriv", *ids, "--"] if self.as_root and user.uid != 0 else []
        return [*self.prefix, *become, *super().argv(*words)]

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        if self.as_root:
            options |= {"user": None, "group": None, "extra_groups": None}
        return super().popen(*words, **options)


def after(rt: Runtime, script: str, *, as_root: bool = False) -> Wrapped:
    """`rt`, each time after a shell has run these commands."""
    return Wrapped(rt, "sh", "-ec", f"{script}\n{GO_ON}", "sh", as_root=as_root)


def with_etc(rt: Runtime, place: Path, script: str) -> Wrapped:
    """`rt`, each time where root has changed files of /etc with these commands, for nobody else.

    Not by mounts on the files: such a mount ends when useradd(8) elsewhere renames a new file over it.
    """
    own = place / "etc"
    own.mkdir()
    layers = f"lowerdir=/etc,upperdir={own}/upper,workdir={own}/work"
    room = f"mount -t tmpfs -o mode=755 tmpfs {own}; mkdir {own}/upper {own}/work"
    return with_mounts(rt, f"{room}; mount -t overlay -o {layers} etc /etc; {script}")


def with_mounts(rt: Runtime, script: str) -> Wrapped:
    """`rt`, each time in a mount namespace of its own that root has prepared with these commands."""
    unshare = ["unshare", "--mount", "--propagation", "private"]
    return Wrapped(rt, *unshare, "sh", "-ec", f"{script}\n{GO_ON}", "sh", as_root=True)
