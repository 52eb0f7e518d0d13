"""Facts about why a map was refused, read from the system. Decides nothing: see `diagnose`.

Loaded after a failure, or by a check-up. Every path is read below an injectable root directory.
"""

from __future__ import annotations

import os
import stat

from idmap.auto import propose_range
from idmap.extents import parse_map
from idmap.subid import FILES, granted, login_name, malformed_lines, provider, read_file, user_name
from idmap.userns import is_foreign

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from idmap.extents import Extent
    from idmap.subid import SubRange

CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN, CAP_SETFCAP = 6, 7, 21, 31  # linux/capability.h
ALL_CAPS = (1 << 64) - 1
APPARMOR = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"  # Ubuntu, since 23.10


class Evidence:
    """What was asked, and what the system looks like. The defaults are those of a healthy system with no
    grants."""

    __slots__ = (
        "apparmor_restricts", "asked", "bounding", "dumpable", "effective", "errno", "file", "granted",
        "helper", "helper_caps", "helper_exposed", "helper_mode", "helper_owner", "kind", "malformed",
        "mapped", "name", "name_is_local", "no_new_privs", "nosuid", "os_release", "other_granted", "own",
        "pid", "proposed", "provider", "said", "target_exists", "uid",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        asked: Sequence[Extent],
        own: int,
        *,
        pid: int = 0,
        uid: int = 0,
        name: str | None = None,
        name_is_local: bool = True,
        helper: str | None = None,
        helper_owner: int = 0,
        helper_mode: int = 0o4755,
        helper_caps: int = 0,
        helper_exposed: str = "",
        nosuid: bool = False,
        no_new_privs: bool = False,
        bounding: int = ALL_CAPS,
        effective: int = 0,
        granted: Sequence[SubRange] = (),
        other_granted: Sequence[SubRange] = (),
        malformed: Sequence[int] = (),
        provider: str = "files",
        proposed: tuple[int, int] | None = None,
        os_release: str = "",
        target_exists: bool = True,
        dumpable: bool = True,
        mapped: bool = False,
        apparmor_restricts: bool = False,
        said: str = "",
        errno: int = 0,
        file: str = "",
    ) -> None:
        self.kind = kind  # "uid" or "gid"
        self.asked = asked
        self.own = own  # the own id of that kind
        self.pid = pid  # whose map it is
        self.uid = uid  # the user whose grants count, for gid maps too
        self.name = name
        self.name_is_local = name_is_local  # in /etc/passwd, so that usermod knows it
        self.helper = helper
        self.helper_owner = helper_owner
        self.helper_mode = helper_mode
        self.helper_caps = helper_caps  # bits of the file's effective capabilities
        # What of its path others than root can change, so that it must not be given any right.
        self.helper_exposed = helper_exposed or (helper if helper and helper_owner != 0 else "")
        self.nosuid = nosuid  # the helper's mount
        self.no_new_privs = no_new_privs  # of this process
        self.bounding = bounding  # capability bits of this process
        self.effective = effective
        self.granted = granted
        self.other_granted = other_granted  # what is granted of the other kind
        self.malformed = malformed  # line numbers
        self.provider = provider
        self.proposed = proposed  # (start, count) that would be free
        self.os_release = os_release  # the words of ID and ID_LIKE
        self.target_exists = target_exists
        self.dumpable = dumpable
        self.mapped = mapped  # the map was written before
        self.apparmor_restricts = apparmor_restricts
        self.said = said  # the helper's last line
        self.errno = errno  # of a direct write
        self.file = file  # that refused it


def gather(
    kind: str,
    pid: int,
    asked: Sequence[Extent],
    own: int,
    *,
    uid: int | None = None,
    name: str | None = None,
    helper: str | None = None,
    said: bytes = b"",
    errno: int = 0,
    file: str = "",
    root: str = "",
) -> Evidence:
    """Read all that bears on the map `asked` of the process `pid`; `uid` defaults to this process's real user
    id, which is the one that newuidmap looks at. `root` goes before every path. Raises nothing: what cannot
    be read has the healthy value."""
    if uid is None:
        uid = os.getuid()
    local = user_name(uid, root + "/etc/passwd")
    if name is None:
        name = local if local is not None or root else login_name(uid)
    other = "gid" if kind == "uid" else "uid"
    files = [read_file(root + FILES["uid"]), read_file(root + FILES["gid"])]
    status = read_file(root + "/proc/self/status")
    owner, mode, caps, nosuid = _program(root + helper) if helper else (0, 0o4755, 0, False)
    # The target's own files, dumpable or not, are readable; their owner tells whether it is dumpable.
    target = _owner(f"{root}/proc/{pid}/{kind}_map")
    return Evidence(
        kind,
        asked,
        own,
        pid=pid,
        uid=uid,
        name=name,
        name_is_local=local is not None,
        helper=helper,
        helper_owner=owner,
        helper_mode=mode,
        helper_caps=caps,
        helper_exposed=exposed(helper, root) if helper else "",
        nosuid=nosuid,
        no_new_privs=status_field(status, b"NoNewPrivs") == b"1",
        bounding=_hex(status_field(status, b"CapBnd"), ALL_CAPS),
        effective=_hex(status_field(status, b"CapEff"), 0),
        granted=granted(kind, uid, name, root),
        other_granted=granted(other, uid, name, root),
        malformed=malformed_lines(files[kind == "gid"], name, uid),
        provider=provider(read_file(root + "/etc/nsswitch.conf")),
        proposed=propose_range(files, _accounts(root)),
        os_release=os_release(root),
        target_exists=target is not None,
        dumpable=target is None or target == uid,
        mapped=_has_lines(f"{root}/proc/{pid}/{kind}_map"),
        apparmor_restricts=read_file(root + APPARMOR).strip() == b"1",
        said=last_line(said),
        errno=errno,
        file=file,
    )


