"""A person who has never used rt, and machines of CI: they get a source tree or a wheel, and a shell."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from lab.users import User

# What Docker leaves to a container's root (its documentation, "Runtime privilege and Linux capabilities").
DOCKER_CAPS = (
    *("chown", "dac_override", "fsetid", "fowner", "mknod", "net_raw", "setgid", "setuid", "setfcap"),
    *("setpcap", "net_bind_service", "sys_chroot", "kill", "audit_write"),
)
NAMESPACES = (
    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--uts", "--ipc"),
)
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
# An overlay of this machine's files, so that users and packages made in it are seen nowhere else. $1 is an
# empty directory, $2 goes to /opt; the words behind are run as its root.
FILES = """
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" root "$1/root"
cp "$2" "$1/root/opt/"
mount --rbind /dev "$1/root/dev"
mount -t proc proc "$1/root/proc"
mount --rbind /sys "$1/root/sys"
mount -o remount,bind,ro "$1/root/sys"
mkdir -p "$1/root/old"
cd "$1/root"
pivot_root . old
umount -l old
shift 2
exec "$@"
"""


def login(
    user: User, script: str, seconds: float = 200, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a script as the user types it after a login: bash, up to the first error; stderr in stdout."""
    words = ["setpriv", "--reuid", str(user.uid), "--regid", str(user.gid), "--init-groups"]
    return subprocess.run(
        [*(words if os.getuid() != user.uid else []), "bash", "-e"],
        input=script,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=seconds,
        cwd=user.home,
        env={**user.environment(), "PATH": PATH, **variables},
    )


def in_container(
    place: Path, wheel: Path, script: str, *, become: list[str], **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a script of sh with files, processes and mounts of its own; `become` limits its rights.

    RT_SOURCE is the wheel. For root.
    """
    stage = place / "stage"
    stage.mkdir()
    namespaces = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--pid",
        "--fork",
        "--kill-child",
        "--uts",
        "--ipc",
    ]
    return subprocess.run(
        [*namespaces, "sh", "-ec", FILES, "sh", str(stage), str(wheel), *become, "sh", "-ec", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=200,
        cwd="/",
        env={"PATH": PATH, "RT_SOURCE": f"/opt/{wheel.name}", **variables},
    )
