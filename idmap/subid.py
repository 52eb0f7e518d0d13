"""What is granted to a user: by /etc/subuid and /etc/subgid (subuid(5), subgid(5)), or by another provider.

Knows the files' format and nsswitch.conf's `subid:` line; decides nothing about maps. Files are read as
bytes, since user names have no encoding of their own.
"""

from __future__ import annotations

import os

from idmap.numbers import LAST_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    SubRange = tuple[int, int, int]  # (start, count, line), line from 1

FILES = {"uid": "/etc/subuid", "gid": "/etc/subgid"}


def read_file(path: str | bytes) -> bytes:
    """All bytes of a file; none when it does not exist or may not be read, which grants just as little."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        chunks = []
        while chunk := os.read(fd, 1 << 20):
            chunks.append(chunk)
    except OSError:
        return b""
    finally:
        os.close(fd)
    return b"".join(chunks)


def _number(field: bytes) -> int:
    """The number, or -1. A leading zero makes newuidmap read octal, so such a field is not taken at all."""
    if not field.isdigit() or len(field) > 10 or (field[:1] == b"0" and len(field) > 1):
        return -1
    return int(field)


def _range(start: bytes, count: bytes, line: int) -> SubRange | None:
    first, length = _number(start), _number(count)
    if first < 0 or length < 1 or first + length - 1 > LAST_ID:
        return None
    return (first, length, line)


def parse_file(data: bytes) -> list[tuple[bytes, int, int, int]]:
    """Every line that grants something, as `(owner, start, count, line)`; comments and malformed lines are
    passed over, as newuidmap passes over them.

    >>> parse_file(b"# sub ids\\nalice:100000:65536\\nbob:x:1\\n1001:165536:65536\\n")
    [(b'alice', 100000, 65536, 2), (b'1001', 165536, 65536, 4)]
    """
    found = []
    for number, line in enumerate(data.split(b"\n"), 1):
        fields = line.split(b":")
        if len(fields) == 3 and fields[0] and fields[0] == fields[0].strip() and not line.startswith(b"#"):
            grant = _range(fields[1], fields[2], number)
            if grant is not None:
                found.append((fields[0], *grant))
    return found


def grants_of(data: bytes, name: str | None, uid: int) -> list[SubRange]:
    """The ranges that the bytes of a subuid or subgid file grant to a user, in the file's order.

    A line counts when its owner is the name or the number. subgid files, too, are keyed by the user, not by a
    group. The search is by bytes and not line by line: on clusters the files have a line for each of many
    thousand users.

    >>> grants_of(b"alice:100000:65536\\n1000:300000:10\\n", "alice", 1000)
    [(100000, 65536, 1), (300000, 10, 2)]
    """
    owners = {b"%d" % uid}
    if name:
        owners.add(os.fsencode(name))
    data = b"\n" + data
    found = []
    for owner in owners:
        key = b"\n" + owner + b":"
        at = data.find(key)
        while at >= 0:
            end = data.find(b"\n", at + 1)
            fields = data[at + len(key) : end if end >= 0 else len(data)].split(b":")
            if len(fields) == 2:
                grant = _range(fields[0], fields[1], data.count(b"\n", 0, at + 1))
                if grant is not None:
                    found.append(grant)
            at = data.find(key, at + 1)
    return sorted(found, key=lambda grant: grant[2])


def malformed_lines(data: bytes, name: str | None, uid: int) -> list[int]:
    """The numbers of lines that begin with the user's name or number but grant nothing, for error messages.

    >>> malformed_lines(b"alice:100000: 65536\\n", "alice", 1000)
    [1]
    """
    owners = {b"%d" % uid, os.fsencode(name) if name else b"%d" % uid}
    good = {line for _, _, _, line in parse_file(data)}
    return [
        number
        for number, line in enumerate(data.split(b"\n"), 1)
        if number not in good and line.split(b":")[0].strip() in owners
    ]


def read(path: str | bytes, name: str | None, uid: int) -> list[SubRange]:
    """The ranges that the file at `path` grants to the user `name` or `uid`; none without such a file."""
    return grants_of(read_file(path), name, uid)


def user_name(uid: int, passwd: str | bytes = b"/etc/passwd") -> str | None:
    """The first name that a passwd(5) file gives to `uid`, or None. Read by hand: the pwd module would ask
    every name service, and loads its libraries to do so. For users of other services see `login_name`."""
    data = b"\n" + read_file(passwd)
    key = b":%d:" % uid
    at = data.find(key)
    while at >= 0:
        start = data.rfind(b"\n", 0, at) + 1
        fields = data[start:at].split(b":")
        # The key stands in the third field only when two fields come before it.
        if len(fields) == 2 and fields[0] and not fields[0].startswith((b"#", b"+", b"-")):
            return os.fsdecode(fields[0])
        at = data.find(key, at + 1)
    return None


def login_name(uid: int) -> str | None:
    """The name of `uid` from /etc/passwd, or else from the system's name services (LDAP, SSSD …), or None."""
    name = user_name(uid)
    if name is None:
        import pwd

        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            return None
    return name


def provider(nsswitch: bytes) -> str:
    """The provider that an nsswitch.conf(5) names first on its `subid:` line; "files" without such a line.
    newuidmap asks this one and no other.

    >>> provider(b"passwd: files\\nsubid: sss files\\n")
    'sss'
    """
    for line in nsswitch.split(b"\n"):
        if line[:6].lower() == b"subid:":
            words = line[6:].partition(b"#")[0].split()
            if words:
                return os.fsdecode(words[0])
    return "files"


def granted(kind: str, uid: int, name: str | None = None, root: str = "") -> list[SubRange]:
    """What the user `uid` may map as `kind` ("uid" or "gid"), from whichever provider the system names.

    `name` saves looking it up. `root` is put before the paths of files, for tests. With a provider other than
    files, `getsubids` is asked (line numbers are then those of its answer), and the files count only when it
    is not installed, as for newuidmap when the provider's library is not there.
    """
    if provider(read_file(root + "/etc/nsswitch.conf")) != "files":
        ranges = _ask_getsubids(kind, name or login_name(uid))
        if ranges is not None:
            return ranges
    if name is None:
        name = user_name(uid, root + "/etc/passwd")
    ranges = read(root + FILES[kind], name, uid)
    if not ranges and name is None and not root:
        # A user of LDAP may still have a line here by name.
        name = login_name(uid)
        ranges = read(FILES[kind], name, uid) if name else []
    return ranges


def _ask_getsubids(kind: str, name: str | None) -> list[SubRange] | None:
    """What getsubids(1) prints for a user; None when it cannot be asked."""
    if not name or name.startswith("-"):
        return None
    from idmap.helpers import find_helper, run_and_read

    program = find_helper("getsubids")
    if program is None:
        return None
    status, text = run_and_read([program, "-g", name] if kind == "gid" else [program, name])
    return parse_getsubids(text) if status == 0 else []


def parse_getsubids(text: bytes) -> list[SubRange]:
    """The ranges in the output of getsubids(1), lines such as `0: alice 100000 65536`.

    >>> parse_getsubids(b"0: alice 100000 65536\\n1: alice 300000 10\\n")
    [(100000, 65536, 1), (300000, 10, 2)]
    """
    found = []
    for number, line in enumerate(text.split(b"\n"), 1):
        fields = line.split()
        if len(fields) == 4:
            grant = _range(fields[2], fields[3], number)
            if grant is not None:
                found.append(grant)
    return found
