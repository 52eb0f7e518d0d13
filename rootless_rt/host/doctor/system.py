"""Reading a system below a root directory: small files, mounts, the caller. Decides and changes nothing."""

from __future__ import annotations

import os

from idmap.evidence import os_release
from idmap.extents import IDENTITY
from idmap.helpers import SYSTEM_DIRS, find_helper
from idmap.subid import login_name, user_name
from idmap.userns import own_map
from rootless_rt.host.doctor.model import Me
from rootless_rt.spec.names import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    FindProgram = Callable[[str], str | None]

# Words of os-release's ID and ID_LIKE -> package manager; the first word that is here counts.
MANAGERS = {
    "debian": "apt", "ubuntu": "apt",
    "fedora": "dnf", "rhel": "dnf", "centos": "dnf", "amzn": "dnf",
    "suse": "zypper", "opensuse": "zypper",
    "arch": "pacman",
    "alpine": "apk",
}  # fmt: skip
# File systems over a network, and those without owners and modes of their own.
FAR = frozenset(("nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "afs", "autofs",
                 "fuse.sshfs", "glusterfs", "fuse.glusterfs"))  # fmt: skip
PLAIN = frozenset(
    ("vfat", "exfat", "msdos", "ntfs", "ntfs3", "fuseblk", "9p", "drvfs", "virtiofs", "hfsplus")
)


class Mount:
    """A line of /proc/self/mountinfo (proc_pid_mountinfo(5)): where, which part of what, and how."""

    __slots__ = ("flags", "kind", "point", "root", "source")

    def __init__(self, point: str, kind: str = "ext4", flags: str = "rw", root: str = "/", source: str = ""):
        self.point = point
        self.kind = kind
        self.flags = frozenset(flags.split(","))
        self.root = root
        self.source = source


def caller(root: str, environ: Mapping[str, str]) -> Me:
    """This process's user on the system below `root`."""
    uid, euid = os.getuid(), os.geteuid()
    name = user_name(uid, root + "/etc/passwd")
    if name is None and not root:
        name = login_name(uid)
    try:
        initial = own_map("uid", root + "/proc/self") == [IDENTITY]
    except OSError:
        initial = True
    me = Me(
        uid,
        groups=(os.getegid(), *os.getgroups()),
        name=name,
        environ=environ,
        initial=initial,
        manager=manager(os_release(root)),
    )
    me.euid = euid
    return me


def manager(words: str) -> str:
    """The package manager by the words of os-release.

    >>> manager("opensuse-leap suse opensuse"), manager("linuxmint ubuntu debian"), manager("plan9")
    ('zypper', 'apt', '')
    """
    return next((MANAGERS[word] for word in words.replace("-", " ").split() if word in MANAGERS), "")


def read(path: str) -> str | None:
    """A small file without the blanks around it; None when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return None


def number(path: str) -> int | None:
    """A file that holds one number; None when it is not there, or holds something else ("max")."""
    return decimal(read(path) or "")


def mounts(root: str) -> list[Mount]:
    """What is mounted, in the kernel's order."""
    found = []
    for line in (read(root + "/proc/self/mountinfo") or "").split("\n"):
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if len(fields) > 5 and len(kind) > 1:
            flags = fields[5] + (",ro" if "ro" in kind[-1].split(",") else "")
            found.append(Mount(_plain(fields[4]), kind[0], flags, _plain(fields[3]), _plain(kind[1])))
    return found


def mount_of(path: str, mounts: list[Mount]) -> Mount | None:
    """The mount that an absolute path without links lies on; of several at one place the last."""
    best = None
    for mount in mounts:
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _plain(field: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field


def finder(root: str, environ: Mapping[str, str]) -> FindProgram:
    """A function that gives the path of a program, as the helpers of rt are found, or None. Below a root its
    paths lack that root."""
    path = environ.get("PATH", "")

    def find(name: str) -> str | None:
        if not root:
            return find_helper(name, path)
        for directory in (*path.split(":"), *SYSTEM_DIRS):
            if directory.startswith("/") and os.access(f"{root}{directory}/{name}", os.X_OK):
                return f"{directory}/{name}"
        return None

    return find