def status_field(status: bytes, field: bytes) -> bytes:
    """A field of /proc/PID/status.

    >>> status_field(b"Name:\\tsh\\nNoNewPrivs:\\t1\\n", b"NoNewPrivs")
    b'1'
    """
    for line in status.split(b"\n"):
        key, _, value = line.partition(b":")
        if key == field:
            return value.strip()
    return b""


def _hex(text: bytes, default: int) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return default


def last_line(said: bytes) -> str:
    """The last line that a program said, or ''.

    >>> last_line(b"newuidmap: first\\nnewuidmap: second\\n\\n")
    'newuidmap: second'
    """
    lines = said.decode("utf-8", "backslashreplace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def file_caps(xattr: bytes) -> int:
    """The bits of the capabilities that a file's security.capability attribute makes effective at exec, as
    capabilities(7), "File capability extended attribute versioning", lays it out: a magic number with the
    effective flag in bit 0, then pairs of permitted and inheritable words.

    >>> file_caps(bytes.fromhex("0100000280000000000000000000000000000000")) == 1 << CAP_SETUID
    True
    """
    if len(xattr) < 12 or not xattr[0] & 1:
        return 0
    low = int.from_bytes(xattr[4:8], "little")
    return low | (int.from_bytes(xattr[12:16], "little") << 32)


def _program(path: str) -> tuple[int, int, int, bool]:
    """The owner, the mode, the file capabilities of a program, and whether its mount is nosuid."""
    try:
        stat = os.stat(path)
        nosuid = bool(os.statvfs(path).f_flag & os.ST_NOSUID)
    except OSError:
        return 0, 0o4755, 0, False
    try:
        caps = file_caps(os.getxattr(path, "security.capability"))
    except OSError:
        caps = 0
    return stat.st_uid, stat.st_mode & 0o7777, caps, nosuid


def exposed(path: str, root: str = "") -> str:
    """The first directory or file on the way to a program that others than root can change, "" when none is;
    links are followed, and their own places count, too. A directory with the sticky bit keeps what others own
    in it."""
    for way in dict.fromkeys((path, path if root else os.path.realpath(path))):
        parts = [part for part in way.split("/") if part]
        for count in range(len(parts) + 1):
            here = "/" + "/".join(parts[:count])
            try:
                status = os.lstat(root + here)
            except OSError:
                break
            if status.st_uid != 0 and not is_foreign(status.st_uid):
                return here
            if stat.S_ISLNK(status.st_mode):
                continue
            others = status.st_mode & (0o002 if status.st_gid == 0 else 0o022)
            if others and not status.st_mode & stat.S_ISVTX:
                return here
    return ""


def _owner(path: str) -> int | None:
    try:
        return os.stat(path).st_uid
    except OSError:
        return None


def _has_lines(path: str) -> bool:
    try:
        return bool(parse_map(read_file(path)))
    except Exception:  # a map that cannot be understood is a map
        return True


def _accounts(root: str) -> list[tuple[int, int]]:
    """The ids of local users and groups, each as a range of one, so that no proposal takes them."""
    ids = []
    for file in ("/etc/passwd", "/etc/group"):
        for line in read_file(root + file).split(b"\n"):
            fields = line.split(b":")
            if len(fields) > 2 and fields[2].isdigit() and len(fields[2]) <= 10:
                ids.append((int(fields[2]), 1))
    return ids


def os_release(root: str = "") -> str:
    """The words of ID and ID_LIKE in os-release(5), in lower case, separated by blanks."""
    data = read_file(root + "/etc/os-release") or read_file(root + "/usr/lib/os-release")
    words = []
    for key in (b"ID=", b"ID_LIKE="):
        for line in data.split(b"\n"):
            if line.startswith(key):
                words.append(line[len(key) :].strip().strip(b"\"'").lower().decode("ascii", "replace"))
    return " ".join(words)
