"""Ordinary users: made when the tests run as root, else the one that runs them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class User:
    """An account: name, uid, gid, home; `runtime` is its own XDG_RUNTIME_DIR."""

    def __init__(self, name: str, runtime: Path | None = None) -> None:
        entry = pwd.getpwnam(name)
        self.name, self.uid, self.gid, self.home = name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir)
        self.runtime = runtime or Path(f"/run/user/{self.uid}")

    def owns(self, path: Path) -> None:
        """Give a tree to the user."""
        if os.getuid() == 0:
            subprocess.run(["chown", "-R", "-h", f"{self.uid}:{self.gid}", str(path)], check=True)

    def environment(self) -> dict[str, str]:
        """A login's variables, and nothing of the test run's."""
        return {
            "HOME": str(self.home),
            "USER": self.name,
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "XDG_RUNTIME_DIR": str(self.runtime),
        }


def account(*argv: str) -> None:
    """Run a tool of shadow-utils, again while another has the files locked or a process is still ending."""
    for _ in range(240):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        if "lock" not in done.stderr and "currently used by process" not in done.stderr:  # one just killed
            break
        time.sleep(0.25)
    raise AssertionError(f"{argv}: {done.stderr}")


def can_make_users() -> bool:
    return os.getuid() == 0 and shutil.which("useradd") is not None


@contextmanager
def made_user(name: str, *, ranges: bool) -> Iterator[User]:
    """A fresh account, with a subuid range of 65536 or with none; gone afterwards with all its processes."""
    name = f"{name}{os.getpid()}"
    nothing = [] if ranges else ["-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0"]
    # The comment is how tools/lanes.py knows whom it may remove when a run was cut short.
    account("useradd", "-m", "-c", "made by the tests of rt", *nothing, name)
    entry = pwd.getpwnam(name)
    runtime = Path(f"/tmp/rt-test-runtime-{entry.pw_uid}-{os.getpid()}")
    runtime.mkdir(mode=0o700)
    os.chown(runtime, entry.pw_uid, entry.pw_gid)
    try:
        yield User(name, runtime)
    finally:
        subprocess.run(["pkill", "-KILL", "-u", str(entry.pw_uid)], check=False)
        shutil.rmtree(runtime, ignore_errors=True)
        account("userdel", "-r", name)


@contextmanager
def own_user_in_session() -> Iterator[User]:
    """Whoever runs the tests, with an XDG_RUNTIME_DIR as a login gives: there may be none, or one in use."""
    runtime = Path(tempfile.mkdtemp(prefix="rt-test-runtime-"))
    try:
        yield User(own_user().name, runtime)
    finally:
        shutil.rmtree(runtime, ignore_errors=True)


def own_user() -> User:
    """Whoever runs the tests."""
    return User(pwd.getpwuid(os.getuid()).pw_name)
