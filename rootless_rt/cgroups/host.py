"""Evidence: which cgroup hierarchies are mounted, and where this process stands in them.

Reads `/proc/self/mountinfo` and `/proc/self/cgroup` (proc(5), cgroups(7)) below an injectable root, and
decides nothing. Must not know containers.
"""

from __future__ import annotations

from rootless_rt import paths

from .fs import read_bytes

_ROOT = "/sys/fs/cgroup"


class CgroupView:
    """One look at the cgroups of this process.

    `mode`: "v2", "v1", "hybrid" (controllers on v1, a v2 tree beside them) or "none".
    `mounts`: v1 controller (or `name=…`) -> mount point; `unified`: the mount point of the v2 tree, or None.
    `roots`: mount point -> which cgroup is mounted there. `own`: controller -> our cgroup; v2 is "".
    """

    __slots__ = ("mode", "mounts", "own", "roots", "unified")

    def __init__(
        self, mounts: dict[str, str], unified: str | None, own: dict[str, str], roots: dict[str, str]
    ) -> None:
        self.mounts = mounts
        self.unified = unified
        self.own = own
        self.roots = roots
        if unified is None:
            self.mode = "v1" if mounts else "none"
        else:
            self.mode = "hybrid" if mounts else "v2"

    def own_dir(self, controller: str = "") -> str | None:
        """The directory of our own cgroup ("" asks for v2); None when no mount shows it."""
        mount = self.mounts.get(controller) if controller else self.unified
        path = self.own.get(controller)
        if mount is None or path is None:
            return None
        root = self.roots.get(mount, "/")
        if root != "/":
            if path != root and not path.startswith(root + "/"):
                return None
            path = path[len(root) :]
        # "/.." says: outside of our cgroup namespace; no directory name can be made of it.
        if "/.." in root or path.startswith("/.."):
            return None
        return mount + path if path.strip("/") else mount


def dir_of(pid: int) -> str | None:
    """The directory of a process's v2 cgroup; None when it has ended, or no mount of ours shows it."""
    ours = view()
    theirs = own_of(read_bytes(f"/proc/{pid}/cgroup") or b"")
    return CgroupView(ours.mounts, ours.unified, theirs, ours.roots).own_dir()


def view(root: str = "/") -> CgroupView:
    """Look at the system below `root` ("/" but for tests; mount points found get it as a prefix).

    A process that may read neither file has no cgroups: mode "none", no error.
    """
    prefix = root.rstrip("/")
    own = own_of(read_bytes(prefix + "/proc/self/cgroup") or b"")
    # The common case costs two stats instead of a table of mounts: a v2 tree at the usual place which shows
    # our own cgroup where it should be (a bind mount of a part of the tree would not).
    usual = prefix + _ROOT
    if paths.exists(usual + "/cgroup.controllers"):
        quick = CgroupView({}, usual, own, {usual: "/"})
        mine = quick.own_dir()
        if mine is not None and paths.exists(mine + "/cgroup.procs"):
            return quick
    return _from_mounts(read_bytes(prefix + "/proc/self/mountinfo") or b"", prefix, own)


def own_of(data: bytes) -> dict[str, str]:
    """`/proc/self/cgroup`: lines of `number:controllers:path`."""
    own: dict[str, str] = {}
    for line in paths.fsdecode(data).split("\n"):
        parts = line.split(":", 2)
        if len(parts) == 3 and "\0" not in line:
            for name in parts[1].split(","):
                own[name] = parts[2]
    return own


def _from_mounts(data: bytes, prefix: str, own: dict[str, str]) -> CgroupView:
    mounts: dict[str, str] = {}
    roots: dict[str, str] = {}
    unified: str | None = None
    usual = prefix + _ROOT
    for raw in data.split(b"\n"):
        if b" - cgroup" not in raw or b"\0" in raw:
            continue
        left, _, right = paths.fsdecode(raw).partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if len(fields) < 6 or len(kind) < 3:
            continue
        point = prefix + _unescape(fields[4])
        if kind[0] == "cgroup2":
            names = [""]
            if unified is None or (point.startswith(usual) and not unified.startswith(usual)):
                unified = point
        elif kind[0] == "cgroup":
            names = [option for option in kind[2].split(",") if option and option in own]
            for name in names:
                # A copy of a hierarchy mounted elsewhere never hides the one at the usual place.
                if name not in mounts or (point.startswith(usual) and not mounts[name].startswith(usual)):
                    mounts[name] = point
        else:
            continue
        if names:
            # What is mounted later on the same point covers what was there.
            roots[point] = _unescape(fields[3])
    return CgroupView(mounts, unified, own, roots)


def _unescape(text: str) -> str:
    """Undo the \\040 of /proc/self/mountinfo (space, tab, newline, backslash as three octal digits)."""
    if "\\" not in text:
        return text
    head, *rest = text.split("\\")
    return head + "".join([_octal(part) for part in rest])


def _octal(part: str) -> str:
    """What stands behind a backslash; the kernel writes three octal digits, and others are no escape."""
    number = part[:3]
    if len(number) != 3 or number.strip("01234567") or not "000" < number < "400":
        return "\\" + part
    return chr(int(number, 8)) + part[3:]
